"""What theory promises of smoothed reconstructions."""

import math
from typing import NamedTuple


class SmugBound(NamedTuple):
    """How far a perturbation of the measurement can move a smoothed unrolled reconstruction.

    Attributes:
        constant: `C_n` of `||x_n(y) - x_n(y + delta)|| <= C_n ||delta||`; infinite where it is
            beyond the largest float.
        ratio: `r`, by which the bound grows or shrinks in every iteration.
        smallest_sigma: the standard deviation at which `r = 1`.
        radius: the `||delta||` from which on the bound says less than that the denoiser is bounded,
            `||x_n(y) - x_n(y + delta)|| <= alpha (||A|| ||delta|| + 2 lambda max ||D||)`.
    """

    constant: float
    ratio: float
    smallest_sigma: float
    radius: float

    @property
    def vacuous(self) -> bool:
        """Whether `r >= 1`: then `C_n` grows without limit in `n`, and smoothing promises nothing.

        It is still a bound for each `n`, of perturbations below `radius` alone.
        """
        return self.ratio >= 1


def smoothed_lipschitz(max_norm: float, sigma: float) -> float:
    """Returns `2 max ||f|| / (sqrt(2 pi) sigma)`, a Lipschitz constant of `x -> E f(x + w)`.

    The noise `w` has standard deviation `sigma` in every real number; of complex entries in the
    real and in the imaginary part, as `Smoothing` has it. The dimension does not matter. No smaller
    constant serves all bounded functions: the sign of one coordinate attains it at 0. It is of the
    expectation, not of a mean over samples.

    Args:
        max_norm: `sup_x ||f(x)||_2`, non-negative.
        sigma: positive.

    Raises:
        ValueError: a value is out of range.

    Source: Liang et al., "Robust MRI reconstruction by smoothed unrolling (SMUG)", lemma 1.
    """
    if not (math.isfinite(max_norm) and max_norm >= 0):
        raise ValueError(f"max_norm must be finite and non-negative, got {max_norm}")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be finite and positive, got {sigma}")
    return 2 * max_norm / (math.sqrt(2 * math.pi) * sigma)


def smug_bound(
    *,
    max_norm: float,
    sigma: float,
    num_iterations: int,
    operator_norm: float,
    regularisation: float = 1.0,
    smallest_singular_value: float = 0.0,
) -> SmugBound:
    """Bounds how much a perturbation of the measurement changes what SMUG reconstructs.

    Of `x_{n+1} = (A^H A + lambda I)^-1 (A^H y + lambda g(x_n))` with `x_0 = A^H y` and
    `g(x) = E D(x + w)`:

    `C_n = alpha ||A|| (1 - r^n) / (1 - r) + ||A|| r^n`, with
    `alpha = ||(A^H A + lambda I)^-1|| = 1 / (lambda + s^2)`, `s` the smallest singular value of
    `A`, and `r = lambda alpha M / (sqrt(2 pi) sigma)`, `M = 2 max ||D||`.

    Where `A` undersamples, `s = 0`, so `lambda alpha = 1` and `r` does not depend on `lambda`: the
    bound is not vacuous for `sigma > M / sqrt(2 pi)`. `max ||D||` is the norm of a whole image,
    tens to hundreds where pixels are of the order of 1, so that sigma is many times a pixel; at the
    published 0.01 the bound is vacuous by orders of magnitude.

    The theorem is of exact data steps, of the expectation rather than of a few samples, and of
    averages without weights. Cutting noisy copies (`Smoothing.clamp`) is allowed, as a part of `D`.

    Args:
        max_norm: `max ||D||_2`, the largest norm of the denoiser's output. A network that adds its
            input to its output has none; one whose output is cut to a norm, or ends in a bounded
            function such as tanh, has: `b sqrt(m)` where `m` real numbers are each at most `b`.
        sigma: standard deviation of the smoothing in every real number, positive.
        num_iterations: `n`, at least 1.
        operator_norm: `||A||`, non-negative, from `operators.operator_norm` or an upper bound: 1
            for MRI, with coil maps of unit sum of squares.
        regularisation: `lambda`, positive; 1 in the paper.
        smallest_singular_value: `s`, non-negative; 0 of every `A` that undersamples.

    Raises:
        ValueError: a value is out of range.

    Source: Liang et al., "Robust MRI reconstruction by smoothed unrolling (SMUG)", theorem 1, there
    with `lambda = 1`. Its eq. 26 has a power `n` too many in the denominator; eq. 9 is right.
    """
    for name, value, positive in (
        ("operator_norm", operator_norm, False),
        ("regularisation", regularisation, True),
        ("smallest_singular_value", smallest_singular_value, False),
    ):
        if not (math.isfinite(value) and (value > 0 if positive else value >= 0)):
            accepted = "positive" if positive else "non-negative"
            raise ValueError(f"{name} must be finite and {accepted}, got {value}")
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    alpha = 1 / (regularisation + smallest_singular_value**2)
    ratio = regularisation * alpha * smoothed_lipschitz(max_norm, sigma)
    data = alpha * operator_norm
    constant = operator_norm
    for _ in range(num_iterations):
        constant = data + ratio * constant
    most, grown = 2 * regularisation * alpha * max_norm, constant - data
    return SmugBound(constant, ratio, ratio * sigma, most / grown if grown > 0 else math.inf)
