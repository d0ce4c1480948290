"""MR images that training has not seen: a lesion, another contrast, the public code's block.

Each is the truth of another source with one change, made before it is measured. Example i is made
from example i of that source, so that the two are compared example by example.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from jitter_jax.data._checks import checked_index
from jitter_jax.data._streams import Purpose, checked_seed, stream
from jitter_jax.data.phantoms import object_region
from jitter_jax.data.pipeline import Example, Source

# A lesion goes where tissue is between these fractions of the largest magnitude: bone and air
# have no signal to lose or to carry a phase, and fluid cannot rise.
_TISSUE = (0.1, 0.6)
# Largest relative change of a lesion's radius by one wave around it, by two, and so on.
_LOBES = (0.15, 0.15, 0.1, 0.05)
_LONGEST_AXIS = 1.3  # relative to the mean radius; the shortest is its inverse
_EDGE_PIXELS = 2.0
_KNOTS = 4
_REPO_ROW, _REPO_COLUMNS, _REPO_LEVEL = 150, (150, 170), 0.7


def add_lesion(
    rng: np.random.Generator,
    image: np.ndarray,
    *,
    contrast: tuple[float, float] = (0.4, 0.8),
    size: tuple[float, float] = (0.03, 0.08),
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a lesion into an image: a region whose magnitude goes to one level, bright or dark.

    x' = (1 - w) x + w l x / |x|, with the soft mask w of the region and its level
    l = min((1 + s c) a, max |x|): a is the mean of |x| over the region, s = 1 (bright) or -1 (dark)
    with equal chance, and c is uniform in `contrast`. The phase is kept, zero stays zero, and the
    largest magnitude does not grow; the result is not normalised again.

    The region is an ellipse whose radius is disturbed by waves around it. Its place is random
    among those in the object's support where the square about it holds fewest pixels that are
    darker than 0.1 or brighter than 0.6 of the largest magnitude; of such pixels a lesion would
    show little.

    Args:
        rng: where the numbers come from.
        image: `(height, width)` or `(height, width, 1)`, complex or real, not zero everywhere.
        contrast: bounds of c, within `(0, 1]`.
        size: bounds of the mean radius relative to the image's shorter side, within `(0, 0.2]`.

    Returns:
        A new array like `image`; and w, `(height, width)` float32 in `[0, 1]`, which is zero
        outside the support.

    Raises:
        ValueError: an argument outside its range.
    """
    contrast = _checked_bounds("contrast", contrast, largest=1.0)
    size = _checked_bounds("size", size, largest=0.2)
    inside = object_region(image)
    if not inside.any():
        raise ValueError("image is zero everywhere; one with an object is expected")
    magnitude = np.abs(image.reshape(inside.shape))
    peak = magnitude.max()
    radius = _radius(rng, rng.uniform(*size) * min(inside.shape))
    dull = (magnitude < _TISSUE[0] * peak) | (magnitude > _TISSUE[1] * peak)
    row, column = _place(rng, inside, dull, radius)
    down, right = (np.arange(n) - at for n, at in zip(inside.shape, (row, column), strict=True))
    from_edge = radius(np.arctan2(down[:, None], right)) - np.hypot(down[:, None], right)
    mask = (inside * np.clip(0.5 + from_edge / _EDGE_PIXELS, 0, 1)).astype(np.float32)
    change = rng.choice([-1, 1]) * rng.uniform(*contrast)
    level = min((1 + change) * np.average(magnitude, weights=mask), peak)
    weight = mask.reshape(image.shape)
    changed = (1 - weight) * image + weight * level * _direction(image)
    return changed.astype(image.dtype), mask


def _radius(rng: np.random.Generator, mean: float) -> Callable[[np.ndarray], np.ndarray]:
    """Draw the outline of a lesion: its radius in pixels as a function of the angle."""
    longest = rng.uniform(1, _LONGEST_AXIS)
    sizes = rng.uniform(-1, 1, len(_LOBES)) * _LOBES
    tilt, *starts = rng.uniform(0, 2 * math.pi, 1 + len(_LOBES))

    def radius(angle: np.ndarray) -> np.ndarray:
        ellipse = mean / np.hypot(np.cos(angle - tilt) / longest, np.sin(angle - tilt) * longest)
        waves = zip(sizes, starts, strict=True)
        return ellipse * (1 + sum(a * np.cos(k * angle + b) for k, (a, b) in enumerate(waves, 1)))

    return radius


def _place(
    rng: np.random.Generator,
    inside: np.ndarray,
    dull: np.ndarray,
    radius: Callable[[np.ndarray], np.ndarray],
) -> tuple[int, int]:
    reach = math.ceil(radius(np.linspace(0, 2 * math.pi, 64)).max() + _EDGE_PIXELS / 2)
    unfit = np.pad(dull | ~inside, reach, constant_values=True)
    # Sums over squares are differences of sums from the corner.
    sums = np.pad(unfit.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    side = 2 * reach + 1
    counts = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    counts = np.where(inside, counts, side**2 + 1)
    return divmod(int(rng.choice(np.flatnonzero(counts == counts.min()))), inside.shape[1])


def change_contrast(
    rng: np.random.Generator,
    image: np.ndarray,
    *,
    steepness: tuple[float, float] = (2.0, 4.0),
) -> np.ndarray:
    """Map the magnitudes of an image by a random smooth increasing function; keep the phase.

    x' = T(|x| / p) p x / |x| with p = max |x|, T(0) = 0 and T(1) = 1. The slope of T is piecewise
    linear between 4 even knots; its logarithm there is uniform, then centred and scaled so that it
    reaches log(s) or -log(s), before T is scaled to end at 1. So T is never the identity.

    Args:
        rng: where the numbers come from.
        image: any shape, complex or real.
        steepness: bounds of s, whose logarithm is uniform between theirs; above 1.

    Returns:
        A new array like `image`. Zero stays zero and the largest magnitude stays.

    Raises:
        ValueError: `steepness` is not as above.
    """
    steepness = _checked_bounds("steepness", steepness, smallest=1.0)
    strength = rng.uniform(*np.log(steepness))
    exponents = rng.uniform(-1, 1, _KNOTS)
    exponents -= exponents.mean()
    slopes = np.exp(strength * exponents / np.abs(exponents).max())
    magnitude = np.abs(image)
    peak = magnitude.max()
    changed = peak * _increasing(slopes, magnitude / (peak or 1)) * _direction(image)
    return changed.astype(image.dtype)


def _increasing(slopes: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Integrate the line through `slopes`, at even knots of 0..1, up to `t`; scaled to end at 1."""
    intervals = slopes.size - 1
    whole = np.concatenate([[0.0], np.cumsum((slopes[1:] + slopes[:-1]) / 2)])
    knot = np.minimum((intervals * t).astype(int), intervals - 1)
    part = intervals * t - knot
    rise = slopes[knot + 1] - slopes[knot]
    return (whole[knot] + part * (slopes[knot] + part * rise / 2)) / whole[-1]


def _direction(image: np.ndarray) -> np.ndarray:
    """Divide each entry by its magnitude; zero stays zero."""
    magnitude = np.abs(image)
    return image / np.where(magnitude > 0, magnitude, 1)


def repo_block(image: np.ndarray) -> np.ndarray:
    """Put in the block of the public code of "SGD Jittering".

    x'[150, 150:170] = max(0.7, Re x) + i max(0.7, Im x), in an image of 320 by 320 with largest
    magnitude 1. Columns past the border are left out without notice.

    Args:
        image: `(height, width)` or `(height, width, 1)` complex, more than 150 rows and columns.

    Returns:
        A new array like `image`.

    Raises:
        ValueError: `image` is real, or nothing of the block is within it.

    Source: `add_detail_to_x` in `utils/misc.py` of InvProbs/SGD-jittering@8723bf3.
    """
    if not np.iscomplexobj(image):
        raise ValueError(f"image has dtype {image.dtype}; complex is expected")
    first, last = _REPO_COLUMNS
    if image.shape[0] <= _REPO_ROW or image.shape[1] <= first:
        raise ValueError(
            f"image has shape {image.shape}; more than {_REPO_ROW} rows and {first} columns are "
            "expected, or the block is not in it"
        )
    changed = image.copy()
    block = changed[_REPO_ROW, first:last]
    block.real = np.maximum(_REPO_LEVEL, block.real)
    block.imag = np.maximum(_REPO_LEVEL, block.imag)
    return changed


class _Changed:
    """Another source's examples, each with a change of its `signal`."""

    def __init__(self, source: Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, len(self))
        example = self._source[number]
        if "signal" not in example or "measurement" in example:
            raise ValueError(
                f"the items of source have {sorted(example)}; accepted: 'signal' without "
                "'measurement', which would have to change with it"
            )
        return {**example, **self._change(example["signal"], number)}

    def _change(self, signal: np.ndarray, number: int) -> Example:
        raise NotImplementedError


class Lesions(_Changed):
    """Another source's examples, each with a lesion drawn by `add_lesion`.

    Args:
        source: items with `signal` of `(height, width, 1)` and without `measurement`, which would
            no longer be a measurement of the signal.
        seed: not negative; the lesion of example i depends on `(seed, i)` and on the signal.
        contrast: bounds of the relative change of magnitude, within `(0, 1]`.
        size: bounds of the mean radius relative to the image's shorter side, within `(0, 0.2]`.

    Items:
        As of `source`, with `signal` changed, and `lesion`: `(height, width, 1)` float32, how
        much of each pixel is lesion, `[0, 1]`.

    Raises:
        ValueError: an argument outside its range; when an item is read, one that is not as above.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        *,
        contrast: tuple[float, float] = (0.4, 0.8),
        size: tuple[float, float] = (0.03, 0.08),
    ):
        super().__init__(source)
        self._seed = checked_seed(seed)
        self._contrast = _checked_bounds("contrast", contrast, largest=1.0)
        self._size = _checked_bounds("size", size, largest=0.2)

    def _change(self, signal: np.ndarray, number: int) -> Example:
        rng = stream(self._seed, number, Purpose.LESIONS)
        changed, mask = add_lesion(rng, signal, contrast=self._contrast, size=self._size)
        return {"signal": changed, "lesion": mask[..., None]}


class Contrast(_Changed):
    """Another source's examples in another contrast, drawn by `change_contrast`.

    Args:
        source: items with `signal` and without `measurement`.
        seed: not negative; the contrast of example i depends on `(seed, i)` only.
        steepness: bounds of how far the slope of the map goes up or down, above 1.

    Items:
        As of `source`, with `signal` changed.

    Raises:
        ValueError: an argument outside its range; when an item is read, one that is not as above.
    """

    def __init__(self, source: Source, seed: int, *, steepness: tuple[float, float] = (2.0, 4.0)):
        super().__init__(source)
        self._seed = checked_seed(seed)
        self._steepness = _checked_bounds("steepness", steepness, smallest=1.0)

    def _change(self, signal: np.ndarray, number: int) -> Example:
        rng = stream(self._seed, number, Purpose.CONTRASTS)
        return {"signal": change_contrast(rng, signal, steepness=self._steepness)}


class Blocks(_Changed):
    """Another source's examples, each with the block of `repo_block`.

    Args:
        source: items with complex `signal` of `(height, width, 1)`, more than 150 pixels each, and
            without `measurement`.

    Items:
        As of `source`, with `signal` changed.

    Raises:
        ValueError: when an item is read, one that is not as above.
    """

    def _change(self, signal: np.ndarray, number: int) -> Example:
        del number
        return {"signal": repo_block(signal)}


def _checked_bounds(
    name: str, bounds: object, *, smallest: float = 0.0, largest: float = math.inf
) -> tuple[float, float]:
    if isinstance(bounds, Sequence) and len(bounds) == 2:
        low, high = bounds
        if smallest < low <= high <= largest and high < math.inf:
            return float(low), float(high)
    end = f"<= {largest:g}" if largest < math.inf else "and finite"
    raise ValueError(
        f"{name}={bounds!r} is not accepted: (low, high) with {smallest:g} < low <= high {end} "
        "is expected"
    )
