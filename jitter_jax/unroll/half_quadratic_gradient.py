"""Half-quadratic splitting with one gradient step an iteration, the reconstruction of DPDNN."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
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
Update = Literal["gradient", "denoising"]


def half_quadratic_gradient(
    learned_step: LearnedStep,
    operator: LinearOperator,
    y: Array,
    *,
    delta: ArrayLike,
    eta: ArrayLike,
    update: Update = "gradient",
    num_iterations: int = 6,
    start: Array | None = None,
    back_projection: Array | None = None,
    key: Array | None = None,
    jitter: Jitter | None = None,
    step_key: Array | None = None,
    has_aux: bool = False,
    remat: Remat = True,
    return_trajectory: bool = False,
) -> Any:
    """Reconstructs one signal by `K` gradient steps on data and denoiser.

    `x_{k+1} = x_k - delta_k (A^H (A x_k - y) + w_k) - beta_k (x_k - f(x_k))`

    with `beta = delta eta`, or for `update="denoising"` `beta = 1 - delta - eta`. With `A = I` the
    latter is `x_{k+1} = (1 - delta - eta) f(x_k) + eta x_k + delta y`, the published update of
    denoising; the former is that of deblurring and super-resolution.

    Arguments, result and errors are those of `gradient_descent`, save the learned step, which is a
    denoiser here, and three arguments.

    Args:
        learned_step: the denoiser `f`.
        operator: the operator `A`.
        y: the measurement of one signal.
        delta: weight of the data, `(K,)` or a scalar.
        eta: weight of the denoiser, or for `"denoising"` of the iterate, `(K,)` or a scalar.
        update: how `beta` is made: `"gradient"` or `"denoising"`.
        num_iterations: `K`.
        start: `x_0`.
        back_projection: what stands for `A^H y`.
        key: PRNG key of the jitter.
        jitter: draws `w_k`. It sees `x_k - delta_k A^H (A x_k - y)`.
        step_key: PRNG key of a learned step that draws noise.
        has_aux: whether `f` returns a pair.
        remat: recompute each iteration in the backward pass.
        return_trajectory: return all iterates.

    Raises:
        ValueError: as for `gradient_descent`, `delta` or `eta` has another shape, or `update` is
            unknown.

    Source: Dong et al., "Denoising prior driven deep neural network for image restoration" (2018),
    eq. 9, and its public code for denoising. That code's blur is a trainable convolution whose
    backward filter is another one; here `A^H` is the adjoint of `A`.
    """
    check_jitter(key, jitter)
    if update not in get_args(Update):
        raise ValueError(f"update must be one of {get_args(Update)}, got {update!r}")
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    for name, number in (("delta", delta), ("eta", eta)):
        own_values(name, number, num_iterations)  # refuses another shape
    beta = jnp.multiply(delta, eta) if update == "gradient" else 1 - jnp.add(delta, eta)
    each = [
        jnp.broadcast_to(number, (num_iterations,)) if jnp.ndim(number) == 0 else number
        for number in (delta, beta)
    ]

    def iteration(x: Array, k: Array, key: Array | None, own: Any) -> tuple[Array, Any]:
        own_delta, own_beta = (number.astype(x.real.dtype) for number in own)
        gradient = data_gradient(operator, x, y, back_projection)
        if jitter is not None:
            assert key is not None
            gradient = gradient + jitter(key, x - own_delta * gradient, k, num_iterations)
        denoised, aux = take_learned_step(learned_step, x, k, step_key, has_aux)
        return x - own_delta * gradient - own_beta * (x - denoised), aux

    return unroll(
        iteration,
        starting_point(operator, y, start, back_projection),
        num_iterations=num_iterations,
        phases=each,
        key=key,
        remat=remat,
        return_trajectory=return_trajectory,
        has_aux=has_aux,
    )
