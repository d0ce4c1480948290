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
    take_learned_step,
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
    noise_step_size: ArrayLike | None = None,
    remat: Remat = True,
    return_trajectory: bool = False,
) -> Array:
    """Reconstructs one signal by `K` data steps, each followed by a learned proximal map.

    `x_{k+1} = f(x_k - eta A^H (A x_k - y) - eta_w w_k)`

    Arguments, result and errors are those of `gradient_descent`, save the place of the learned step
    and one more argument.

    Args:
        learned_step: the proximal map `f`.
        operator: the operator `A`.
        y: the measurement of one signal.
        step_size: `eta`.
        num_iterations: `K`.
        start: `x_0`.
        key: PRNG key of the jitter.
        jitter: draws `w_k`.
        noise_step_size: `eta_w`, scalar, the factor of the jitter; `step_size` if None. The public
            code's seismic proximal network has `exp(p)` here where its data step has
            `0.1 sigmoid(p)`, of one learned `p`: about 14 times as much at its first `p = -1`.
        remat: recompute each iteration in the backward pass.
        return_trajectory: return all iterates.

    Source: the public code of Guan and Davenport, "SGD jittering" (2024), its SPGD variant.
    """
    check_jitter(key, jitter)
    if noise_step_size is None:
        noise_step_size = step_size

    def iteration(x: Array, k: Array, key: Array | None) -> Array:
        stepped = x - step_size * data_gradient(operator, x, y)
        if jitter is not None:
            assert key is not None
            stepped = stepped - noise_step_size * jitter(key, stepped, k, num_iterations)
        return take_learned_step(learned_step, stepped)

    return unroll(
        iteration,
        starting_point(operator, y, start),
        num_iterations=num_iterations,
        key=key,
        remat=remat,
        return_trajectory=return_trajectory,
    )
