"""Unrolled gradient descent, the reconstruction that SGD jittering trains."""

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


def gradient_descent(
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
    has_aux: bool = False,
    remat: Remat = True,
    return_trajectory: bool = False,
) -> Any:
    """Reconstructs one signal by `K` learned gradient steps.

    `x_{k+1} = x_k - eta (A^H (A x_k - y) + f(x_k) + w_k)`

    Without `key` and `jitter`, `w_k = 0`: the deterministic reconstruction that one deploys. With
    them, the noisy one that SGD jittering trains.

    Args:
        learned_step: any callable `f` from a signal to a signal of the same shape and dtype. It may
            close over `y`.
        operator: the operator `A`.
        y: the measurement of one signal, real or complex; `vmap` lifts the function to batches.
        step_size: `eta`, scalar, or `(K,)` with one for each iteration; may be traced, to be
            learned.
        num_iterations: `K`, at least 1; free to differ between training and testing.
        phases: what the learned step has for itself in each iteration, such as weights that are not
            shared: a tree of arrays with a leading axis of `K`. It is then called as
            `f(x, phase)`. None if all iterations are alike.
        start: `x_0`; the back projection if None.
        back_projection: what stands for `A^H y` in every iteration, such as a noisy copy of it.
        key: PRNG key of the jitter, with `jitter`.
        jitter: draws `w_k`; see `jitter_jax.unroll.jitter`. It sees the iterate after the data
            step, `x_k - eta A^H (A x_k - y)`.
        step_key: PRNG key of a learned step that draws noise of its own, such as a smoothed one:
            it is then called with a new key in every iteration as its last argument, `f(x, key_k)`.
        has_aux: `f` returns `(f(x), aux)`; the tree of aux is returned, too.
        remat: recompute each iteration in the backward pass; see `unroll`.
        return_trajectory: return all `K + 1` iterates instead of the last.

    Returns:
        `x_K`, of the shape of `start`; or `(K + 1, ...)` when `return_trajectory`. When `has_aux`,
        that and the aux of all iterations, with a leading axis of `K`.

    Raises:
        ValueError: `num_iterations` is below 1, `step_size` or `phases` are of another number of
            iterations, only one of `key` and `jitter` is given, or `learned_step` changes the shape
            or dtype of the iterate.

    Source: Guan and Davenport, "SGD jittering" (2024), eq. 7.
    """
    check_jitter(key, jitter)

    def iteration(x: Array, k: Array, key: Array | None, own: Any) -> tuple[Array, Any]:
        own_step_size, phase = own
        eta = step_size if own_step_size is None else own_step_size
        gradient = data_gradient(operator, x, y, back_projection)
        step, aux = take_learned_step(learned_step, x, k, step_key, has_aux, phase)
        total = gradient + step
        if jitter is not None:
            assert key is not None
            total = total + jitter(key, x - eta * gradient, k, num_iterations)
        return x - eta * total, aux

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
