"""Reconstruct measurements that have no truth: the work of `bin/reconstruct`."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.commands.runs import Trained, load_trained
from jitter_jax.data import FastMRISlices, as_complex64, as_float32, index_fastmri, load_arrays
from jitter_jax.data.measure import normalise, operator_of
from jitter_jax.data.sources import IMAGE_KINDS
from jitter_jax.evaluate.figures import Panel, largest, panels_figure, visible, visible_title

MASK_KEY = "mask"


def reconstruct_file(
    workdir: str | Path,
    path: str | Path,
    output: str | Path,
    *,
    key: str | None = None,
    transpose: bool = False,
    num_iterations: int | None = None,
) -> np.ndarray:
    """Reconstruct the measurements of a file with a trained network.

    Writes `<output>.npz` with `estimate`, `(signals, height, width, 1)` in the measurements' unit,
    and `<output>.png` with the first measurement, its estimate, and the estimate measured again.

    Args:
        workdir: folder of a trained run.
        path: `.npz` or `.npy` file: `(height, width)` or `(signals, height, width)`, and either
            with a channel axis of length 1; of sections `(time, traces)`. K-space is complex and
            centred; an array `mask` beside it, `(height, width)` or one for each signal, says where
            it was sampled, otherwise that is where it is not zero. Or a single-coil `.h5` file of
            fastMRI.
        output: where the results go, without suffix.
        key: name of the array in a `.npz` file; not needed if it has one array only.
        transpose: height and width are the other way round in the file, such as `(traces, time)`.
        num_iterations: K; that of the run if None.

    Returns:
        The estimates, `(signals, height, width, 1)`, float32 or complex64.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not as above.
    """
    archive, picture = (Path(f"{output}{suffix}") for suffix in (".npz", ".png"))
    if Path(path).resolve() in (archive.resolve(), picture.resolve()):
        raise ValueError(f"output={str(output)!r} is not accepted: it would overwrite {path}")
    trained = load_trained(workdir)
    imaging = trained.config.data.kind in IMAGE_KINDS
    if imaging and trained.config.data.normalisation == "none":
        raise ValueError(
            f"{workdir} was trained with data.normalisation='none', in a unit that measurements "
            "without truth do not tell: train with 'zero_filled'"
        )
    if Path(path).suffix == ".h5":
        measurements, masks = _read_fastmri(path)
    else:
        measurements, masks = _read(path, key, transpose, imaging=imaging)
    reconstruct = _compiled(trained, num_iterations)
    pairs = list(zip(measurements, masks, strict=True))
    estimates = np.stack([np.asarray(reconstruct(y, mask)) for y, mask in pairs])
    archive.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(archive, estimate=estimates)
    y, estimate = jnp.asarray(measurements[0]), estimates[0]
    operator = operator_of(trained.operator, {"mask": jnp.asarray(masks[0])})
    remeasured = operator.forward(jnp.asarray(estimate))
    seen, again = (np.asarray(visible(operator, part)) for part in (y, remeasured))
    limit = _clipped(seen)
    panels = [
        Panel(f"{visible_title(seen)} y", seen, limit),
        Panel("estimate H(y)", estimate, _clipped(estimate)),
        Panel("A H(y)", again, limit),
    ]
    panels_figure([panels], picture)
    return estimates


def _clipped(image: np.ndarray) -> float:
    """Grey limit at the 99.5th percentile: a few bright reflectors would hide the rest."""
    return float(np.percentile(np.abs(image), 99.5)) or largest(image)


def _compiled(
    trained: Trained, num_iterations: int | None
) -> Callable[[np.ndarray, np.ndarray], jax.Array]:
    """Return the reconstruction of one measurement in its own unit, with its mask."""

    def one(y: jax.Array, mask: jax.Array) -> jax.Array:
        operator = operator_of(trained.operator, {"mask": mask})
        measured = normalise(operator, y, y, trained.config.data.normalisation)
        estimate = trained.reconstructor.apply(
            trained.params, operator, measured.measurement, num_iterations=num_iterations
        )
        return measured.scale * estimate

    return jax.jit(one)


def _read(
    path: str | Path, key: str | None, transpose: bool, *, imaging: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return measurements `(signals, height, width, 1)` and masks `(signals, height, width)`."""
    arrays = load_arrays(path)
    given = arrays.pop(MASK_KEY, None) if imaging else None
    if key is not None and key not in arrays:
        raise ValueError(f"{path}: has no array {key!r}; it holds {sorted(arrays)}")
    if key is None and len(arrays) != 1:
        raise ValueError(f"{path} has the arrays {sorted(arrays)}: name one of them by --key")
    name = key or next(iter(arrays))
    array = (as_complex64 if imaging else as_float32)(path, name, arrays[name])
    if array.ndim >= 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.size == 0:
        raise ValueError(
            f"{path}: {name!r} has shape {arrays[name].shape}; accepted: (height, width) or "
            "(signals, height, width), not empty"
        )
    array = np.ascontiguousarray(np.swapaxes(array, 1, 2) if transpose else array)
    if given is None:
        return array[..., None], array != 0
    masks = np.swapaxes(given, -1, -2) if transpose else given
    if masks.shape not in (array.shape, array.shape[1:]):
        raise ValueError(
            f"{path}: {MASK_KEY!r} has shape {given.shape}; accepted: the shape of {name!r}, with "
            "or without its first axis"
        )
    return array[..., None], np.broadcast_to(masks != 0, array.shape)


def _read_fastmri(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the k-space of all slices of a single-coil file, with its mask."""
    slices = FastMRISlices(index_fastmri(path).volumes, raw=True)
    items = [slices[i] for i in range(len(slices))]
    slices.close()
    kspace = np.stack([item["kspace"] for item in items])
    if kspace.ndim != 3:
        raise ValueError(f"{path}: k-space of {kspace.shape[-1]} coils; accepted: a single coil")
    masks = [
        np.broadcast_to(item["mask"], kspace.shape[1:]) if "mask" in item else item["kspace"] != 0
        for item in items
    ]
    return kspace[..., None], np.stack(masks)
