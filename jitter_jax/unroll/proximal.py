"""Unrolled proximal gradient descent, the reconstruction that SPGD jittering trains."""

import jax
from jax.typing import ArrayLike

from jitter_jax.operators import LinearOperator
from jitter_jax.unroll.iterate import (
    Jitter,
    LearnedStep,
    Remat,
    check_jitter,
    data_gradient,
    starting_point,
    unroll,
)

Array = jax.Array


def proximal_gradient(
    learned_step: LearnedStep,
    operator: LinearOperator,
    y: Array,
    *,
    step_size: ArrayLike,
    num_iterations: int = 10,
    start: Array | None = None,
    key: Array | None = None,
    jitter: Jitter | None = None,
    remat: Remat = True,
    return_trajectory: bool = False,
) -> Array:
    """Reconstructs one signal by `K` data steps, each followed by a learned proximal map.

    `x_{k+1} = f(x_k - eta (A^H (A x_k - y) + w_k))`

    Arguments, result and errors are those of `gradient_descent`; only the place of the learned
    step differs.

    Source: the public code of Guan and Davenport, "SGD jittering" (2024), its SPGD variant.
    """
    check_jitter(key, jitter)

    def iteration(x: Array, k: Array, key: Array | None) -> Array:
        stepped = x - step_size * data_gradient(operator, x, y)
        if jitter is not None:
            assert key is not None
            stepped = stepped - step_size * jitter(key, stepped, k, num_iterations)
        return learned_step(stepped)

    return unroll(
        iteration,
        starting_point(operator, y, start),
        num_iterations=num_iterations,
        key=key,
        remat=remat,
        return_trajectory=return_trajectory,
    )
