"""Images with what their measurement needs: a mask, a unit, a noise level."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from jitter_jax import sampling
from jitter_jax.data._checks import checked_index
from jitter_jax.data.pipeline import Example, Source

Unit = Literal["slice", "component", "volume", "file"]
Draw = Literal["fixed", "example", "file"]

# Masks that are drawn example by example are kept, as some take as long as a training step.
_KEPT_MASKS = 1024


class Masked:
    """Examples, each with the mask that it is measured by.

    Args:
        source: images, `signal` `(height, width, 1)`.
        mask_of: `(number of the example, its arrays) -> mask`, bool `(height, width)`.

    Items:
        Those of the source, and `mask`.
    """

    def __init__(self, source: Source, mask_of: Callable[[int, Example], np.ndarray]):
        self._source, self._mask_of = source, mask_of

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, len(self))
        example = self._source[number]
        return {**example, "mask": self._mask_of(number, example)}


def masks(
    name: str,
    acceleration: float,
    *,
    seed: int | Sequence[int],
    draw: Draw = "fixed",
    file_names: Sequence[str] = (),
    **options: Any,
) -> Callable[[int, Example], np.ndarray]:
    """Return the function that gives each example its mask.

    Args:
        name: a key of `sampling.MASKS`.
        acceleration: asked for.
        seed: of the drawing, one integer or several.
        draw: `"fixed"`: one mask for all. `"example"`: one for each example, the same in every
            epoch. `"file"`: one for each volume, drawn from its file's name as fastMRI does in
            validation; the seed plays no part.
        file_names: of the volumes, with `draw="file"`.
        **options: of that mask.

    Raises:
        ValueError: `draw` is unknown, or the volumes' files are not known; when called, the mask
            cannot be had.
    """
    if draw not in get_args(Draw):
        raise ValueError(f"draw={draw!r} is not accepted: one of {get_args(Draw)} is expected")
    if draw == "file" and not file_names:
        raise ValueError("draw='file' is not accepted: these images do not come from named volumes")

    @lru_cache(maxsize=_KEPT_MASKS)
    def drawn(shape: tuple[int, int], place: int) -> np.ndarray:
        own: sampling.Seed = seed
        if draw == "example":
            own = (*np.atleast_1d(seed).tolist(), place)
        elif draw == "file":
            own = sampling.seed_from_name(file_names[place])
        return sampling.make_mask(name, shape, acceleration, seed=own, **options).array

    def mask_of(number: int, example: Example) -> np.ndarray:
        place = {"fixed": 0, "example": number}.get(draw)
        return drawn(
            example["signal"].shape[:2], int(example["volume"]) if place is None else place
        )

    return mask_of


class Noisy:
    """Examples with a noise level of their own, which takes the place of the config's.

    Args:
        source: the examples.
        noise_std: standard deviation of the measurement noise, see `measure`.

    Items:
        Those of the source, and `noise_std`.
    """

    def __init__(self, source: Source, noise_std: float):
        if not noise_std >= 0:
            raise ValueError(f"noise_std={noise_std} is not accepted: 0 or more is expected")
        self._source, self._level = source, np.float32(noise_std)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return {**self._source[index], "noise_std": np.asarray(self._level)}


class Scaled:
    """Images in a named unit, in which noise levels and epsilons are then given.

    Args:
        source: images, `signal`; and `maximum`, the largest magnitude of the volume they belong to,
            where they are slices of volumes.
        unit: what to divide by. `"slice"`: the image's largest magnitude. `"component"`: its
            largest real or imaginary part, as the public code of SMUG does. `"volume"`: `maximum`.
            `"file"`: nothing.

    Items:
        Those of the source with `signal`, and `measurement` where there is one, divided by
        `scale`, float32; and `maximum` under the name `volume_peak`.

    Raises:
        ValueError: `unit` is unknown, or the images have no volume to take it from.
    """

    def __init__(self, source: Source, unit: Unit):
        if unit not in get_args(Unit):
            raise ValueError(f"unit={unit!r} is not accepted: one of {get_args(Unit)} is expected")
        if unit == "volume" and "maximum" not in source[0]:
            raise ValueError("unit='volume' is not accepted: these images belong to no volume")
        self._source, self._unit = source, unit

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = dict(self._source[index])
        maximum = example.pop("maximum", None)
        largest = {
            "slice": lambda: np.abs(example["signal"]).max(),
            "component": lambda: np.abs([example["signal"].real, example["signal"].imag]).max(),
            "volume": lambda: maximum,
            "file": lambda: np.float32(1),
        }[self._unit]()
        divisor = np.float32(largest if largest > 0 else 1)
        for name in example.keys() & {"signal", "measurement"}:
            example[name] = example[name] / divisor
        example["scale"] = np.asarray(divisor)
        if maximum is not None:
            example["volume_peak"] = np.asarray(maximum, np.float32)
        return example
