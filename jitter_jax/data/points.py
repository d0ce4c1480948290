"""The point problem: denoise one known point of the plane.

The smallest problem on which training schemes differ: x is one point, y = x + z with z normal of
variance 0.01. A model that has seen noise about the origin only is then asked
about a point beside it, `BIASED_TRUTH`.
"""

import numpy as np

from jitter_jax.data._checks import checked_count, checked_index
from jitter_jax.data.pipeline import Example

BIASED_TRUTH = (0.005, 0.0)


class PointSource:
    """The same true point `num_points` times.

    The examples differ by the noise of their measurement, which is drawn where the point is
    measured, from the example's own index.

    Args:
        num_points: number of examples, at least 1.
        seed: every generated source takes a count and a seed; the point itself depends on neither.
        truth: the two coordinates of x.

    Items:
        `signal`: `(2,)` float32.

    Raises:
        ValueError: `num_points` is below one, or `truth` is not two finite numbers.

    Source: the two-dimensional point denoising of "SGD Jittering" (variance 0.01, 200 training and
    50 test points).
    """

    def __init__(self, num_points: int, seed: int, truth: tuple[float, float] = (0.0, 0.0)):
        del seed
        self._num_points = checked_count("num_points", num_points)
        self._truth = np.asarray(truth, np.float32)
        if self._truth.shape != (2,) or not np.isfinite(self._truth).all():
            raise ValueError(f"truth={truth!r} is not accepted: two finite numbers are expected")

    def __len__(self) -> int:
        return self._num_points

    def __getitem__(self, index: int) -> Example:
        checked_index(index, self._num_points)
        return {"signal": self._truth.copy()}
