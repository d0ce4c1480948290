"""Unrolled proximal gradient descent, the reconstruction that SPGD jittering trains."""

from typing import Any

import jax
from jax.typing import ArrayLike

from jitter_jax.operators import LinearOperator
from jitter_jax.unroll.iterate import (
    Jitter,
    LearnedStep,
    Remat,
    check_jitter,
    data_gradient,
    own_values,
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
    phases: Any = None,
    start: Array | None = None,
    back_projection: Array | None = None,
    key: Array | None = None,
    jitter: Jitter | None = None,
    step_key: Array | None = None,
    noise_step_size: ArrayLike | None = None,
    has_aux: bool = False,
    remat: Remat = True,
    return_trajectory: bool = False,
) -> Any:
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
        phases: what `f` has for itself in each iteration.
        start: `x_0`.
        back_projection: what stands for `A^H y`.
        key: PRNG key of the jitter.
        jitter: draws `w_k`.
        step_key: PRNG key of a learned step that draws noise.
        noise_step_size: `eta_w`, scalar, the factor of the jitter; `step_size` if None. The public
            code's seismic proximal network has `exp(p)` here where its data step has
            `0.1 sigmoid(p)`, of one learned `p`: about 14 times as much at its first `p = -1`.
        has_aux: `f` returns `(f(x), aux)`.
        remat: recompute each iteration in the backward pass.
        return_trajectory: return all iterates.

    Source: the public code of Guan and Davenport, "SGD jittering" (2024), its SPGD variant.
    """
    check_jitter(key, jitter)

    def iteration(x: Array, k: Array, key: Array | None, own: Any) -> tuple[Array, Any]:
        own_step_size, phase = own
        eta = step_size if own_step_size is None else own_step_size
        stepped = x - eta * data_gradient(operator, x, y, back_projection)
        if jitter is not None:
            assert key is not None
            eta_w = eta if noise_step_size is None else noise_step_size
            stepped = stepped - eta_w * jitter(key, stepped, k, num_iterations)
        return take_learned_step(learned_step, stepped, k, step_key, has_aux, phase)

    return unroll(
        iteration,
        starting_point(operator, y, start, back_projection),
        num_iterations=num_iterations,
        phases=(own_values("step_size", step_size, num_iterations), phases),
        key=key,
        remat=remat,
        return_trajectory=return_trajectory,
        has_aux=has_aux,
    )
