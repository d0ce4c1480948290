"""Masks: which points of k-space a scan measures.

Every mask lies on the centred grid, where the frequency zero of an axis of `n` points has index
`n // 2`. A mask of lines keeps whole columns (`axis=1`, as fastMRI) or whole rows (`axis=0`, as the
public code of "SGD Jittering"); the other two choose single points. The acceleration of a mask
is the number of points of the grid over the number that it keeps, calibration included.

Masks are drawn on the host with `numpy.random.RandomState`, whose streams NumPy keeps the same in
all versions (NEP 19); only `vdrs_lines_repo` must have the newer generator. One seed gives one
mask, and no global state is read or changed.
"""

import math
import operator
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

if TYPE_CHECKING:
    from jax import Array

Seed = int | Sequence[int]
Angles = Literal["golden", "uniform"]
_Draw = Callable[[np.random.RandomState, np.ndarray], np.ndarray]

_LARGEST_SEED = 2**32 - 1
# Share of the kept lines that lie at the centre, where no number is given: fastMRI's fractions,
# 0.08 of all lines at acceleration 4 and 0.04 at 8.
_CALIBRATION_SHARE = 0.32
# Of all lines, whatever the acceleration: the public code of "SGD Jittering".
_SGD_JITTERING_FRACTION = 0.04
# Half a turn over the golden ratio, 111.25 degrees (Winkelmann et al., IEEE TMI 2007).
_GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2
# The search for the radius of a Poisson disc ends this close above the number of points wanted.
_SURPLUS = 0.001
_MOST_RADII = 20
# Radii between two neighbouring distances of a grid keep the same points. The largest step, from 1
# to its diagonal, is a factor of 1.42; a spread of more than that leaves no gap between the counts.
_SPREAD = (0.8, 1.2)


class Mask(NamedTuple):
    """A mask and how far it accelerates.

    Attributes:
        array: `(height, width)` bool, True where k-space is measured, on the centred grid.
        requested: the acceleration asked for.
        acceleration: the acceleration it has, `array.size / array.sum()`.
    """

    array: np.ndarray
    requested: float
    acceleration: float


def seed_from_name(file_name: str | PurePath) -> tuple[int, ...]:
    """Returns the seed that fastMRI gives to all slices of a file.

    Args:
        file_name: name of the file, its suffix included; folders before it do not count.

    Returns:
        The codes of the name's characters.

    Raises:
        ValueError: there is no name.

    Source: `use_seed` of fastMRI's data transforms.
    """
    name = PurePath(file_name).name
    if not name:
        raise ValueError(f"file_name={str(file_name)!r} is not accepted: it ends in no file's name")
    return tuple(map(ord, name))


def seed_from_key(key: "Array") -> tuple[int, ...]:
    """Returns a seed made of a PRNG key's words.

    Args:
        key: one PRNG key, outside any transformation.

    Raises:
        ValueError: an array of several keys came.
    """
    from jax import random  # masks are drawn where JAX is not needed, as in a loader

    words = np.asarray(random.key_data(key))
    if words.ndim != 1:
        raise ValueError(f"key has shape {words.shape[:-1]}: one key, of shape (), is expected")
    return tuple(words.tolist())


def random_lines(
    shape: tuple[int, int],
    acceleration: float,
    *,
    seed: Seed,
    num_calibration: int | None = None,
    center_fraction: float | None = None,
    axis: int = 1,
) -> Mask:
    """Keeps the central lines, and every other line with one probability.

    The probability `p = (n / acceleration - c) / (n - c)` of each of `n` lines, `c` of them
    calibration, makes the expected number of lines `n / acceleration`; the number itself is random.

    Args:
        shape: `(height, width)` of k-space.
        acceleration: from 1 (everything is kept) to the number of lines.
        seed: an integer of `0 .. 2**32 - 1`, or a sequence of such.
        num_calibration: number of central lines that are always kept, 0 or more.
        center_fraction: the same as a fraction of all lines, `0 .. 1`:
            `c = round(n * center_fraction)`. Without either it is `0.32 / acceleration`,
            fastMRI's 0.08 at acceleration 4 and 0.04 at 8.
        axis: 1 keeps columns, 0 keeps rows.

    Raises:
        ValueError: an argument is out of its range, the calibration alone is more than
            `n / acceleration` lines, or no line was kept.

    Source: fastMRI's `RandomMaskFunc`, whose mask it is for the same seed where that class is
    given one acceleration.
    """

    def draw(rng: np.random.RandomState, central: np.ndarray) -> np.ndarray:
        num_lines, num_central = central.size, int(central.sum())
        probability = (num_lines / acceleration - num_central) / (num_lines - num_central)
        return rng.uniform(size=num_lines) < probability

    return _lines(draw, shape, acceleration, seed, num_calibration, center_fraction, axis)


def equispaced_lines(
    shape: tuple[int, int],
    acceleration: float,
    *,
    seed: Seed,
    num_calibration: int | None = None,
    center_fraction: float | None = None,
    axis: int = 1,
    adjust_spacing: bool = True,
) -> Mask:
    """Keeps the central lines, and lines at one distance from a random first.

    With `adjust_spacing` the distance is `s = acceleration (n - c) / (n - c acceleration)` for `n`
    lines, `c` of them calibration, so that about `n / acceleration` are kept in all; places
    between lines are rounded. Without, the distance is `acceleration` exactly, and the
    calibration comes on top: the acceleration that the mask has is below the one asked for.

    Args:
        shape: as in `random_lines`.
        acceleration: as in `random_lines`; a whole number without `adjust_spacing`.
        seed: as in `random_lines`.
        num_calibration: as in `random_lines`.
        center_fraction: as in `random_lines`.
        axis: as in `random_lines`.
        adjust_spacing: widen the distance to make up for the calibration.

    Raises:
        ValueError: as in `random_lines`, or `acceleration` is not whole where it has to be.

    Source: fastMRI's `EquispacedMaskFractionFunc`, and `EquiSpacedMaskFunc` without
    `adjust_spacing`, whose masks they are for the same seed where those classes are given one
    acceleration.
    """

    def draw(rng: np.random.RandomState, central: np.ndarray) -> np.ndarray:
        num_lines, num_central = central.size, int(central.sum())
        lines = np.zeros(num_lines, bool)
        if not adjust_spacing:
            step = _whole(acceleration)
            lines[rng.randint(0, high=step) :: step] = True
            return lines
        missing = num_lines - num_central * acceleration
        # Where calibration is all that the acceleration leaves, fastMRI divides by zero.
        if missing > 0:
            spacing = acceleration * (num_lines - num_central) / missing
            first = rng.randint(0, high=round(spacing))
            # fastMRI's bound: only rounding reaches the last line.
            lines[np.around(np.arange(first, num_lines - 1, spacing)).astype(int)] = True
        return lines

    return _lines(draw, shape, acceleration, seed, num_calibration, center_fraction, axis)


def magic_lines(
    shape: tuple[int, int],
    acceleration: float,
    *,
    seed: Seed,
    num_calibration: int | None = None,
    center_fraction: float | None = None,
    axis: int = 1,
    adjust_spacing: bool = True,
) -> Mask:
    """Keeps the central lines, and equispaced lines with an offset between the two sides.

    The k-space of an image with little phase is nearly conjugate-symmetric, so a line on the one
    side tells much of its mirror image on the other. Here the lines of the two sides start two
    lines apart: at an acceleration of 4 the mirror images fall midway between the lines.

    With `adjust_spacing` the distance is `s = round(n / (round(n / acceleration) - c))` for `n`
    lines, `c` of them calibration. It is whole, so the acceleration that the mask has is only near
    the one asked for. Without, the distance is `acceleration`, as in `equispaced_lines`.

    Args:
        shape: as in `random_lines`.
        acceleration: as in `random_lines`; a whole number without `adjust_spacing`.
        seed: as in `random_lines`.
        num_calibration: as in `random_lines`; with `adjust_spacing` the frequency zero, which the
            offset lines miss, is kept even without.
        center_fraction: as in `random_lines`.
        axis: as in `random_lines`.
        adjust_spacing: as in `equispaced_lines`.

    Raises:
        ValueError: as in `random_lines`, or `acceleration` is not whole where it has to be, or is
            so low that the lines would be less than two apart.

    Source: Defazio, "Offset Sampling Improves Deep Learning based Accelerated MRI Reconstructions
    by Exploiting Symmetry" (2019); fastMRI's `MagicMaskFractionFunc`, and `MagicMaskFunc` without
    `adjust_spacing`, whose masks they are for the same seed where those classes are given one
    acceleration.
    """

    def draw(rng: np.random.RandomState, central: np.ndarray) -> np.ndarray:
        num_lines, num_central = central.size, int(central.sum())
        if adjust_spacing:
            num_central = max(num_central, 1)
            num_spaced = round(num_lines / acceleration) - num_central
            if num_spaced <= 0:
                return np.arange(num_lines) == num_lines // 2
            if num_lines < 2 * num_spaced:
                raise ValueError(
                    f"acceleration={acceleration} is not accepted: beside {num_central} lines of "
                    f"calibration {num_spaced} of {num_lines} are missing, and these cannot be 2 "
                    "or more apart; from acceleration 2 on they always can"
                )
            spacing = round(num_lines / num_spaced)
        else:
            spacing = _whole(acceleration)
        start = rng.randint(0, high=spacing)
        even = start % 2 == 0
        # Frequencies 0, 1, 2, ... and -1, -2, -3, ...
        positive = np.zeros((num_lines + 1) // 2, bool)
        negative = np.zeros(num_lines // 2, bool)
        positive[start + (1 if even else 2) :: spacing] = True
        negative[start + (2 if even else -1) :: spacing] = True
        positive[0] |= adjust_spacing
        return np.concatenate([negative[::-1], positive])

    return _lines(draw, shape, acceleration, seed, num_calibration, center_fraction, axis)


def gaussian_lines(
    shape: tuple[int, int],
    acceleration: float,
    *,
    seed: Seed,
    num_calibration: int | None = None,
    center_fraction: float | None = None,
    axis: int = 1,
) -> Mask:
    """Keeps the central lines, and lines at normally distributed places.

    The lines lie evenly from -3 to 3. Standard normal places are drawn, those outside are passed
    over, and the nearest line is kept, until the acceleration is below the one asked for: of `n`
    lines `floor(n / acceleration) + 1` are kept.

    Args:
        shape: as in `random_lines`.
        acceleration: as in `random_lines`.
        seed: as in `random_lines`.
        num_calibration: as in `random_lines`.
        center_fraction: as in `random_lines`, but 0.04 at every acceleration without either.
        axis: as in `random_lines`.

    Raises:
        ValueError: as in `random_lines`.

    Source: `exhaustive_sample` of the public code of "SGD Jittering" (there rows, seed 10), line
    for line.
    """
    if num_calibration is None and center_fraction is None:
        center_fraction = _SGD_JITTERING_FRACTION

    def draw(rng: np.random.RandomState, central: np.ndarray) -> np.ndarray:
        lines, num_lines = central.copy(), central.size
        num_kept = int(lines.sum())
        grid = np.linspace(-3.0, 3.0, num_lines)
        while True:
            # As many at a time as there are lines: the stream is that of single draws.
            places = rng.standard_normal(num_lines)
            places = places[np.abs(places) < 3]
            for line in np.abs(places[:, None] - grid).argmin(axis=1):
                num_kept += not lines[line]
                lines[line] = True
                if acceleration > num_lines / num_kept:
                    return lines

    return _lines(draw, shape, acceleration, seed, num_calibration, center_fraction, axis)


def variable_density_lines(
    shape: tuple[int, int],
    acceleration: float,
    *,
    seed: Seed,
    num_calibration: int | None = None,
    center_fraction: float | None = None,
    axis: int = 1,
    power: float = 2.0,
) -> Mask:
    """Keeps the central lines, and lines drawn with a polynomial density.

    Lines are drawn without replacement, each time in proportion to
    `(1 - |k| / (n // 2 + 1)) ^ power` for the line of frequency `k` of `n`, until
    `round(n / acceleration)` are kept in all.

    Args:
        shape: as in `random_lines`.
        acceleration: as in `random_lines`.
        seed: as in `random_lines`.
        num_calibration: as in `random_lines`.
        center_fraction: as in `random_lines`.
        axis: as in `random_lines`.
        power: 0 (uniform) or more.

    Raises:
        ValueError: as in `random_lines`, or `power` is out of its range.

    Source: the polynomial density of Lustig, Donoho and Pauly, "Sparse MRI" (2007).
    """
    _check_not_negative("power", power)

    def draw(rng: np.random.RandomState, central: np.ndarray) -> np.ndarray:
        num_lines = central.size
        frequency = np.abs(np.arange(num_lines) - num_lines // 2)
        # Waiting times of the rate `density` end in the order of draws without replacement. As
        # logarithms, which the density of a high power does not underflow.
        log_density = power * np.log1p(-frequency / (num_lines // 2 + 1))
        order = np.log(rng.exponential(size=num_lines)) - log_density
        order[central] = -np.inf
        lines = np.zeros(num_lines, bool)
        lines[np.argsort(order, kind="stable")[: round(num_lines / acceleration)]] = True
        return lines

    return _lines(draw, shape, acceleration, seed, num_calibration, center_fraction, axis)


def vdrs_lines_repo(
    shape: tuple[int, int], acceleration: float, *, seed: Seed, axis: int = 1
) -> Mask:
    """Keeps the central lines, and others drawn with equal chance: a reading of the public code.

    Of `n` lines `round(0.32 n / acceleration)` are central, one line off the frequency zero where
    `n` is even and they are odd, and `round(n / acceleration)` are kept in all. The name there is
    "variable density"; `variable_density_lines` with `power=0` is the same kind of mask, centred.

    Args:
        shape: as in `random_lines`.
        acceleration: as in `random_lines`.
        seed: as in `random_lines`; the public code has `1000 * acceleration + n`.
        axis: as in `random_lines`.

    Raises:
        ValueError: as in `random_lines`.

    Source: `make_vdrs_mask` of SMUG's public code (there columns), line for line.
    """

    def draw(rng: np.random.RandomState, central: np.ndarray) -> np.ndarray:
        num_lines = central.size
        number = round(_CALIBRATION_SHARE * num_lines / acceleration)
        start = (num_lines - number) // 2
        lines = np.zeros(num_lines, bool)
        lines[start : start + number] = True
        num_others = round(num_lines / acceleration) - number
        # The one mask that is drawn by NumPy's newer generator.
        del rng
        own = np.random.default_rng(_checked_seed(seed))
        lines[own.choice(np.flatnonzero(~lines), num_others, replace=False)] = True
        return lines

    return _lines(draw, shape, acceleration, seed, 0, None, axis)


def poisson_disc(
    shape: tuple[int, int],
    acceleration: float,
    *,
    seed: Seed,
    num_calibration: int = 0,
    slope: float = 2.0,
) -> Mask:
    """Keeps a central square, and random points no two of which are near each other.

    Points of the grid are visited in a random order and kept where no point kept before has them
    within its radius `r = scale (1 + slope d) u`, with `d` the distance from the centre, 1 at the
    middle of an edge, and `u` drawn uniformly from 0.8 .. 1.2: fixed radii would meet the few
    distances of a grid in rings, and many accelerations not at all. Outside the square two kept
    points are at least the smaller of their radii apart, and the density falls as `1 / r^2`.

    `scale` is found by bisection, until 0.1 % or less more points are kept than wanted (or the
    20th step). These are dropped at random, so that `round(height * width / acceleration)` points
    are kept exactly. A mask of 320 x 320 points takes about a second.

    Args:
        shape: as in `random_lines`.
        acceleration: from 1 (everything is kept) to the number of points.
        seed: as in `random_lines`.
        num_calibration: side of the square at the centre that is kept whole, in points. Only the
            square keeps the frequency zero for sure.
        slope: growth of the radius from the centre to the middle of an edge, relative to that at
            the centre; 0 (uniform) or more.

    Raises:
        ValueError: an argument is out of its range, or the square alone is more than
            `height * width / acceleration` points.

    Source: the kind of mask is that of Lustig and Pauly, "SPIRiT" (2010); dart throwing on the
    grid and the search are this library's own.
    """
    shape = _checked_shape(shape)
    _check_acceleration(acceleration, math.prod(shape), "points")
    _check_not_negative("slope", slope)
    square = _square(shape, acceleration, num_calibration)
    rng = np.random.RandomState(_checked_seed(seed))
    if acceleration == 1:
        return _mask(np.ones(shape, bool), acceleration)
    num_wanted = round(square.size / acceleration)
    order = rng.permutation(square.size)
    distance = np.hypot(*np.meshgrid(*map(_relative_frequency, shape), indexing="ij"))
    growth = (1 + slope * distance) * rng.uniform(*_SPREAD, shape)

    # At the first no point has another within its radius, at the second the first takes all.
    lowest, highest = 1 / growth.max(), math.hypot(*shape) / growth.min()
    kept = np.ones(square.shape, bool)
    for _ in range(_MOST_RADII):
        if kept.sum() <= (1 + _SURPLUS) * num_wanted:
            break
        scale = math.sqrt(lowest * highest)
        thrown = square | _thrown(order, scale * growth, square)
        if thrown.sum() >= num_wanted:
            lowest, kept = scale, thrown
        else:
            highest = scale
    spare = np.flatnonzero(kept & ~square)
    kept.flat[rng.permutation(spare)[: kept.sum() - num_wanted]] = False
    return _mask(kept, acceleration)


def radial(
    shape: tuple[int, int],
    acceleration: float,
    *,
    seed: Seed,
    num_calibration: int = 0,
    angles: Angles = "golden",
) -> Mask:
    """Keeps the points of the grid nearest to spokes through the centre.

    A spoke is a line through the frequency zero from border to border, one point thick. Spoke `j`
    of `m` has the angle `a_0 + j pi / golden ratio` or `a_0 + j pi / m`, where `a_0` is drawn
    uniformly from half a turn. The angle is that between frequencies in cycles a pixel. `m` is
    that which comes nearest to the acceleration asked for.

    Args:
        shape: as in `random_lines`.
        acceleration: 1 (everything is kept) or more, as far as one spoke goes.
        seed: as in `random_lines`.
        num_calibration: side of a square at the centre that is kept whole, in points.
        angles: `"golden"` or `"uniform"`.

    Raises:
        ValueError: an argument is out of its range, or one spoke and the square are already more
            than `height * width / acceleration` points.

    Source of the golden angle, 111.25 degrees: Winkelmann et al., "An Optimal Radial Profile Order
    Based on the Golden Ratio for Time-Resolved MRI" (2007).
    """
    shape = _checked_shape(shape)
    _check_acceleration(acceleration, math.prod(shape), "points")
    if angles not in get_args(Angles):
        raise ValueError(f"angles={angles!r} is not accepted: one of {get_args(Angles)} is")
    square = _square(shape, acceleration, num_calibration)
    rng = np.random.RandomState(_checked_seed(seed))
    if acceleration == 1:
        return _mask(np.ones(shape, bool), acceleration)
    start = rng.uniform(0, math.pi)

    def spokes(number: int) -> np.ndarray:
        step = _GOLDEN_ANGLE if angles == "golden" else math.pi / number
        return square | _spokes(shape, start + step * np.arange(number))

    wanted = square.size / acceleration
    if spokes(1).sum() > wanted:
        raise ValueError(
            f"acceleration={acceleration} is not accepted: it leaves {wanted:g} of {square.size} "
            f"points, and one spoke with the square of calibration is {spokes(1).sum()} already"
        )
    fewest, most = 1, 2
    while spokes(most).sum() < wanted:
        fewest, most = most, 2 * most
    while most - fewest > 1:
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if spokes(middle).sum() >= wanted else (middle, most)
    candidates = [spokes(fewest), spokes(most)]
    return _mask(min(candidates, key=lambda array: abs(array.sum() - wanted)), acceleration)


MASKS: dict[str, Callable[..., Mask]] = {
    "random": random_lines,
    "equispaced": equispaced_lines,
    "magic": magic_lines,
    "gaussian": gaussian_lines,
    "variable_density": variable_density_lines,
    "vdrs_repo": vdrs_lines_repo,
    "poisson_disc": poisson_disc,
    "radial": radial,
}


def make_mask(
    name: str, shape: tuple[int, int], acceleration: float, *, seed: Seed, **options: Any
) -> Mask:
    """Returns the mask of a name, as a config gives it.

    Args:
        name: a key of `MASKS`.
        shape: `(height, width)` of k-space.
        acceleration: points of the grid over points kept; 1 keeps everything.
        seed: an integer of `0 .. 2**32 - 1`, or a sequence of such.
        **options: of that mask.

    Raises:
        ValueError: no such mask, or it cannot be had.
        TypeError: the mask has no such option.
    """
    if name not in MASKS:
        raise ValueError(f"name={name!r} is not accepted: one of {sorted(MASKS)} is expected")
    return MASKS[name](shape, acceleration, seed=seed, **options)


def _lines(
    draw: _Draw,
    shape: tuple[int, int],
    acceleration: float,
    seed: Seed,
    num_calibration: int | None,
    center_fraction: float | None,
    axis: int,
) -> Mask:
    """Returns the mask of the central lines and of those that `draw(rng, central)` gives."""
    if axis not in (0, 1):
        raise ValueError(f"axis={axis} is not accepted: 0 (rows) or 1 (columns) is expected")
    shape = _checked_shape(shape)
    num_lines = shape[axis]
    _check_acceleration(acceleration, num_lines, "lines")
    number = _num_calibration(num_lines, acceleration, num_calibration, center_fraction)
    rng = np.random.RandomState(_checked_seed(seed))
    central = np.zeros(num_lines, bool)
    central[_middle(num_lines, number)] = True
    # fastMRI first draws which of its accelerations to use; from one alone that draws nothing.
    lines = np.ones(num_lines, bool) if acceleration == 1 else central | draw(rng, central)
    if not lines.any():
        raise ValueError(
            f"seed={seed} is not accepted: it keeps none of {num_lines} lines at "
            f"acceleration={acceleration}; another seed or lines of calibration are expected"
        )
    return _mask(np.broadcast_to(lines if axis == 1 else lines[:, None], shape), acceleration)


def _mask(array: np.ndarray, requested: float) -> Mask:
    return Mask(np.array(array, order="C"), float(requested), array.size / int(array.sum()))


def _middle(length: int, number: int) -> slice:
    """Returns the central `number` of `length` indices as fastMRI has them: with `length // 2`."""
    start = (length - number + 1) // 2
    return slice(start, start + number)


def _thrown(order: np.ndarray, radius: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Returns the points outside the square that dart throwing keeps, visited in `order`."""
    reach = math.ceil(radius.max())
    # With a border of this width the surroundings of a point are the same offsets everywhere.
    taken = np.pad(square, reach, constant_values=True)
    inside = np.zeros(taken.shape, bool)
    inside[reach:-reach, reach:-reach] = True
    place = np.flatnonzero(inside)
    step = np.arange(-reach, reach + 1)
    squared = (step[:, None] ** 2 + step**2).ravel()
    nearest = np.argsort(squared, kind="stable")
    offsets = (step[:, None] * taken.shape[1] + step).ravel()[nearest]
    num_within = np.searchsorted(squared[nearest], radius.ravel() ** 2)

    taken, kept = taken.ravel(), np.zeros(radius.size, bool)
    for point, here, number in zip(order, place[order], num_within[order], strict=True):
        if not taken[here]:
            taken[here + offsets[:number]] = True
            kept[point] = True
    return kept.reshape(radius.shape)


def _spokes(shape: tuple[int, int], angles: np.ndarray) -> np.ndarray:
    """Returns the points nearest to lines through the centre, one for each angle in radians."""
    array = np.zeros(shape, bool)
    step = np.arange(-(max(shape) // 2), max(shape) // 2 + 1)
    for angle in angles:
        # A cycle a pixel is as many points as the axis has.
        rise, run = shape[0] * math.sin(angle), shape[1] * math.cos(angle)
        longest = max(abs(rise), abs(run))
        row = np.rint(step * (rise / longest)).astype(int) + shape[0] // 2
        column = np.rint(step * (run / longest)).astype(int) + shape[1] // 2
        inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        array[row[inside], column[inside]] = True
    return array


def _relative_frequency(length: int) -> np.ndarray:
    """Returns the frequencies of a centred axis, the largest of which is 1 in magnitude."""
    return (np.arange(length) - length // 2) / max(length // 2, 1)


def _square(shape: tuple[int, int], acceleration: float, side: int) -> np.ndarray:
    side = _checked_count("num_calibration", side)
    array = np.zeros(shape, bool)
    if side > min(shape):
        raise ValueError(
            f"num_calibration={side} is not accepted: a square of this side does not fit in "
            f"{shape[0]} x {shape[1]} points; 0..{min(shape)} is expected"
        )
    if side**2 > array.size / acceleration:
        raise ValueError(
            f"num_calibration={side} is not accepted: the square alone is {side**2} points, and "
            f"acceleration={acceleration} leaves {array.size / acceleration:g} of {array.size}"
        )
    array[_middle(shape[0], side), _middle(shape[1], side)] = True
    return array


def _num_calibration(
    num_lines: int, acceleration: float, number: int | None, fraction: float | None
) -> int:
    if number is not None and fraction is not None:
        raise ValueError(
            f"num_calibration={number} and center_fraction={fraction} are not accepted together: "
            "one of them is expected"
        )
    if number is not None:
        source, number = f"num_calibration={number}", _checked_count("num_calibration", number)
    else:
        fraction = _CALIBRATION_SHARE / acceleration if fraction is None else fraction
        if not 0 <= fraction <= 1:
            raise ValueError(f"center_fraction={fraction} is not accepted: 0..1 is expected")
        source, number = f"center_fraction={fraction:g}", round(num_lines * fraction)
    if number > num_lines / acceleration:
        raise ValueError(
            f"{source} is not accepted: calibration alone is {number} lines, and "
            f"acceleration={acceleration} leaves {num_lines / acceleration:g} of {num_lines}"
        )
    return number


def _whole(acceleration: float) -> int:
    if acceleration != int(acceleration):
        raise ValueError(
            f"acceleration={acceleration} is not accepted: without adjust_spacing it is the "
            "distance of the lines, and a whole number is expected"
        )
    return int(acceleration)


def _checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    if len(shape) != 2 or any(operator.index(length) < 1 for length in shape):
        raise ValueError(f"shape={shape} is not accepted: (height, width) of 1 or more is expected")
    return int(shape[0]), int(shape[1])


def _check_acceleration(acceleration: float, most: int, what: str) -> None:
    if not (math.isfinite(acceleration) and acceleration >= 1):
        raise ValueError(
            f"acceleration={acceleration} is not accepted: a finite number from 1 is expected"
        )
    if acceleration > most:
        raise ValueError(
            f"acceleration={acceleration} is not accepted: there are {most} {what}, of which it "
            f"leaves less than one; 1..{most} is expected"
        )


def _check_not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}={value} is not accepted: a finite number from 0 is expected")


def _checked_count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"{name}={value!r} is not accepted: an integer of 0 or more is expected")
    return int(value)


def _checked_seed(seed: Any) -> int | list[int]:
    single = np.ndim(seed) == 0
    try:
        words = [operator.index(word) for word in ([seed] if single else seed)]
    except TypeError:
        words = []
    if not words or not all(0 <= word <= _LARGEST_SEED for word in words):
        raise ValueError(
            f"seed={seed!r} is not accepted: an integer of 0..{_LARGEST_SEED} or a sequence of "
            "such is expected (seed_from_name and seed_from_key give one)"
        )
    return words[0] if single else words
