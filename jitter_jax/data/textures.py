"""Textures: generated greyscale pictures with the edges, textures and spectra of photographs.

A picture is `(height, width)` float32 in `[0, 1]`, or `(height, width, 1)` as an item of a source.
It is painted from back to front: a rough ground, then leaves, which are discs and polygons of many
sizes that cover one another. Each leaf is of one material: plain, rough, hairy, striped, or
written on.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from jitter_jax.data._checks import checked_count, checked_index
from jitter_jax.data._streams import Purpose, checked_seed, stream
from jitter_jax.data.pipeline import Example

_SMALLEST_SIDE = 16
_SMALLEST_RADIUS = 2.0  # pixels
# Leaves of 64 x 64 pixels; elsewhere their number goes with the square root of the area.
_LEAVES_AT_64 = 40
_LETTER = (5, 4)  # rows and columns of a letter, the space beside it included


def texture(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw a picture.

    The leaves' radii r, from 2 pixels to 0.4 of the shorter side, have a density of r^-1.7, so
    that edges are seen at every scale; each leaf is stretched by 1..2 along a random direction.
    Rough parts are Gaussian fields whose amplitude falls as f^-b with the frequency f, b in
    0.5..1.5. Most edges are a pixel or two wide, the others out of focus. The whole is brought to
    a mean in 0.3..0.6 and a standard deviation in 0.14..0.26; values that then leave [0, 1], a few
    per cent, are clipped, as a camera clips them.

    Args:
        rng: where the numbers come from.
        shape: `(height, width)`, at least 16 each.

    Returns:
        `(height, width)` float32 in `[0, 1]`.

    Raises:
        ValueError: an argument outside its range.

    Source: occlusion by leaves whose radii follow a power law as in Lee, Mumford and Huang,
    "Occlusion Models for Natural Images: A Statistical Study of a Scale-Invariant Dead Leaves
    Model" (2001). The materials and all numbers were set by eye and by statistics beside Train400.
    """
    shape = _checked_shape(shape)
    rough = _field(rng, shape, rng.uniform(1.0, 1.5))
    fine = _field(rng, shape, rng.uniform(0.5, 1.0))
    image = (0.5 + 0.15 * rough).astype(np.float32)
    materials = (
        _plain,
        _plain,
        partial(_rough, rough),
        partial(_rough, fine),
        partial(_hairy, fine),
        _stripes,
        _writing,
    )
    side = min(shape)
    # The inverse of the distribution function of a power law between two bounds.
    power = -0.7
    ends = _SMALLEST_RADIUS**power, (0.4 * side) ** power
    for draw in rng.uniform(size=round(_LEAVES_AT_64 * math.sqrt(image.size) / 64)):
        radius = (ends[0] + draw * (ends[1] - ends[0])) ** (1 / power)
        _paint_leaf(rng, image, float(radius), materials)
    image = _blurred(image, rng.uniform(0, 0.06))
    image *= 1 + 0.2 * _slope(rng, shape)
    image -= image.mean()
    image *= rng.uniform(0.14, 0.26) / max(float(image.std()), 1e-3)
    image += rng.uniform(0.3, 0.6)
    return np.clip(image, 0, 1, out=image)


class Textures:
    """Pictures drawn on demand by `texture`.

    Args:
        count: number of examples, at least 1.
        seed: not negative; example i depends on `(seed, i)` only.
        shape: `(height, width)`, at least 16 each.

    Items:
        `signal`: `(height, width, 1)` float32 in `[0, 1]`.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(self, count: int, seed: int, shape: tuple[int, int]):
        self._count = checked_count("count", count)
        self._seed = checked_seed(seed)
        self._shape = _checked_shape(shape)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, self._count)
        rng = stream(self._seed, number, Purpose.TEXTURES)
        return {"signal": texture(rng, self._shape)[..., None]}


def _checked_shape(shape: object) -> tuple[int, int]:
    if not isinstance(shape, Sequence) or len(shape) != 2:
        raise ValueError(f"shape={shape!r} is not accepted: (height, width) is expected")
    height, width = (checked_count("shape's entry", side) for side in shape)
    if min(height, width) < _SMALLEST_SIDE:
        raise ValueError(
            f"shape={shape!r} is not accepted: at least {_SMALLEST_SIDE} pixels each are expected"
        )
    return height, width


def _field(rng: np.random.Generator, shape: tuple[int, int], fall: float) -> np.ndarray:
    """Draw a periodic Gaussian field of variance 1 whose amplitude falls as f^-fall."""
    white = rng.standard_normal(shape, np.float32)
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    frequency[0, 0] = np.inf  # no mean
    weights = (frequency**-fall).astype(np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * weights, shape)
    return (field / field.std()).astype(np.float32)


def _slope(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw light from one side: a plane between -1 and 1."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    return (math.sin(angle) * y[:, None] + math.cos(angle) * x) / math.sqrt(2)


def _blurred(image: np.ndarray, weight: float) -> np.ndarray:
    """Give each pixel's neighbours along either axis a weight, as a lens does."""
    for axis in (0, 1):
        pad = [(1, 1) if axis == a else (0, 0) for a in (0, 1)]
        padded = np.pad(image, pad, "edge")
        before, after = (np.delete(padded, ends, axis) for ends in ((-1, -2), (0, 1)))
        image = (1 - 2 * weight) * image + weight * (before + after)
    return image


def _turned(y: np.ndarray, x: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return cosine * y - sine * x, sine * y + cosine * x


Material = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray | float]


def _paint_leaf(
    rng: np.random.Generator, image: np.ndarray, radius: float, materials: Sequence[Material]
) -> None:
    """Cover a part of the image; only the box around the leaf is computed."""
    height, width = image.shape
    centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
    stretch = rng.uniform(1, 2)
    reach = radius * stretch + 5  # half of the widest edge, stretched
    top, left = max(int(centre_y - reach), 0), max(int(centre_x - reach), 0)
    box = image[top : int(centre_y + reach) + 1, left : int(centre_x + reach) + 1]
    y = np.arange(top, top + box.shape[0], dtype=np.float32)[:, None] - centre_y
    x = np.arange(left, left + box.shape[1], dtype=np.float32) - centre_x
    across, along = _turned(y, x, rng.uniform(0, math.pi))
    distance = _inside(rng, across, along / stretch, radius)
    # Most edges are a pixel wide; what is out of focus has wider ones.
    edge = 1.0 if rng.uniform() < 0.75 else rng.uniform(1.5, 5)
    covered = np.clip(0.5 + distance / edge, 0, 1)
    material = materials[int(rng.integers(len(materials)))]
    value = rng.uniform(0.05, 0.95) + material(rng, across, along)
    value = value + rng.uniform(-0.2, 0.2) * along / radius
    box += covered * (value - box)


def _inside(
    rng: np.random.Generator, across: np.ndarray, along: np.ndarray, radius: float
) -> np.ndarray:
    """Draw a disc, wavy or not, or a polygon in it; return the distance inwards from its edge."""
    away = np.hypot(across, along)
    if rng.uniform() < 0.5:
        if rng.uniform() < 0.5:
            return radius - away
        turns = int(rng.integers(2, 7)) * np.arctan2(across, along) + rng.uniform(0, 2 * math.pi)
        return radius * (0.9 + 0.1 * np.sin(turns)) - away
    corners = rng.integers(3, 7)
    angles = 2 * math.pi * (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) / corners
    sides = [
        radius * rng.uniform(0.5, 0.8) - math.cos(angle) * along - math.sin(angle) * across
        for angle in angles.tolist()
    ]
    return np.minimum.reduce([radius - away, *sides])


def _plain(rng: np.random.Generator, across: np.ndarray, along: np.ndarray) -> float:
    del rng, across, along
    return 0.0


def _rough(
    field: np.ndarray, rng: np.random.Generator, across: np.ndarray, along: np.ndarray
) -> np.ndarray:
    """Take another part of the field, which is periodic, for each leaf."""
    del along
    down, right = (int(rng.integers(n)) for n in field.shape)
    rows, columns = (np.arange(n) for n in across.shape)
    part = field[(rows[:, None] + down) % field.shape[0], (columns + right) % field.shape[1]]
    return rng.uniform(0.03, 0.2) * part


def _hairy(
    field: np.ndarray, rng: np.random.Generator, across: np.ndarray, along: np.ndarray
) -> np.ndarray:
    """Take another part of the field for each leaf, drawn out along slightly bent lines."""
    down, right = rng.uniform(0, field.shape[0]), rng.uniform(0, field.shape[1])
    bent = across + rng.uniform(0, 3) * np.sin(along * (2 * math.pi / rng.uniform(20, 60)))
    rows = np.floor(bent + down).astype(np.int32) % field.shape[0]
    place = along / rng.uniform(3, 10) + right
    below = np.floor(place)
    part = place - below
    columns = below.astype(np.int32)
    hairs = (1 - part) * field[rows, columns % field.shape[1]]
    hairs += part * field[rows, (columns + 1) % field.shape[1]]
    return rng.uniform(0.05, 0.25) * hairs


def _stripes(rng: np.random.Generator, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Draw stripes, straight or bent, with soft or with sharp borders."""
    wavelength = 3 * 8 ** rng.uniform()
    bend = rng.uniform(0, 0.3) * wavelength
    wave = across + bend * np.sin(along * (2 * math.pi / rng.uniform(20, 60)))
    sine = np.sin(wave * (2 * math.pi / wavelength))
    sharpness = rng.uniform(1, wavelength / 3)
    return rng.uniform(0.05, 0.25) * np.clip(sharpness * sine, -1, 1)


def _writing(rng: np.random.Generator, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Draw lines of letters that nobody can read, along the rows of the image."""
    del along
    height, width = across.shape
    thickness = int(rng.integers(1, 3))
    rows, columns = (
        -(-n // (thickness * size)) for n, size in zip((height, width), _LETTER, strict=True)
    )
    letters = rng.uniform(size=(rows, _LETTER[0], columns, _LETTER[1])) < 0.6
    # Spaces between lines, letters and words.
    letters[:, -2:], letters[..., -1] = False, False
    letters &= rng.uniform(size=(rows, 1, columns, 1)) < 0.85
    page = letters.reshape(rows * _LETTER[0], columns * _LETTER[1])
    page = page.repeat(thickness, 0).repeat(thickness, 1)[:height, :width]
    ink = rng.uniform(0.15, 0.5) if rng.uniform() < 0.5 else -rng.uniform(0.15, 0.5)
    return ink * page.astype(np.float32)
