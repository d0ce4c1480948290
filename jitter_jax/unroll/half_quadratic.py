"""Unrolled half-quadratic splitting: each data step solves a regularised least squares problem."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jitter_jax.operators import LinearOperator, cartesian_mri
from jitter_jax.solvers import (
    conjugate_gradients,
    conjugate_gradients_to_tolerance,
    regularised_normal,
    solve_cartesian_mri,
)
from jitter_jax.unroll.iterate import (
    Jitter,
    LearnedStep,
    Remat,
    check_jitter,
    starting_point,
    take_learned_step,
    unroll,
)

Array = jax.Array
# (operator, b, regularisation, start) -> (A^H A + lambda I)^-1 b
Solve = Callable[[LinearOperator, Array, ArrayLike, Array], Array]


def by_conjugate_gradients(num_iterations: int = 10) -> Solve:
    """Returns the data step of a fixed number of conjugate gradient iterations from `f(x_k)`.

    Its derivative is that of the iterations; see `solvers.conjugate_gradients`. A data step that
    starts elsewhere is any other function of this form: the public code of MoDL starts at 0,
    `lambda operator, b, regularisation, start: conjugate_gradients(regularised_normal(operator,
    regularisation), b)`.

    Args:
        num_iterations: at least 1. With coil maps of unit sum of squares the condition number is
            `1 + 1 / lambda` at most.

    Raises:
        ValueError: at the first use, `num_iterations` is below 1, or a `regularisation` known there
            is not positive.
    """

    def solve(operator: LinearOperator, b: Array, regularisation: ArrayLike, start: Array) -> Array:
        matvec = regularised_normal(operator, regularisation)
        return conjugate_gradients(matvec, b, start=start, num_iterations=num_iterations)

    return solve


def by_conjugate_gradients_to_tolerance(
    tolerance: float = 1e-6, max_iterations: int = 100
) -> Solve:
    """Returns the data step of conjugate gradients from `f(x_k)` to a tolerance.

    Its derivative is that of the exact solution; see `solvers.conjugate_gradients_to_tolerance`.

    Args:
        tolerance: of the residual, relative to the right side; positive.
        max_iterations: at least 1.

    Raises:
        ValueError: at the first use, as for `by_conjugate_gradients`.
    """

    def solve(operator: LinearOperator, b: Array, regularisation: ArrayLike, start: Array) -> Array:
        matvec = regularised_normal(operator, regularisation)
        x, _ = conjugate_gradients_to_tolerance(
            matvec, b, start=start, tolerance=tolerance, max_iterations=max_iterations
        )
        return x

    return solve


def in_closed_form(
    operator: LinearOperator, b: Array, regularisation: ArrayLike, start: Array
) -> Array:
    """Takes the exact data step of `operators.cartesian_mri`, one division in k-space.

    Args:
        operator: an operator of `cartesian_mri`.
        b: right side.
        regularisation: `lambda`.
        start: not needed.

    Raises:
        ValueError: `operator` is another one, or a `regularisation` known here is not positive.
    """
    del start
    if operator.adjoint_function is not cartesian_mri(np.ones((1, 1))).adjoint_function:
        raise ValueError(
            "in_closed_form needs an operator of operators.cartesian_mri, got one with "
            f"adjoint_function {operator.adjoint_function}"
        )
    return solve_cartesian_mri(operator.leaves, b, regularisation=regularisation)


def half_quadratic(
    learned_step: LearnedStep,
    operator: LinearOperator,
    y: Array,
    *,
    regularisation: ArrayLike,
    num_iterations: int = 8,
    solve: Solve | None = None,
    start: Array | None = None,
    back_projection: Array | None = None,
    key: Array | None = None,
    jitter: Jitter | None = None,
    step_key: Array | None = None,
    has_aux: bool = False,
    remat: Remat = True,
    return_trajectory: bool = False,
) -> Any:
    """Reconstructs one signal by `K` learned steps, each followed by a regularised inversion.

    `x_{k+1} = (A^H A + lambda I)^-1 (A^H y + lambda f(x_k) - w_k)`, the minimiser of
    `||A x - y||^2 / 2 + lambda / 2 ||x - f(x_k)||^2 + Re <w_k, x>`: as in `gradient_descent`, the
    jitter perturbs the gradient.

    Arguments, result and errors are those of `gradient_descent`, save the place of the learned step
    and two arguments.

    Args:
        learned_step: the denoiser `f`.
        operator: the operator `A`.
        y: the measurement of one signal.
        regularisation: `lambda`, positive scalar; may be traced, to be learned. Small: the data are
            trusted; large: the denoiser is.
        num_iterations: `K`.
        solve: the inversion, `(operator, b, regularisation, start) -> x`, started at `f(x_k)`:
            `by_conjugate_gradients`, `by_conjugate_gradients_to_tolerance` or `in_closed_form`;
            `by_conjugate_gradients()` if None.
        start: `x_0`.
        back_projection: what stands for `A^H y`.
        key: PRNG key of the jitter.
        jitter: draws `w_k`. It sees `f(x_k)`.
        step_key: PRNG key of a learned step that draws noise.
        has_aux: whether `f` returns a pair.
        remat: recompute each iteration in the backward pass.
        return_trajectory: return all iterates.

    Raises:
        ValueError: as for `gradient_descent`, or what `solve` raises: a `regularisation` known here
            is not positive.

    Source: Aggarwal, Mani and Jacob, "MoDL" (2019); Liang et al., "SMUG".
    """
    check_jitter(key, jitter)
    if back_projection is None:
        back_projection = operator.adjoint(y)
    if solve is None:
        solve = by_conjugate_gradients()

    def iteration(x: Array, k: Array, key: Array | None) -> tuple[Array, Any]:
        denoised, aux = take_learned_step(learned_step, x, k, step_key, has_aux)
        b = back_projection + regularisation * denoised
        if jitter is not None:
            assert key is not None
            b = b - jitter(key, denoised, k, num_iterations)
        with jax.named_scope("data_step"):
            return solve(operator, b, regularisation, denoised), aux

    return unroll(
        iteration,
        starting_point(operator, y, start, back_projection),
        num_iterations=num_iterations,
        key=key,
        remat=remat,
        return_trajectory=return_trajectory,
        has_aux=has_aux,
    )
