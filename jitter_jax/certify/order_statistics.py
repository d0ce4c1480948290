"""Order statistics that bound a quantile after the mean of a Gaussian has moved.

`h` is any fixed real function, `delta ~ N(0, sigma^2 I)`, and `q_p(xi)` the `p`-quantile of
`h(xi + delta)`. For all `||xi|| <= epsilon`

    q_{Phi(Phi^-1(p) - epsilon/sigma)}(0) <= q_p(xi) <= q_{Phi(Phi^-1(p) + epsilon/sigma)}(0),

and order statistics `X_(1) <= ... <= X_(S)` of draws of `h(delta)` bound the two outer quantiles
with a chosen confidence, also where values are tied. Everything here is a number of Python, known
before any draw.

Source: Chiang et al., "Detection as regression: certified object detection with median smoothing"
(2020), lemma 1 and 2.
"""

import bisect
import math
from typing import Literal, get_args

from scipy import special

Reading = Literal["paper", "repo"]

# A confidence that is reached exactly (0.99 by 1 - 0.1^2) must not be lost to the last bit.
_ROUNDING = 1 + 1e-12


def upper_rank(
    num_samples: int, ratio: float, confidence: float, *, quantile: float = 0.5
) -> int | None:
    """Returns the rank whose order statistic bounds the quantile after any shift from above.

    The smallest `k` with `P(Binomial(S, pbar) <= k - 1) >= c`, `pbar = Phi(Phi^-1(p) + ratio)`.
    `X_(k)` falls below the `pbar`-quantile only if `k` draws do, so it is an upper bound of
    `q_p(xi)` for all shifts at once, with confidence `c`.

    Args:
        num_samples: `S`, at least 1.
        ratio: `epsilon / sigma`, both in one unit; not negative.
        confidence: `c`, between 0 and 1.
        quantile: `p`, between 0 and 1.

    Returns:
        The rank, 1 for the smallest of the draws; None where not even the largest will do.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(num_samples, ratio, confidence, quantile)
    return _smallest_rank(num_samples, special.ndtri(quantile) + ratio, confidence)


def lower_rank(
    num_samples: int, ratio: float, confidence: float, *, quantile: float = 0.5
) -> int | None:
    """Returns the rank whose order statistic bounds the quantile after any shift from below.

    The largest `k` with `P(Binomial(S, pbar) >= k) >= c`, `pbar = Phi(Phi^-1(p) - ratio)`: the
    mirror image of `upper_rank`, with its arguments, for `1 - p`.

    Returns:
        The rank, 1 for the smallest of the draws; None where not even the smallest will do.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(num_samples, ratio, confidence, quantile)
    mirrored = _smallest_rank(num_samples, ratio - special.ndtri(quantile), confidence)
    return None if mirrored is None else num_samples + 1 - mirrored


def rank_confidence(num_samples: int, rank: int, ratio: float, *, quantile: float = 0.5) -> float:
    """Returns the confidence with which `X_(rank)` bounds the shifted quantile from above.

    `P(Binomial(S, Phi(Phi^-1(p) + ratio)) <= rank - 1)`; it is exact where `h` has a density and
    the worst shift moves `h` along a line, and a lower bound of the confidence elsewhere.

    Args:
        num_samples: `S`, at least 1.
        rank: `k`, from 1 to `S`.
        ratio: `epsilon / sigma`, both in one unit; not negative.
        quantile: `p`, between 0 and 1.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(num_samples, ratio, 0.5, quantile)
    if not 1 <= rank <= num_samples:
        raise ValueError(f"rank must be from 1 to num_samples={num_samples}, got {rank}")
    return float(1 - _miss(num_samples, rank, special.ndtri(quantile) + ratio))


def samples_needed(ratio: float, confidence: float, *, quantile: float = 0.5) -> int | None:
    """Returns the fewest samples for which `upper_rank` exists.

    The smallest `S` with `1 - pbar^S >= c`; with the arguments of `upper_rank`.

    Returns:
        The number; None where it is above `2^53`, which no double counts (a ratio of 8 or so).

    Raises:
        ValueError: an argument is out of range.
    """
    _check(1, ratio, confidence, quantile)
    point = special.ndtri(quantile) + ratio
    log_pbar, log_miss = float(special.log_ndtr(point)), math.log1p(-confidence)
    if log_miss < log_pbar * 2**53:
        return None
    count = max(math.ceil(log_miss / log_pbar), 1)
    # Where the quotient is within rounding of an integer, the test of upper_rank itself decides.
    if count > 1 and _is_enough(count - 1, count - 1, point, confidence):
        return count - 1
    return count if _is_enough(count, count, point, confidence) else count + 1


def largest_ratio(num_samples: int, confidence: float, *, quantile: float = 0.5) -> float:
    """Returns the largest `epsilon / sigma` for which `upper_rank` exists, up to rounding.

    `Phi^-1((1 - c)^(1/S)) - Phi^-1(p)`, with the arguments of `upper_rank`. It is negative where
    the samples are too few even for a quantile that does not move.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(num_samples, 0.0, confidence, quantile)
    tail = -math.expm1(math.log1p(-confidence) / num_samples)
    return float(-special.ndtri(tail) - special.ndtri(quantile))


def published_rank(
    num_samples: int,
    ratio: float,
    confidence: float,
    *,
    reading: Reading,
    quantile: float = 0.5,
) -> int | None:
    """Returns the rank that was published, to compare with; certificates use `upper_rank`.

    Both search `k >= ceil(pbar S)`.

    - `"paper"`: algorithm 4, whose loop as printed never runs, repaired to a search for the
      smallest `K` with `P(Binomial(S, pbar) <= K) > c`, none if that is `S`. The sum should end at
      `K - 1`: the rank is one too small, and its confidence below `c` (0.943 where 0.99 was meant,
      at `S = 50` and a ratio of 1.35).
    - `"repo"`: the smallest `q < S - 1` with `P(Binomial(S, pbar) <= q - 1) > c`, used to index a
      sorted array from 0: the rank `q + 1`, one larger than needed. That code divides an `epsilon`
      of pixels in 0 to 1 by a `sigma` of pixels in 0 to 255, so the `ratio` it would compute is
      `1/255` of the one it would need; give that ratio to reproduce its numbers, which certify
      nothing.

    Args:
        num_samples: `S`, at least 1.
        ratio: `epsilon / sigma`, not negative.
        confidence: `c`, between 0 and 1.
        reading: `"paper"` or `"repo"`.
        quantile: `p`, between 0 and 1.

    Returns:
        The rank, 1 for the smallest of the draws; None where the reading finds none.

    Raises:
        ValueError: an argument is out of range.

    Source: "Certified adversarial defense methods for inverse problems", algorithm 4, and
    `ethangela/certified_adversarial_robust_linear_inverse`.
    """
    _check(num_samples, ratio, confidence, quantile)
    if reading not in get_args(Reading):
        raise ValueError(f"reading must be one of {get_args(Reading)}, got {reading!r}")
    point = special.ndtri(quantile) + ratio
    first = max(math.ceil(special.ndtr(point) * num_samples), 1)
    # P(Binomial <= K) is what rank K + 1 has.
    offset, end = (1, num_samples) if reading == "paper" else (0, num_samples - 1)
    for candidate in range(first, end):
        if 1 - _miss(num_samples, candidate + offset, point) > confidence:
            return candidate if reading == "paper" else candidate + 1
    return None


def _smallest_rank(num_samples: int, point: float, confidence: float) -> int | None:
    enough = lambda rank: _is_enough(num_samples, rank, point, confidence)
    position = bisect.bisect_left(range(1, num_samples + 1), True, key=enough)
    return position + 1 if position < num_samples else None


def _is_enough(num_samples: int, rank: int, point: float, confidence: float) -> bool:
    return _miss(num_samples, rank, point) <= (1 - confidence) * _ROUNDING


def _miss(num_samples: int, rank: int, point: float) -> float:
    # P(Binomial(S, pbar) >= rank) from 1 - pbar = Phi(-point): neither is a difference from 1.
    return special.betaincc(num_samples - rank + 1, rank, special.ndtr(-point))


def _check(num_samples: int, ratio: float, confidence: float, quantile: float) -> None:
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if not (math.isfinite(ratio) and ratio >= 0):
        raise ValueError(f"ratio must be finite and non-negative, got {ratio}")
    for name, value in (("confidence", confidence), ("quantile", quantile)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}")
