"""Solutions of the regularised normal equations `(A^H A + lambda I) x = b`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jitter_jax.operators import LinearOperator, centred_fft2, centred_ifft2, normal

Array = jax.Array
MatVec = Callable[[Array], Array]


class Info(NamedTuple):
    """How well a system `M x = b` was solved.

    Attributes:
        relative_residual: `||b - M x|| / ||b||`, computed from `x` itself; 0 when `b` is 0. It
            carries no gradient.
        converged: whether `relative_residual` is at most the tolerance.
    """

    relative_residual: Array
    converged: Array


def solve_cartesian_mri(mask: ArrayLike, b: Array, *, regularisation: ArrayLike) -> Array:
    """Returns `(A^H A + lambda I)^-1 b` in closed form, for `A` of `operators.cartesian_mri(mask)`.

    `A^H A = F^H M F` is diagonal in k-space: the inverse is `F^H (M + lambda)^-1 F`.

    Args:
        mask: as for `cartesian_mri`.
        b: image, `(height, width, channels)`, complex.
        regularisation: `lambda`, positive scalar; may be traced.

    Raises:
        ValueError: a `regularisation` known here is not positive.
    """
    _check_positive("regularisation", regularisation)
    divisor = (jnp.asarray(mask) != 0).astype(b.real.dtype) + regularisation
    return centred_ifft2(centred_fft2(b) / divisor[:, :, None])


def regularised_normal(operator: LinearOperator, regularisation: ArrayLike) -> MatVec:
    """Returns the function `x -> A^H A x + lambda x`, Hermitian and positive definite.

    Args:
        operator: the operator `A`.
        regularisation: `lambda`, positive scalar; may be traced.

    Raises:
        ValueError: a `regularisation` known here is not positive.
    """
    _check_positive("regularisation", regularisation)
    gram = normal(operator)
    return lambda x: gram.forward(x) + regularisation * x


def conjugate_gradients(
    matvec: MatVec, b: Array, *, start: Array | None = None, num_iterations: int = 10
) -> Array:
    """Takes a fixed number of conjugate gradient iterations towards `M^-1 b`.

    The derivative is that of the iterations themselves, at whatever accuracy they reached, in
    `matvec`, `b` and `start`; `conjugate_gradients_to_tolerance` has that of the solution. Once
    the residual is zero, or its square is lost to the dtype (a residual of 1e-19 times the first in
    float32), iterations are frozen: they change nothing and carry no derivative, and signals of a
    batch freeze one by one. So a `start` that solves the system exactly is returned, with the
    derivative of `start`.

    Args:
        matvec: `x -> M x`, linear, Hermitian and positive definite, such as `regularised_normal`.
        b: right side, real or complex, of any shape.
        start: first iterate, of the shape and dtype of `b`; 0 if None.
        num_iterations: at least 1. The error falls as
            `((sqrt(c) - 1) / (sqrt(c) + 1))^num_iterations` for the condition number `c` of `M`.

    Returns:
        The last iterate.

    Raises:
        ValueError: `num_iterations` is below 1.

    Source: Hestenes and Stiefel, "Methods of conjugate gradients" (1952).
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    residual = b if start is None else b - matvec(start)
    # A unit in which the squares below neither under- nor overflow. The iterations are homogeneous,
    # so their derivative does not know it.
    unit = jax.lax.stop_gradient(jnp.max(jnp.abs(residual)))
    unit = jnp.where(unit == 0, 1, unit)
    residual = residual / unit
    smallest = float(jnp.finfo(b.dtype).tiny)

    def iteration(carry: tuple[Array, Array, Array, Array], _: None):
        x, residual, direction, energy = carry
        image = matvec(direction)
        curvature = _inner(direction, image)
        active = (energy > smallest) & (curvature > smallest)
        length = _quotient(energy, curvature, active)
        x = x + length * direction
        residual = residual - length * image
        new_energy = _inner(residual, residual)
        memory = _quotient(new_energy, energy, active)
        return (x, residual, residual + memory * direction, new_energy), None

    first = (jnp.zeros_like(b), residual, residual, _inner(residual, residual))
    (x, *_), _ = jax.lax.scan(iteration, first, length=num_iterations)
    return unit * x if start is None else start + unit * x


def conjugate_gradients_to_tolerance(
    matvec: MatVec,
    b: Array,
    *,
    start: Array | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
) -> tuple[Array, Info]:
    """Solves `M x = b` by conjugate gradients until `||b - M x|| <= tolerance ||b||`.

    The derivative is that of the solution (`dx = M^-1 (db - dM x)`), found by a second solve to the
    same tolerance: right if the first one converged, and then independent of `start`. Memory does
    not grow with the iterations. Under `vmap` each signal stops on its own.

    The iterations stop by the residual that they update, which rounding parts from the true one:
    float32 cannot reach 1e-8. `Info` tells.

    Args:
        matvec: as for `conjugate_gradients`.
        b: as for `conjugate_gradients`; for 0 the solution is 0, found without any iteration.
        start: as for `conjugate_gradients`.
        tolerance: positive, relative to `||b||`.
        max_iterations: at least 1, for the solution and for its derivative alike.

    Returns:
        The solution, and `Info` about it.

    Raises:
        ValueError: `tolerance` is not positive or `max_iterations` is below 1.
    """
    _check_positive("tolerance", tolerance)
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")

    def solve(matvec: MatVec, b: Array, start: Array) -> Array:
        # In units of b, for a derivative may be tiny and its square zero.
        largest = jnp.max(jnp.abs(b))
        unit = jnp.where(largest == 0, 1, largest)
        # From elsewhere than 0, a tolerance relative to b = 0 would never be met.
        start = jnp.where(largest == 0, 0, start / unit)
        x, _ = jax.scipy.sparse.linalg.cg(
            matvec, b / unit, start, tol=tolerance, maxiter=max_iterations
        )
        return unit * x

    zero = jnp.zeros_like(b)
    first = zero if start is None else jax.lax.stop_gradient(start)
    # Around cg's own, which would start the transposed system at `start` too.
    x = jax.lax.custom_linear_solve(
        matvec,
        b,
        solve=lambda matvec, b: solve(matvec, b, first),
        transpose_solve=lambda matvec, b: solve(matvec, b, zero),
    )
    norm = jnp.linalg.norm(jnp.ravel(b))
    residual = jnp.linalg.norm(jnp.ravel(b - matvec(x))) / jnp.where(norm == 0, 1, norm)
    residual = jax.lax.stop_gradient(residual)
    return x, Info(residual, residual <= tolerance)


def _inner(a: Array, b: Array) -> Array:
    return jnp.vdot(a, b, precision=jax.lax.Precision.HIGHEST).real


def _quotient(a: Array, b: Array, active: Array) -> Array:
    """Returns `a / b`, or 0 without a derivative where it is not active."""
    # The derivative squares the divisor, which a small `b` would not survive: it gets b / b.
    unit = jnp.where(active, jax.lax.stop_gradient(b), 1)
    return jnp.where(active, (a / unit) / jnp.where(active, b / unit, 1), 0)


def _check_positive(name: str, value: ArrayLike) -> None:
    if isinstance(value, int | float | np.number) and not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
