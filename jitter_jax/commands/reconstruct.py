"""Reconstruct measurements that have no truth: the work of `bin/reconstruct`."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.commands.runs import Trained, load_trained
from jitter_jax.data import (
    FastMRISlices,
    as_complex64,
    as_float32,
    check_maps,
    espirit_maps,
    index_fastmri,
    load_arrays,
)
from jitter_jax.data.coils import coil_slices
from jitter_jax.data.measure import normalise, operator_of
from jitter_jax.data.sources import IMAGE_KINDS
from jitter_jax.evaluate.figures import Panel, largest, panels_figure, visible, visible_title
from jitter_jax.keys import domain_key

Arrays = dict[str, np.ndarray]

MASK_KEY, MAPS_KEY = "mask", "maps"


def reconstruct_file(
    workdir: str | Path,
    path: str | Path,
    output: str | Path,
    *,
    key: str | None = None,
    transpose: bool = False,
    num_iterations: int | None = None,
    num_calibration: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Reconstruct the measurements of a file with a trained network.

    Writes `<output>.npz` with `estimate`, `(signals, height, width, 1)` in the measurements' unit,
    and `<output>.png` with the first measurement, its estimate, and the estimate measured again.

    Args:
        workdir: folder of a trained run.
        path: `.npz` or `.npy` file: `(height, width)` or `(signals, height, width)`, and either
            with a channel axis of length 1; of sections `(time, traces)`. K-space is complex and
            centred; an array `mask` beside it, `(height, width)` or one for each signal, says where
            it was sampled, otherwise that is where it is not zero. K-space of a run of many coils
            is `(coils, height, width)` or `(signals, coils, height, width)`; its maps are the array
            `maps` of the same form (or those of one signal, for all), of unit sum of squares, or
            else estimated by ESPIRiT. Or an `.h5` file of fastMRI.
        output: where the results go, without suffix.
        key: name of the array in a `.npz` file; not needed if it has one array only.
        transpose: height and width are the other way round in the file, such as `(traces, time)`.
        num_iterations: K; that of the run if None.
        num_calibration: side of the central square that maps are estimated from, measured whole;
            that of the run if None.
        seed: of the noise that a smoothed reconstruction is averaged over.

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
    coils = trained.config.operator.name == "sense"
    if Path(path).suffix == ".h5":
        measurements, arrays = _read_fastmri(path, coils=coils)
    elif coils:
        measurements, arrays = _read_coils(path, key, transpose)
    else:
        measurements, arrays = _read(path, key, transpose, imaging=imaging)
    if coils and "maps" not in arrays:
        side = num_calibration or trained.config.data.coils.num_calibration
        arrays["maps"] = np.stack([espirit_maps(y, side) for y in measurements])
    reconstruct = _compiled(trained, num_iterations, domain_key(seed, "reconstruct"))
    examples = [
        {name: array[i] for name, array in arrays.items()} for i in range(len(measurements))
    ]
    estimates = np.stack(
        [
            np.asarray(reconstruct(y, example, number))
            for number, (y, example) in enumerate(zip(measurements, examples, strict=True))
        ]
    )
    archive.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(archive, estimate=estimates)
    y, estimate = jnp.asarray(measurements[0]), estimates[0]
    operator = operator_of(trained.operator, jax.tree.map(jnp.asarray, examples[0]))
    remeasured = operator.forward(jnp.asarray(estimate))
    seen, again = (np.asarray(visible(operator, part)) for part in (y, remeasured))
    limit = _clipped(seen)
    panels = [
        Panel(f"{visible_title(seen, y)} y", seen, limit),
        Panel("estimate H(y)", estimate, _clipped(estimate)),
        Panel("A H(y)", again, limit),
    ]
    panels_figure([panels], picture)
    return estimates


def _clipped(image: np.ndarray) -> float:
    """Grey limit at the 99.5th percentile: a few bright reflectors would hide the rest."""
    return float(np.percentile(np.abs(image), 99.5)) or largest(image)


def _compiled(
    trained: Trained, num_iterations: int | None, key: jax.Array
) -> Callable[[np.ndarray, Arrays, int], jax.Array]:
    """Return the reconstruction of one measurement in its own unit, with its mask and maps."""

    def one(y: jax.Array, example: Mapping[str, jax.Array], number: jax.Array) -> jax.Array:
        operator = operator_of(trained.operator, example)
        measured = normalise(operator, y, y, trained.config.data.normalisation)
        estimate = trained.reconstructor.apply(
            trained.params,
            operator,
            measured.measurement,
            smoothing_key=jax.random.fold_in(key, number),
            num_iterations=num_iterations,
        )
        return measured.scale * estimate

    return jax.jit(one)


def _read(
    path: str | Path, key: str | None, transpose: bool, *, imaging: bool
) -> tuple[np.ndarray, Arrays]:
    """Return measurements `(signals, height, width, 1)` and masks `(signals, height, width)`."""
    arrays = load_arrays(path)
    given = arrays.pop(MASK_KEY, None) if imaging else None
    name = _name(path, key, arrays)
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
    return array[..., None], {"mask": _masks(path, name, given, array != 0, transpose)}


def _read_coils(path: str | Path, key: str | None, transpose: bool) -> tuple[np.ndarray, Arrays]:
    """Return k-space `(signals, height, width, coils)`, its masks and, if they are known, maps."""
    arrays = load_arrays(path)
    given, maps = (arrays.pop(name, None) for name in (MASK_KEY, MAPS_KEY))
    name = _name(path, key, arrays)
    turned = lambda array: np.swapaxes(array, -1, -2) if transpose else array
    kspace = coil_slices(path, name, turned(arrays[name]))
    made = {"mask": _masks(path, name, given, (kspace != 0).any(-1), transpose)}
    if maps is not None:
        own = coil_slices(path, MAPS_KEY, turned(maps))
        if len(own) not in (1, len(kspace)):
            raise ValueError(f"{path}: maps of {len(own)} slices beside {len(kspace)} of k-space")
        for slice_ in own:
            check_maps(slice_, kspace.shape[1:])
        made["maps"] = np.broadcast_to(own, kspace.shape)
    return kspace, made


def _name(path: str | Path, key: str | None, arrays: Arrays) -> str:
    """Return the name of the array of measurements."""
    if key is not None and key not in arrays:
        raise ValueError(f"{path}: has no array {key!r}; it holds {sorted(arrays)}")
    if key is None and len(arrays) != 1:
        raise ValueError(f"{path} has the arrays {sorted(arrays)}: name one of them by --key")
    return key or next(iter(arrays))


def _masks(
    path: str | Path, name: str, given: np.ndarray | None, found: np.ndarray, transpose: bool
) -> np.ndarray:
    """Return the masks that are given, or those found, `(signals, height, width)`."""
    if given is None:
        return found
    masks = np.swapaxes(given, -1, -2) if transpose else given
    if masks.shape not in (found.shape, found.shape[1:]):
        raise ValueError(
            f"{path}: {MASK_KEY!r} has shape {given.shape}; accepted: the shape of {name!r}, "
            "(signals, height, width), with or without its first axis"
        )
    return np.broadcast_to(masks != 0, found.shape)


def _read_fastmri(path: str | Path, *, coils: bool) -> tuple[np.ndarray, Arrays]:
    """Return the k-space of all slices of a file, `(slices, rows, columns, coils)`, and masks."""
    slices = FastMRISlices(index_fastmri(path).volumes, raw=True)
    items = [slices[i] for i in range(len(slices))]
    slices.close()
    kspace = np.stack([item["kspace"] for item in items])
    if coils != (kspace.ndim == 4):
        found = f"{kspace.shape[-1]} coils" if kspace.ndim == 4 else "a single coil"
        expected = "many coils, as the run's" if coils else "a single coil"
        raise ValueError(f"{path}: k-space of {found}; accepted: {expected}")
    kspace = kspace if coils else kspace[..., None]
    shape = kspace.shape[1:3]
    masks = [
        np.broadcast_to(item["mask"], shape) if "mask" in item else (points != 0).any(-1)
        for item, points in zip(items, kspace, strict=True)
    ]
    return kspace, {"mask": np.stack(masks)}
