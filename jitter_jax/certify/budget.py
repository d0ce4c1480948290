"""What is certified: how large an attack, in which unit, with what noise and confidence."""

import dataclasses
import math
from typing import Any, get_args

import numpy as np
from jax.typing import ArrayLike

from jitter_jax.attacks.threat import Space
from jitter_jax.certify.order_statistics import largest_ratio, samples_needed, upper_rank


class InfeasibleError(ValueError):
    """So few samples certify nothing at this ratio of epsilon to sigma."""


# Of the width of the range: an image that was scaled in float32 may pass its ends by rounding.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Budget:
    """An l2 threat and the Gaussian noise that certifies it, in one unit.

    A certificate depends on `epsilon / sigma` alone, and the two are easily given in different
    units (`epsilon` for pixels in 0 to 1, `sigma` for 0 to 255), which makes it worthless. Here
    both are in the unit of `pixel_range`, and `in_range` converts them together.

    Attributes:
        epsilon: l2 norm of the whole perturbation of one signal, not a value per pixel;
            non-negative.
        sigma: standard deviation of the noise at each entry; of complex entries that of the real
            and of the imaginary part. Positive.
        num_samples: draws `S` of the noise, at least 2.
        confidence: `c`, between 0 and 1, for one signal: see `confidence_each` for a whole set.
        pixel_range: the smallest and the largest value of a pixel, which is the unit; of complex
            signals the values of each part. None is for signals without a range.
        space: `"signal"`: the attack moves what is measured, `y + A xi`, and so does the noise;
            `"measurement"`: both move the measurement, on the points that the operator measures.

    Raises:
        ValueError: a value is out of range, or `sigma` is wider than all pixels.
        InfeasibleError: nothing can be certified.

    Source of the requirement: locuslab/smoothing, issue 6.
    """

    epsilon: float
    sigma: float
    _: dataclasses.KW_ONLY
    num_samples: int = 1000
    confidence: float = 0.99
    pixel_range: tuple[float, float] | None = (0.0, 1.0)
    space: Space = "signal"

    def __post_init__(self):
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma must be finite and positive, got {self.sigma}")
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ValueError(f"epsilon must be finite and non-negative, got {self.epsilon}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {self.confidence}")
        if self.num_samples < 2:
            raise ValueError(f"num_samples must be at least 2, got {self.num_samples}")
        if self.space not in get_args(Space):
            raise ValueError(f"space must be one of {get_args(Space)}, got {self.space!r}")
        if self.pixel_range is not None:
            _check_ends(*self.pixel_range)
            low, high = self.pixel_range
            if self.sigma > high - low:
                raise ValueError(
                    f"sigma={self.sigma} is wider than all of pixel_range=({low}, {high}) and "
                    "looks like the unit of another range, such as 0 to 255: declare that range, "
                    "and convert sigma and epsilon together by in_range"
                )
        self.rank()

    @property
    def ratio(self) -> float:
        """`epsilon / sigma`."""
        return self.epsilon / self.sigma

    @property
    def noise(self) -> dict[str, Any]:
        """`sigma` and `space`, what `draw` takes."""
        return {"sigma": self.sigma, "space": self.space}

    def rank(self, *, confidence: float | None = None, quantile: float = 0.5) -> int:
        """Returns the rank of the draw that bounds a quantile under attack; see `upper_rank`.

        Args:
            confidence: None is the budget's.
            quantile: which quantile, between 0 and 1.

        Raises:
            InfeasibleError: no draw will do; the message says how many samples would.
        """
        confidence = self.confidence if confidence is None else confidence
        rank = upper_rank(self.num_samples, self.ratio, confidence, quantile=quantile)
        if rank is not None:
            return rank
        needed = samples_needed(self.ratio, confidence, quantile=quantile)
        largest = self.sigma * largest_ratio(self.num_samples, confidence, quantile=quantile)
        more = "no num_samples" if needed is None else f"num_samples={needed}"
        less = (
            f"epsilon at most {_rounded_down(largest)} at this sigma and num_samples"
            if largest > 0
            else "no epsilon at this num_samples"
        )
        raise InfeasibleError(
            f"epsilon / sigma = {self.epsilon} / {self.sigma} = {self.ratio:.4g} cannot be "
            f"certified with num_samples={self.num_samples} at confidence {confidence}: {more} "
            f"would do, or {less}"
        )

    def in_range(self, low: float, high: float) -> "Budget":
        """Returns the same budget for pixels from `low` to `high`.

        `epsilon` and `sigma` are both multiplied by the widths' quotient.

        Raises:
            ValueError: the budget has no range, or `low` is not below `high`.
        """
        if self.pixel_range is None:
            raise ValueError("in_range needs a budget with a pixel_range, got pixel_range=None")
        _check_ends(low, high)
        scale = (high - low) / (self.pixel_range[1] - self.pixel_range[0])
        return dataclasses.replace(
            self,
            epsilon=self.epsilon * scale,
            sigma=self.sigma * scale,
            pixel_range=(low, high),
        )

    def check_range(self, x: ArrayLike) -> None:
        """Refuses a signal or an image that is not in the unit of this budget.

        Call it with values, outside of `jit`. Without a `pixel_range` any finite signal passes. A
        noisy or attacked image may leave its range rightly: check the clean one.

        Args:
            x: real or complex array; of complex entries both parts are checked.

        Raises:
            ValueError: an entry is outside of `pixel_range`, or not finite.
        """
        x = np.asarray(x)
        if not x.size:
            return
        parts = (x.real, x.imag) if np.iscomplexobj(x) else (x,)
        smallest, largest = min(p.min() for p in parts), max(p.max() for p in parts)
        if not np.all(np.isfinite(x)):
            raise ValueError("x must be finite, got entries that are not")
        if self.pixel_range is None:
            return
        low, high = self.pixel_range
        margin = _ROUNDING * (high - low)
        if smallest < low - margin or largest > high + margin:
            raise ValueError(
                f"x has values from {smallest:.6g} to {largest:.6g}, outside of pixel_range="
                f"({low}, {high}) in whose unit sigma={self.sigma} and epsilon={self.epsilon} are: "
                "scale it, or convert the budget by in_range"
            )

    def describe(self) -> str:
        """Returns threat, noise and confidence as a sentence's end."""
        where = {"signal": "of the signal", "measurement": "of the measurement"}[self.space]
        unit = "" if self.pixel_range is None else f" (pixels from {self.pixel_range[0]:g} to "
        unit += "" if self.pixel_range is None else f"{self.pixel_range[1]:g})"
        return (
            f"for every perturbation {where} with an l2 norm of at most {self.epsilon:g}{unit}, "
            f"under Gaussian noise of standard deviation {self.sigma:g}"
        )


def confidence_each(confidence: float, num_images: int) -> float:
    """Returns the confidence that each image of a set needs for all to hold at once.

    `1 - (1 - c) / n`, the union bound of Bonferroni; independence is not needed.

    Args:
        confidence: `c` of the whole set, between 0 and 1.
        num_images: `n`, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    if num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {num_images}")
    return 1 - (1 - confidence) / num_images


def _check_ends(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"pixel_range must be finite and increase, got ({low}, {high})")


def _rounded_down(value: float) -> str:
    # What the message says must be accepted when it is typed in.
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.floor(value / unit - 1e-6) * unit:.4g}"
