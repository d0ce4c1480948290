"""Reconstruct measurements that have no truth: the work of `bin/reconstruct`."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.commands.runs import Trained, load_trained
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

    Writes `<output>.npz` with `estimate`, `(sections, time, traces, 1)` in the measurements' unit,
    and `<output>.png` with the first measurement, its estimate, and the estimate measured again.

    Args:
        workdir: folder of a trained run.
        path: `.npz` or `.npy` file: `(time, traces)` or `(sections, time, traces)`, and either with
            a channel axis of length 1.
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
    archive, picture = (Path(f"{output}{suffix}") for suffix in (".npz", ".png"))
    if Path(path).resolve() in (archive.resolve(), picture.resolve()):
        raise ValueError(f"output={str(output)!r} is not accepted: it would overwrite {path}")
    measurements = _read(path, key, transpose)
    trained = load_trained(workdir)
    reconstruct = _compiled(trained, num_iterations)
    estimates = np.stack([np.asarray(reconstruct(y)) for y in measurements])
    archive.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(archive, estimate=estimates)
    y, estimate = measurements[0], estimates[0]
    again = np.asarray(trained.operator.forward(jnp.asarray(estimate)))
    limit = _clipped(y)
    panels = [
        Panel("measurement y", y, limit),
        Panel("estimate H(y)", estimate, _clipped(estimate)),
        Panel("A H(y)", again, limit),
    ]
    panels_figure([panels], picture)
    return estimates


def _clipped(image: np.ndarray) -> float:
    """Grey limit at the 99.5th percentile: a few bright reflectors would hide the rest."""
    return float(np.percentile(np.abs(image), 99.5)) or largest(image)


def _compiled(trained: Trained, num_iterations: int | None) -> Callable[[np.ndarray], jax.Array]:
    """Return the reconstruction of one measurement in its own unit."""

    def one(y: jax.Array) -> jax.Array:
        measured = normalise(y, y, trained.config.data.normalisation)
        estimate = trained.reconstructor.apply(
            trained.params, trained.operator, measured.measurement, num_iterations=num_iterations
        )
        return measured.scale * estimate

    return jax.jit(one)


def _read(path: str | Path, key: str | None, transpose: bool) -> np.ndarray:
    arrays = load_arrays(path, keys=None if key is None else [key])
    if key is None and len(arrays) > 1:
        raise ValueError(f"{path} has the arrays {sorted(arrays)}: name one of them by --key")
    name = key or next(iter(arrays))
    array = as_float32(path, name, arrays[name])
    if array.ndim >= 3 and array.shape[-1] == 1:
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
