"""How fast slices come from fastMRI's files, to be held against the training step's appetite."""

import statistics
import time
from pathlib import Path

from jitter_jax.bench.cases import Plain
from jitter_jax.data.fastmri import FastMRISlices, index_fastmri
from jitter_jax.data.pipeline import training_iterator


def loader_rate(folder: str | Path, *, size: int = 320, batch: int = 4, repeats: int = 5) -> Plain:
    """Measure the input pipeline over a folder of single-coil files.

    A pass reads as many slices as there are, shuffled, with the pipeline's threads, transforms them
    to images and crops these. One pass goes before those that are timed, so that the files are in
    the system's cache: what is measured is HDF5 and NumPy, not the disk.

    Args:
        folder: fastMRI files.
        size: side of the cropped images.
        batch: slices in a batch.
        repeats: timed passes, at least 1.

    Returns:
        `slices_per_s` of each pass, their median, and what was read.
    """
    source = FastMRISlices(index_fastmri(folder).volumes, crop=size)
    batch = min(batch, len(source))
    num_batches = -(-len(source) // batch)
    rates = []
    with training_iterator(source, batch, seed=0) as batches:
        for _ in range(1 + repeats):
            begin = time.perf_counter()
            for _ in range(num_batches):
                next(batches)
            rates.append(num_batches * batch / (time.perf_counter() - begin))
    source.close()
    return {
        "slices_per_s": rates[1:],
        "median_slices_per_s": statistics.median(rates[1:]),
        "num_slices": len(source),
        "kspace_shape": source.volumes[0].kspace_shape[1:],
        "size": size,
    }
