"""Head phantoms: generated slices that look like axial T2-weighted MRI, with a smooth phase.

An image is `(height, width)` complex64, or `(height, width, 1)` as an item of a source; the
forehead is up. A phantom is painted from outside to inside: scalp, bone, fluid, folded grey
matter over white matter, deep nuclei, ventricles, vessels. What is painted are regions of the
plane, in units of half the head's length rather than of pixels, so that a head does not depend on
the resolution at which it is seen.
"""

import math
from collections.abc import Sequence

import numpy as np

from jitter_jax.data._checks import checked_count, checked_index
from jitter_jax.data._streams import Purpose, checked_seed, stream
from jitter_jax.data.pipeline import Example

_SMALLEST_SIDE = 16
_WAVES_IN_A_FIELD = 32
# OpenBLAS gives a larger product to a pool of threads, who wait for each other: for half a second
# where training keeps the cores busy, against a few milliseconds in one thread.
_SMALL_PRODUCT = 2**17
_PHASE_DEGREE = 3
# A pixel that stands out by itself on a straight edge has four, of noise hardly any.
_FEWEST_OF_NINE = 4


def phantom(rng: np.random.Generator, shape: tuple[int, int], *, phase: float = 3.0) -> np.ndarray:
    """Draw a head: x = m exp(i p), magnitude m of tissues and smooth phase p.

    m is constant over each tissue but for a texture of a few per cent and a slow change over the
    head, as of receiving coils. Sizes, shapes, places and intensities of all parts are random; in
    some heads the slice lies above the deep nuclei. Edges are one pixel wide. p is a polynomial of
    third degree in the place plus a random smooth field.

    Equal states of `rng` give the same head at every resolution, up to detail finer than a pixel
    and a border of one pixel that is left free.

    Args:
        rng: where the numbers come from.
        shape: `(height, width)`, at least 16 each; the head fills it as far as its form allows.
        phase: bound of |p| in radians, at least 0; a head reaches at least half of it. 0 makes
            the image real and not negative.

    Returns:
        `(height, width)` complex64, largest magnitude 1, exactly zero outside the head.

    Raises:
        ValueError: an argument outside its range.

    Source: thicknesses and intensities were set by eye and by the radial power spectrum beside
    axial T2 slices of SIAT_MRIdata200; they are not measurements.
    """
    shape = _checked_shape(shape)
    if not 0 <= phase < math.inf:
        raise ValueError(f"phase={phase!r} is not accepted: radians of at least 0 are expected")
    aspect = rng.uniform(0.76, 0.86)
    canvas = _Canvas(rng, shape, aspect)
    tilt = rng.uniform(-0.15, 0.15)
    u, v = _turned(canvas.x, canvas.y, tilt)
    depth, angle = _depth(rng, u, v, aspect)
    brain = _paint_shell(rng, canvas, depth, angle)
    # Nothing in a head is quite straight or quite symmetric.
    u, v = (place + 0.02 * canvas.field(rng, 0.4, 0.9) for place in (u, v))
    grey = rng.uniform(0.38, 0.5)
    _paint_cortex(rng, canvas, u, v, brain, angle, grey)
    if rng.uniform() < 0.6:
        _paint_nuclei(rng, canvas, u, v, grey)
    _paint_ventricles(rng, canvas, u, v)
    _paint_vessels(rng, canvas, u, v, aspect)
    magnitude = canvas.image * np.exp(0.12 * canvas.field(rng, 1.5, 4.0))
    magnitude /= magnitude.max()
    shift = phase * rng.uniform(0.5, 1.0) * _smooth_phase(rng, canvas, magnitude > 0)
    # Adding zero removes negative zeros, whose angle would be pi outside the head.
    return (magnitude * np.exp(1j * shift) + 0).astype(np.complex64)


class _Canvas:
    """An image under the brush.

    `x`, `(width,)`, and `y`, `(height, 1)`, are places to the right of and below the head's
    centre; `pixel` is the width of a pixel. The unit is half the head's length.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], aspect: float):
        height, width = shape
        # Tilted and shifted at the most, the head still leaves a row of pixels at the border free.
        self.pixel = 2 / (rng.uniform(0.84, 0.94) * min(height - 2, (width - 2) / aspect))
        shift_x, shift_y = rng.uniform(-0.03, 0.03, 2)
        columns, rows = (np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in (width, height))
        self.x = columns * self.pixel - float(shift_x)
        self.y = rows[:, None] * self.pixel - float(shift_y)
        self.image = np.zeros(shape, np.float32)

    def paint(self, distance: np.ndarray, value: float | np.ndarray) -> None:
        """Cover the region where `distance`, inwards from its edge, is positive."""
        self.image += self._covered(distance) * (value - self.image)

    def paint_line(self, away: np.ndarray, half: np.ndarray, value: float) -> None:
        """Cover what is nearer than `half`, be it less than a pixel, to a line `away` from here."""
        beyond = self._covered(-half - away)
        self.image += np.maximum(self._covered(half - away) - beyond, 0) * (value - self.image)

    def _covered(self, distance: np.ndarray) -> np.ndarray:
        # The part of a pixel that lies within a straight edge, so that edges are no staircases.
        return np.clip(0.5 + distance / self.pixel, 0, 1)

    def field(self, rng: np.random.Generator, shortest: float, longest: float) -> np.ndarray:
        """Draw a random field of variance 1: plane waves of random direction and phase.

        Wavelengths are uniform in `shortest .. longest`; waves too short to be seen are left out.
        """
        wavelength = rng.uniform(shortest, longest, _WAVES_IN_A_FIELD)
        direction, start = rng.uniform(0, 2 * math.pi, (2, _WAVES_IN_A_FIELD))
        amplitude = math.sqrt(2 / _WAVES_IN_A_FIELD) * (wavelength > 2 * self.pixel)
        number, direction, start, amplitude = (
            wave.astype(np.float32)
            for wave in (2 * math.pi / wavelength, direction, start, amplitude)
        )
        along_x = np.outer(number * np.cos(direction), self.x) + start[:, None]
        along_y = self.y * (number * np.sin(direction))
        # cos(a + b) = cos a cos b - sin a sin b makes the sum over waves a product of matrices.
        left = np.concatenate([amplitude * np.cos(along_y), -amplitude * np.sin(along_y)], axis=1)
        right = np.concatenate([np.cos(along_x), np.sin(along_x)])
        return _product(left, right)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    pieces = np.array_split(left, math.ceil(len(left) * right.size / _SMALL_PRODUCT))
    return np.concatenate([rows @ right for rows in pieces])


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return cosine * x + sine * y, cosine * y - sine * x


def _depth(
    rng: np.random.Generator, u: np.ndarray, v: np.ndarray, aspect: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the outline of a head; return the depth below it and the angle about the centre."""
    radius = np.hypot(u / aspect, v)
    angle = np.arctan2(u / aspect, -v)
    lopsided = rng.uniform(-0.012, 0.012)
    outline, largest = 1 + lopsided * np.sin(3 * angle), 1 + abs(lopsided)
    for order, bound in ((2, 0.025), (3, 0.02), (4, 0.015)):
        size = rng.uniform(-bound, bound)
        outline += size * np.cos(order * angle)
        largest += abs(size)
    outline /= largest
    return (outline - radius) * np.hypot(u, v) / np.maximum(radius, 1e-6), angle


def _around(rng: np.random.Generator, angle: np.ndarray, change: float) -> np.ndarray:
    """Draw a smooth factor around the head, within `1 - change .. 1 + change`."""
    sizes, starts = rng.uniform(-1, 1, (2, 3)).tolist()
    waves = (
        a * np.cos(k * angle + b) for k, (a, b) in enumerate(zip(sizes, starts, strict=True), 1)
    )
    return 1 + change / 3 * sum(waves)


def _paint_shell(
    rng: np.random.Generator, canvas: _Canvas, depth: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    """Paint skin, fat, bone with its marrow, and fluid; return the depth in the brain."""
    scalp = rng.uniform(0.06, 0.09) * _around(rng, angle, 0.3)
    bone = rng.uniform(0.055, 0.08) * _around(rng, angle, 0.3)
    gap = rng.uniform(0.015, 0.03) * _around(rng, angle, 0.6)
    texture = 1 + 0.08 * canvas.field(rng, 0.1, 0.3) + 0.05 * canvas.field(rng, 0.02, 0.06)
    canvas.paint(depth, rng.uniform(0.25, 0.4))
    canvas.paint(depth - 0.02, rng.uniform(0.5, 0.75) * texture)
    in_bone = depth - scalp
    canvas.paint(in_bone, rng.uniform(0.03, 0.06))
    marrow = np.minimum(in_bone - 0.3 * bone, 0.7 * bone - in_bone)
    canvas.paint(marrow, rng.uniform(0.15, 0.3) * texture)
    canvas.paint(in_bone - bone, rng.uniform(0.6, 0.9))
    return in_bone - bone - gap


def _paint_cortex(
    rng: np.random.Generator,
    canvas: _Canvas,
    u: np.ndarray,
    v: np.ndarray,
    depth: np.ndarray,
    angle: np.ndarray,
    grey: float,
) -> None:
    """Paint a ribbon of grey matter that follows the surface of the brain into its folds.

    The folds are the zeros of cos(n angle + a smooth random field), which run inwards, cut off at a
    random depth.
    """
    folds = rng.uniform(9, 12)
    bend = 1.5 * canvas.field(rng, 0.3, 0.9)
    reach = rng.uniform(0.14, 0.24) * (1 + 0.4 * canvas.field(rng, 0.2, 0.5).clip(-2, 2))
    clefts = (  # distance from the middle of the cleft, and how much narrower it is there
        (
            np.abs(np.cos(folds * angle + bend)) * np.hypot(u, v) / folds,
            0.04 * depth + 0.6 * np.maximum(0, depth - reach),
        ),
        (np.abs(u), 0.5 * np.maximum(0, rng.uniform(0.38, 0.48) - np.abs(v))),
    )
    half = rng.uniform(0.008, 0.016)
    ribbon = rng.uniform(0.028, 0.036)
    texture = 1 + 0.03 * canvas.field(rng, 0.02, 0.06) + 0.03 * canvas.field(rng, 0.1, 0.3)
    canvas.paint(depth, grey * texture)
    beside = np.minimum(*(away + narrowing for away, narrowing in clefts)) - half
    canvas.paint(np.minimum(beside, depth) - ribbon, grey * rng.uniform(0.6, 0.72) * texture)
    fluid = rng.uniform(0.75, 0.95)
    for away, narrowing in clefts:
        canvas.paint_line(away, np.minimum(half - narrowing, depth), fluid)


def _ellipse(
    u: np.ndarray,
    v: np.ndarray,
    centre: tuple[float, float],
    radii: tuple[float, float],
    tilt: float = 0.0,
) -> np.ndarray:
    """Distance to the edge, inwards, to first order where the ellipse is narrow."""
    along, across = _turned(u - centre[0], v - centre[1], tilt)
    return (1 - np.hypot(along / radii[0], across / radii[1])) * min(radii)


def _varied(rng: np.random.Generator, *sizes: float) -> list[float]:
    return [size * rng.uniform(0.88, 1.12) for size in sizes]


# Centre right of and below the head's, radii and tilt of what lies on either side of the middle.
_NUCLEI = (  # and intensity beside that of the cortex
    ((0.13, 0.06, 0.09, 0.14, 0.3), 0.95),  # thalamus
    ((0.30, -0.10, 0.06, 0.17, -0.35), 0.88),  # putamen
    ((0.15, -0.27, 0.06, 0.10, 0.3), 0.92),  # caudate
)
_VENTRICLES = ((0.085, -0.24, 0.040, 0.14, -0.35), (0.17, 0.27, 0.045, 0.17, 0.45))


def _paint_nuclei(
    rng: np.random.Generator, canvas: _Canvas, u: np.ndarray, v: np.ndarray, grey: float
) -> None:
    for place, value in _NUCLEI:
        for side in (-u, u):
            x, y, width, length, tilt = _varied(rng, *place)
            canvas.paint(_ellipse(side, v, (x, y), (width, length), tilt), grey * value)


def _paint_ventricles(
    rng: np.random.Generator, canvas: _Canvas, u: np.ndarray, v: np.ndarray
) -> None:
    dilated = rng.uniform(0.7, 1.4)
    distance = _ellipse(u, v, (0, 0.03), (0.018 * dilated, 0.11))
    for place in _VENTRICLES:
        for side in (-u, u):
            x, y, width, length, tilt = _varied(rng, *place)
            one = _ellipse(side, v, (x, y), (dilated * width, length), tilt)
            distance = np.maximum(distance, one)
    canvas.paint(distance, 1.0)


def _paint_vessels(
    rng: np.random.Generator, canvas: _Canvas, u: np.ndarray, v: np.ndarray, aspect: float
) -> None:
    """Paint dark vessels near the surface, whose blood leaves unseen, and bright spaces inside."""
    for value, nearest, farthest, radius in ((0.05, 0.58, 0.72, 0.014), (0.85, 0.3, 0.5, 0.009)):
        for _ in range(rng.integers(2, 7)):
            away, about = rng.uniform(nearest, farthest), rng.uniform(0, 2 * math.pi)
            centre = (aspect * away * math.sin(about), away * math.cos(about))
            width, length = _varied(rng, radius, radius)
            canvas.paint(_ellipse(u, v, centre, (width, length)), value)


def _smooth_phase(rng: np.random.Generator, canvas: _Canvas, head: np.ndarray) -> np.ndarray:
    """Draw a smooth function of the place, largest absolute value 1 in the head."""
    powers = np.arange(_PHASE_DEGREE + 1, dtype=np.float32)
    degree = powers[:, None] + powers
    weights = rng.normal(size=degree.shape) / (1 + degree) * (degree <= _PHASE_DEGREE)
    along_x = weights.astype(np.float32) @ canvas.x ** powers[:, None]
    smooth = _product(canvas.y**powers, along_x) + 0.4 * canvas.field(rng, 0.8, 2.0)
    return smooth / np.abs(smooth[head]).max()


def object_region(image: np.ndarray, *, threshold: float = 0.1) -> np.ndarray:
    """Find where the object is: its bright pixels and the dark ones among them.

    A bright pixel has |x| > threshold max |x|, and so have three or more of its eight neighbours,
    unlike a speck of noise. A pixel is in the support if it is bright, or if bright ones are seen
    from it in at least three of the four directions along its row and its column: what is open to
    one side, such as a neck that the image cuts off, is in.

    Args:
        image: `(height, width)` or `(height, width, 1)`, complex or real.
        threshold: in `[0, 1)`, above the background's noise and ghosts. 0 finds the whole of a
            phantom, whose background is zero.

    Returns:
        `(height, width)` bool; all False for an image of zeros.

    Raises:
        ValueError: an argument outside its range.
    """
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,)):
        raise ValueError(
            f"image has shape {image.shape}; (height, width) or (height, width, 1) is expected"
        )
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold!r} is not accepted: a number in [0, 1) is expected")
    magnitude = np.abs(image.reshape(image.shape[:2]))
    bright = magnitude > threshold * magnitude.max()
    bright &= _of_nine(bright) >= _FEWEST_OF_NINE
    seen = np.logical_or.accumulate
    up, left = seen(bright, 0), seen(bright, 1)
    down, right = seen(bright[::-1], 0)[::-1], seen(bright[:, ::-1], 1)[:, ::-1]
    return np.sum([up, left, down, right], axis=0) >= 3


def _of_nine(pixels: np.ndarray) -> np.ndarray:
    """Count the True among each pixel and its eight neighbours."""
    rows = np.pad(pixels.astype(np.int8), 1)
    rows = rows[:-2] + rows[1:-1] + rows[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]


class Phantoms:
    """Heads drawn on demand by `phantom`.

    Args:
        count: number of examples, at least 1.
        seed: not negative; example i depends on `(seed, i)` only.
        shape: `(height, width)`, at least 16 each.
        phase: bound of the phase in radians, as for `phantom`.

    Items:
        `signal`: `(height, width, 1)` complex64, largest magnitude 1.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(self, count: int, seed: int, shape: tuple[int, int], *, phase: float = 3.0):
        self._count = checked_count("count", count)
        self._seed = checked_seed(seed)
        self._shape = _checked_shape(shape)
        self._phase = phase
        # A wrong phase is found here rather than by a thread that reads ahead.
        self[0]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, self._count)
        rng = stream(self._seed, number, Purpose.PHANTOMS)
        return {"signal": phantom(rng, self._shape, phase=self._phase)[..., None]}


def _checked_shape(shape: object) -> tuple[int, int]:
    if not isinstance(shape, Sequence) or len(shape) != 2:
        raise ValueError(f"shape={shape!r} is not accepted: (height, width) is expected")
    height, width = (checked_count("shape's entry", side) for side in shape)
    if min(height, width) < _SMALLEST_SIDE:
        raise ValueError(
            f"shape={shape!r} is not accepted: at least {_SMALLEST_SIDE} pixels each are expected"
        )
    return height, width
