"""Reconstruct measurements that have no truth: the work of `bin/reconstruct`."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.commands.attack import Run, load_run
from jitter_jax.data import as_float32, load_arrays
from jitter_jax.data.measure import normalise
from jitter_jax.evaluate.figures import Panel, largest, panels_figure


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

    Writes `<output>.npz` with `estimate`, shaped like the measurements and in their unit, and
    `<output>.png` with the first measurement, its estimate, and the estimate measured again.

    Args:
        workdir: folder of a trained run.
        path: `.npz` or `.npy` file: `(time, traces)`, `(sections, time, traces)` or the latter with
            a channel axis.
        output: where the results go, without suffix.
        key: name of the array in a `.npz` file; not needed if it has one array only.
        transpose: the array is `(..., traces, time)`.
        num_iterations: K; that of the run if None.

    Returns:
        The estimates, `(sections, time, traces, 1)` float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not as above.
    """
    measurements = _read(path, key, transpose)
    run = load_run(workdir)
    estimates = np.stack([_reconstruct(run, y, num_iterations) for y in measurements])
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(output.with_suffix(".npz"), estimate=estimates)
    y, estimate = measurements[0], estimates[0]
    again = np.asarray(run.experiment.operator.forward(jnp.asarray(estimate)))
    limit = _clipped(y)
    panels = [
        Panel("measurement y", y, limit),
        Panel("estimate H(y)", estimate, _clipped(estimate)),
        Panel("A H(y)", again, limit),
    ]
    panels_figure([panels], output.with_suffix(".png"))
    return estimates


def _clipped(image: np.ndarray) -> float:
    """Grey limit at the 99.5th percentile: a few bright reflectors would hide the rest."""
    return float(np.percentile(np.abs(image), 99.5)) or largest(image)


def _reconstruct(run: Run, y: np.ndarray, num_iterations: int | None) -> np.ndarray:
    experiment = run.experiment

    def one(y):
        measured = normalise(y, y, experiment.config.data.normalisation)
        estimate = experiment.reconstructor.apply(
            run.params, experiment.operator, measured.measurement, num_iterations=num_iterations
        )
        return measured.scale * estimate

    return np.asarray(jax.jit(one)(y))


def _read(path: str | Path, key: str | None, transpose: bool) -> np.ndarray:
    arrays = load_arrays(path, keys=None if key is None else [key])
    if key is None and len(arrays) > 1:
        raise ValueError(f"{path} has the arrays {sorted(arrays)}: name one of them by --key")
    name = key or next(iter(arrays))
    array = as_float32(path, name, arrays[name])
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.size == 0:
        raise ValueError(
            f"{path}: {name!r} has shape {arrays[name].shape}; accepted: (time, traces) or "
            "(sections, time, traces), not empty"
        )
    array = np.swapaxes(array, 1, 2) if transpose else array
    return np.ascontiguousarray(array)[..., None]
