"""Reconstruct measurements that have no truth: the work of `bin/reconstruct`."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax import experiment as experiments
from jitter_jax.commands.runs import Trained, load_trained
from jitter_jax.data import as_complex64, as_float32, load_arrays
from jitter_jax.data.measure import normalise, operator_of
from jitter_jax.evaluate.figures import Panel, largest, panels_figure, visible, visible_title
from jitter_jax.operators import LinearOperator


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
            with a channel axis of length 1; of sections `(time, traces)`. K-space is complex,
            centred, and sampled where an entry is not zero in any signal of the file.
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
    is_complex = np.issubdtype(experiments.signal_type(trained.config)["dtype"], np.complexfloating)
    measurements = _read(path, key, transpose, is_complex=is_complex)
    operator = operator_of(trained.operator, {"mask": jnp.asarray(_sampled(measurements))})
    reconstruct = _compiled(trained, operator, num_iterations)
    estimates = np.stack([np.asarray(reconstruct(y)) for y in measurements])
    archive.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(archive, estimate=estimates)
    y, estimate = measurements[0], estimates[0]
    remeasured = operator.forward(jnp.asarray(estimate))
    seen, again = (np.asarray(visible(operator, part)) for part in (jnp.asarray(y), remeasured))
    limit = _clipped(seen)
    panels = [
        Panel(f"{visible_title(seen)} y", seen, limit),
        Panel("estimate H(y)", estimate, _clipped(estimate)),
        Panel("A H(y)", again, limit),
    ]
    panels_figure([panels], picture)
    return estimates


def _sampled(measurements: np.ndarray) -> np.ndarray:
    return np.any(measurements != 0, axis=(0, -1))


def _clipped(image: np.ndarray) -> float:
    """Grey limit at the 99.5th percentile: a few bright reflectors would hide the rest."""
    return float(np.percentile(np.abs(image), 99.5)) or largest(image)


def _compiled(
    trained: Trained, operator: LinearOperator, num_iterations: int | None
) -> Callable[[np.ndarray], jax.Array]:
    """Return the reconstruction of one measurement in its own unit."""

    def one(y: jax.Array) -> jax.Array:
        measured = normalise(operator, y, y, trained.config.data.normalisation)
        estimate = trained.reconstructor.apply(
            trained.params, operator, measured.measurement, num_iterations=num_iterations
        )
        return measured.scale * estimate

    return jax.jit(one)


def _read(path: str | Path, key: str | None, transpose: bool, *, is_complex: bool) -> np.ndarray:
    arrays = load_arrays(path, keys=None if key is None else [key])
    if key is None and len(arrays) > 1:
        raise ValueError(f"{path} has the arrays {sorted(arrays)}: name one of them by --key")
    name = key or next(iter(arrays))
    convert = as_complex64 if is_complex else as_float32
    array = convert(path, name, arrays[name])
    if array.ndim >= 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.size == 0:
        raise ValueError(
            f"{path}: {name!r} has shape {arrays[name].shape}; accepted: (height, width) or "
            "(signals, height, width), not empty"
        )
    array = np.swapaxes(array, 1, 2) if transpose else array
    return np.ascontiguousarray(array)[..., None]
