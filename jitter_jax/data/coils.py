"""Images that many coils see: their sensitivity maps, simulated or estimated, and recorded data.

Coil c sees `s_c x`, the image times its map. Maps have unit sum of squares, `sum_c |s_c|^2 = 1`,
or are zero where nothing was seen to estimate them from; then `x = sum_c conj(s_c) (s_c x)`.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from jitter_jax.coil_maps import check_unit
from jitter_jax.data._checks import checked_count, checked_index
from jitter_jax.data._streams import Purpose, checked_seed
from jitter_jax.data.files import as_complex64, load_arrays
from jitter_jax.data.kspace import centred_fft2, centred_ifft2, crop_or_pad, fourier_resize
from jitter_jax.data.pipeline import Example, Source
from jitter_jax.extras import MissingExtraError
from jitter_jax.files import whole_file

Vary = Literal["fixed", "example"]

# Maps that are drawn example by example are kept, as masks are.
_KEPT_MAPS = 64
# Of the simulated maps, in halves of the field of view from its centre.
_RADIUS, _WIDTH = (1.1, 1.4), (0.7, 1.0)
_TURN = 0.25  # of the distance between two coils, to either side
_SLOPE = math.pi / 2  # radians from the centre to the border


def simulated_maps(
    shape: tuple[int, int], num_coils: int, *, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """Draw smooth maps of coils around an object.

    `s_c = g_c / sqrt(sum_b |g_b|^2)` with
    `g_c(r) = exp(-|r - p_c|^2 / (2 w_c^2) + i (a_c + b_c . r))` and `r` from -1 to 1 along each
    axis. The places `p_c` lie about evenly on a circle around the field of view, turned at random;
    their distances from the centre, the widths `w_c` and the phases are random as well.

    Args:
        shape: `(height, width)`.
        num_coils: at least 1; of a single coil only the phase is left.
        seed: an integer that is not negative, or several.

    Returns:
        `(height, width, num_coils)` complex64, unit sum of squares everywhere.

    Raises:
        ValueError: an argument outside its range.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape={shape} is not accepted: (height, width) of 1 or more is expected")
    num_coils = checked_count("num_coils", num_coils)
    words = [checked_seed(word) for word in (seed if isinstance(seed, Sequence) else [seed])]
    rng = np.random.Generator(np.random.PCG64([*words, int(Purpose.COILS)]))
    places = rng.uniform() * num_coils + np.arange(num_coils)
    angle = 2 * math.pi * (places + rng.uniform(-_TURN, _TURN, num_coils)) / num_coils
    radius, width = (rng.uniform(*bounds, num_coils) for bounds in (_RADIUS, _WIDTH))
    phase = rng.uniform(0, 2 * math.pi, num_coils)
    slope = rng.uniform(-_SLOPE, _SLOPE, (2, num_coils))
    down, right = (2 * (np.arange(n) - n // 2) / n for n in shape)
    down, right = down[:, None, None], right[None, :, None]
    squared = (down - radius * np.sin(angle)) ** 2 + (right - radius * np.cos(angle)) ** 2
    turned = phase + slope[0] * down + slope[1] * right
    maps = np.exp(-squared / (2 * width**2) + 1j * turned)
    return (maps / np.linalg.norm(maps, axis=-1, keepdims=True)).astype(np.complex64)


def espirit_maps(
    kspace: np.ndarray,
    num_calibration: int,
    *,
    kernel_width: int = 6,
    threshold: float = 0.02,
    smallest_eigenvalue: float = 0.95,
    num_iterations: int = 100,
    device: Any = -1,
) -> np.ndarray:
    """Estimate maps from the centre of k-space by ESPIRiT; needs sigpy.

    Args:
        kspace: k-space of all coils `(height, width, coils)`, complex, zero frequency at `n // 2`.
            Of it only the central square is read.
        num_calibration: side of that square, from `kernel_width` to the shorter side of k-space.
        kernel_width: side of the kernels, in points.
        threshold: singular values of the calibration matrix below this, relative to the largest,
            are taken for noise.
        smallest_eigenvalue: maps are zero where the largest eigenvalue, 1 within an object, is not
            above it.
        num_iterations: of the power method that finds it.
        device: as sigpy has it: -1 is the CPU, 0 the first GPU.

    Returns:
        `(height, width, coils)` complex64: unit sum of squares or zero, the first coil real and
        not negative.

    Raises:
        MissingExtraError: sigpy is not installed.
        ValueError: `num_calibration` is outside its range, a point of the square was not measured
            by any coil, or no pixel has an eigenvalue that is large enough.

    Source: Uecker et al., "ESPIRiT - An Eigenvalue Approach to Autocalibrating Parallel MRI: Where
    SENSE Meets GRAPPA" (2014).
    """
    if kspace.ndim != 3 or not np.iscomplexobj(kspace):
        raise ValueError(
            f"kspace has shape {kspace.shape} and dtype {kspace.dtype}; (height, width, coils), "
            "complex, is expected"
        )
    most = min(kspace.shape[:2])
    if not kernel_width <= checked_count("num_calibration", num_calibration) <= most:
        raise ValueError(
            f"num_calibration={num_calibration} is not accepted: from the kernel's width to the "
            f"shorter side of k-space, {kernel_width}..{most}, is expected"
        )
    square = crop_or_pad(kspace, (num_calibration, num_calibration))
    missing = int((square == 0).all(axis=-1).sum())
    if missing:
        raise ValueError(
            f"num_calibration={num_calibration} is not accepted: {missing} of the "
            f"{num_calibration**2} central points are zero in every coil; a square that is "
            "measured whole is expected"
        )
    try:
        from sigpy import to_device
        from sigpy.mri.app import EspiritCalib
    except ImportError as error:
        raise MissingExtraError("coil maps are estimated", "sigpy", "coils") from error
    calibration = EspiritCalib(
        np.ascontiguousarray(np.moveaxis(kspace, -1, 0), np.complex64),
        calib_width=num_calibration,
        thresh=threshold,
        kernel_width=kernel_width,
        crop=smallest_eigenvalue,
        max_iter=num_iterations,
        device=device,
        show_pbar=False,
    )
    # sigpy divides by the first coil, which is zero where it sees nothing.
    with np.errstate(invalid="ignore", divide="ignore"):
        found = to_device(calibration.run())
    maps = np.moveaxis(np.nan_to_num(found), 0, -1)
    if not maps.any():
        raise ValueError(
            f"smallest_eigenvalue={smallest_eigenvalue} is not accepted: no pixel of this k-space "
            "has an eigenvalue above it, so the maps would be zero everywhere"
        )
    size = np.linalg.norm(maps, axis=-1, keepdims=True)
    return (maps / np.where(size > 0, size, 1)).astype(np.complex64)


def check_maps(maps: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless maps fit k-space, and have unit sum of squares or are zero.

    Args:
        maps: `(height, width, coils)`.
        shape: of the k-space they are for, `(height, width, coils)`.
    """
    if maps.shape != tuple(shape):
        raise ValueError(
            f"maps has shape {maps.shape} beside k-space of {tuple(shape)}; one shape "
            "(height, width, coils) is expected"
        )
    check_unit(maps)
    if not np.any(maps):
        raise ValueError("maps is zero everywhere: coils that see something are expected")


def save_maps(path: Path, maps: np.ndarray) -> None:
    """Write maps to a `.npy` file, whole or not at all; its folder is made if absent."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, maps)


def load_maps(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read maps that `save_maps` wrote.

    Args:
        path: the file.
        shape: of the k-space they are for, `(height, width, coils)`.

    Raises:
        ValueError: the file is damaged or holds no such maps; the message names it.
    """
    try:
        maps = np.load(path, allow_pickle=False)
        check_maps(maps, shape)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: holds no maps that can be used ({error}); without the file they are "
            "estimated anew"
        ) from error
    return maps


def combine(coil_images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return `sum_c conj(s_c) x_c`, the image nearest to what all coils see.

    Args:
        coil_images: x, `(..., coils)`.
        maps: s of the same shape, unit sum of squares.

    Returns:
        `(...)` complex.
    """
    return np.sum(maps.conj() * coil_images, axis=-1)


def recorded_example(coil_images: np.ndarray, maps: np.ndarray) -> Example:
    """Return the example of recorded coil images, whose truth is their combination.

    Args:
        coil_images: `(height, width, coils)` complex64, of fully sampled k-space.
        maps: likewise, unit sum of squares or zero.

    Returns:
        `signal`: `(height, width, 1)`. `maps`. `measurement`: the k-space, `(height, width,
        coils)`, all points and all of their noise, which a mask is applied to when it is measured.
    """
    return {
        "signal": combine(coil_images, maps)[..., None],
        "maps": maps,
        "measurement": centred_fft2(coil_images),
    }


class MultiCoil:
    """Examples, each with the coil maps that it is measured through.

    Args:
        source: images, `signal` `(height, width, 1)`.
        maps_of: `(number of the example, its arrays) -> maps`, complex64 `(height, width, coils)`.

    Items:
        Those of the source, and `maps`.
    """

    def __init__(self, source: Source, maps_of: Callable[[int, Example], np.ndarray]):
        self._source, self._maps_of = source, maps_of

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, len(self))
        example = self._source[number]
        return {**example, "maps": self._maps_of(number, example)}


def coils(
    num_coils: int, *, seed: Sequence[int], vary: Vary = "fixed"
) -> Callable[[int, Example], np.ndarray]:
    """Return the function that gives each example its simulated maps.

    Args:
        num_coils: at least 1.
        seed: of the drawing.
        vary: `"fixed"`: the same for all. `"example"`: one set of maps for each example, the same
            in every epoch.

    Raises:
        ValueError: an argument outside its range.
    """
    checked_count("num_coils", num_coils)
    if vary not in get_args(Vary):
        raise ValueError(f"vary={vary!r} is not accepted: one of {get_args(Vary)} is expected")

    @lru_cache(maxsize=_KEPT_MAPS)
    def drawn(shape: tuple[int, int], place: int) -> np.ndarray:
        maps = simulated_maps(shape, num_coils, seed=(*seed, place))
        # Items share this array.
        maps.setflags(write=False)
        return maps

    def maps_of(number: int, example: Example) -> np.ndarray:
        return drawn(example["signal"].shape[:2], number if vary == "example" else 0)

    return maps_of


class Unmeasured:
    """Examples without their measurements, to be measured by simulation.

    Args:
        source: examples with `signal`.

    Items:
        Those of the source but `measurement`.
    """

    def __init__(self, source: Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = self._source[index]
        return {key: value for key, value in example.items() if key != "measurement"}


class RecordedSlices:
    """Slices of recorded, fully sampled k-space of many coils, held in memory.

    Args:
        path: a `.npz` file with `kspace`, `(coils, height, width)` or `(slices, coils, height,
            width)`, complex and zero frequency at `n // 2`; and, if they are known, `maps` of the
            same shape.
        size: give square slices of this side, the coils' images by `fourier_resize`, so that the
            k-space is the middle of the recorded one, and the nearest pixels of the maps; `None`
            gives them as stored.
        num_calibration: where the file has no maps, see `espirit_maps`.

    Attributes:
        num_coils: coils in the file.

    Items:
        As of `recorded_example`, amplitudes as stored. `volume`: int32, 0. `maximum`: float32,
        largest magnitude of all signals.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtraError: maps are to be estimated and sigpy is not installed.
        ValueError: the file or an array in it is not as above; an argument outside its range.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: int | None = None,
        num_calibration: int = 24,
    ):
        arrays = load_arrays(path)
        if "kspace" not in arrays:
            raise ValueError(f"{path}: has no array 'kspace'; it holds {sorted(arrays)}")
        kspace = coil_slices(path, "kspace", arrays["kspace"])
        if "maps" in arrays:
            maps = list(coil_slices(path, "maps", arrays["maps"]))
        else:
            maps = [espirit_maps(slice_, num_calibration) for slice_ in kspace]
        if len(maps) != len(kspace):
            raise ValueError(f"{path}: maps of {len(maps)} slices beside {len(kspace)} of k-space")
        self.num_coils: int = kspace.shape[-1]
        self._examples = []
        for points, own in zip(kspace, maps, strict=True):
            check_maps(own, points.shape)
            image = centred_ifft2(points)
            if size is not None:
                image = np.moveaxis(fourier_resize(np.moveaxis(image, -1, 0), size), 0, -1)
                own = _nearest(own, size)
            self._examples.append(recorded_example(image, np.ascontiguousarray(own)))
        self._maximum = np.float32(max(np.abs(item["signal"]).max() for item in self._examples))

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return {
            **self._examples[checked_index(index, len(self))],
            "volume": np.asarray(0, np.int32),
            "maximum": np.asarray(self._maximum),
        }


def _nearest(maps: np.ndarray, size: int) -> np.ndarray:
    """Return the pixels of maps that lie nearest to those of `fourier_resize`."""
    side = max(maps.shape[:2])
    steps = (np.arange(size) - size // 2) * side / size
    places = np.clip(np.rint(steps).astype(int) + side // 2, 0, side - 1)
    return crop_or_pad(maps, (side, side))[np.ix_(places, places)]


def coil_slices(path: str | Path, name: str, array: np.ndarray) -> np.ndarray:
    """Return slices of many coils with the coils last.

    Args:
        path: where the array came from, for the message.
        name: its name, for the message.
        array: complex, `(coils, height, width)` or `(slices, coils, height, width)`.

    Returns:
        `(slices, height, width, coils)` complex64.

    Raises:
        ValueError: the array has another shape or dtype, or values that are not finite.
    """
    if array.ndim not in (3, 4) or array.size == 0:
        raise ValueError(
            f"{path}: {name!r} has shape {array.shape}; accepted: (coils, height, width) or "
            "(slices, coils, height, width), not empty"
        )
    converted = as_complex64(path, name, array.reshape(-1, *array.shape[-3:]))
    return np.ascontiguousarray(np.moveaxis(converted, 1, -1))
