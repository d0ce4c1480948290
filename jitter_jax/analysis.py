"""What theory promises of reconstructions, and what their derivatives say."""

import math
from collections.abc import Callable
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp

from jitter_jax.attacks.objective import perturbed
from jitter_jax.attacks.threat import Space
from jitter_jax.noise import normal_like
from jitter_jax.operators import LinearOperator

Array = jax.Array


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


def jacobian_norm(
    reconstruct: Callable[[Array], Array],
    operator: LinearOperator,
    y: Array,
    *,
    key: Array,
    space: Space = "signal",
    num_iterations: int = 30,
) -> Array:
    """Estimates `||J_H(y) A||_2` or `||J_H(y)||_2` by power iteration.

    `v <- J^T J v / ||J^T J v||`; the estimate `||J v||` at the end approaches the norm from below.
    Complex vectors are vectors of their real and imaginary parts. `J v` is the derivative of
    `u -> J^T u`, so that only reverse mode is needed. The derivative of the estimate with respect
    to what `reconstruct` closes over holds `v` and `J v / ||J v||` fixed, `u^T (dJ) v`.

    Args:
        reconstruct: the deterministic reconstruction `H` of a measurement.
        operator: the operator `A`.
        y: the measurement of one signal.
        key: PRNG key of the start vector.
        space: `"signal"` for `J_H A`, `"measurement"` for `J_H` on the points that `A` measures.
        num_iterations: at least 1; the relative error falls as
            `(s_2 / s_1)^(4 num_iterations)` with the largest singular values.

    Returns:
        Real scalar.

    Raises:
        ValueError: `num_iterations` is below 1, or `space` is unknown.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    if space not in get_args(Space):
        raise ValueError(f"space must be one of {get_args(Space)}, got {space!r}")
    support = operator.support() if space == "measurement" else None
    like = jax.eval_shape(operator.adjoint, y) if space == "signal" else y
    zero = jnp.zeros(like.shape, like.dtype)

    def moved(parts: Array) -> Array:
        delta = _joined(parts, zero)
        if support is not None:
            delta = jnp.where(support, delta, 0)
        return _parts(reconstruct(perturbed(operator, y, delta, space)))

    estimate, pull = jax.vjp(moved, _parts(zero))
    _, push = jax.vjp(lambda u: pull(u)[0], jnp.zeros_like(estimate))

    def iterate(v: Array, _: None) -> tuple[Array, None]:
        return _unit(pull(push(v)[0])[0]), None

    start = _unit(_parts(normal_like(key, zero, support)))
    v, _ = jax.lax.scan(iterate, start, length=num_iterations)
    v = jax.lax.stop_gradient(v)
    u = jax.lax.stop_gradient(_unit(push(v)[0]))
    return jnp.sum(pull(u)[0] * v)


def _parts(x: Array) -> Array:
    """Returns real and imaginary part, `(2, ...)`, or `(1, ...)` of a real array."""
    return jnp.stack([x.real, x.imag]) if jnp.iscomplexobj(x) else x[None]


def _joined(parts: Array, like: Array) -> Array:
    return jax.lax.complex(parts[0], parts[1]) if jnp.iscomplexobj(like) else parts[0]


def _unit(v: Array) -> Array:
    norm = jnp.linalg.norm(jnp.ravel(v))
    return v / jnp.where(norm > 0, norm, 1)
