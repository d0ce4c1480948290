"""The noise `w_k` that jittering adds to the gradient of every iteration.

A jitter is a function `(key, iterate, k, num_iterations) -> w_k` of one signal. `iterate` is the
iterate after the data step of iteration `k` (counted from 0). Each factory here takes a level that
is one number for all iterations, or one number an iteration: a schedule.

Signals may be complex; then the real and the imaginary part are drawn independently, each with
the standard deviation that a real signal's entries would have.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jitter_jax.noise import normal_like
from jitter_jax.unroll.iterate import Jitter

Array = jax.Array


def absolute(sigma: ArrayLike) -> Jitter:
    """Returns the jitter `w_k ~ N(0, sigma_k^2 I)`.

    Args:
        sigma: standard deviation of each entry in the signal's unit, non-negative; scalar or
            `(K,)`.

    Raises:
        ValueError: `sigma` is negative, not finite or has more than one axis; at the first use,
            a schedule's length differs from the number of iterations.
    """
    level = _schedule("sigma", sigma)

    def jitter(key: Array, iterate: Array, k: Array, num_iterations: int) -> Array:
        return level(k, num_iterations).astype(_real(iterate)) * normal_like(key, iterate)

    return jitter


def relative(sigma: ArrayLike) -> Jitter:
    """Returns the jitter `w_k ~ N(0, (sigma_k max |g_k|)^2 I)`, relative to the iterate `g_k`.

    The scale is each signal's own and carries no gradient, so the noise of one signal depends
    neither on its neighbours in the batch nor on how the batch is spread over devices, and training
    cannot lower the noise by shrinking the iterate. `repo` is the reading of the public code.

    Args:
        sigma: standard deviation as a fraction of the largest modulus, non-negative; scalar or
            `(K,)`.

    Raises:
        ValueError: as for `absolute`.
    """
    level = _schedule("sigma", sigma)

    def jitter(key: Array, iterate: Array, k: Array, num_iterations: int) -> Array:
        scale = level(k, num_iterations) * jax.lax.stop_gradient(jnp.max(jnp.abs(iterate)))
        return scale.astype(_real(iterate)) * normal_like(key, iterate)

    return jitter


def unit_norm(sigma: ArrayLike) -> Jitter:
    """Returns the jitter `w_k ~ N(0, sigma_k^2 / n I)`, so that `E ||w_k||^2 = sigma_k^2`.

    `n` counts real numbers: a complex entry counts twice.

    Args:
        sigma: root mean square norm of the noise in the signal's unit, non-negative; scalar or
            `(K,)`.

    Raises:
        ValueError: as for `absolute`.

    Source: Guan and Davenport (2024), Assumption 1.
    """
    level = _schedule("sigma", sigma)

    def jitter(key: Array, iterate: Array, k: Array, num_iterations: int) -> Array:
        count = iterate.size * (2 if jnp.iscomplexobj(iterate) else 1)
        scale = level(k, num_iterations) / np.sqrt(count)
        return scale.astype(_real(iterate)) * normal_like(key, iterate)

    return jitter


def repo(
    sigma: ArrayLike, *, axis_name: str = "batch", recorded: ArrayLike | None = None
) -> Jitter:
    """Returns the jitter of the public code: `w_k ~ N(0, (sigma_k max g_k)^2 I)`.

    Here `max` is signed, runs over the *whole batch*, and carries a gradient to the entry that
    attains it. A signal's noise therefore depends on its neighbours and on the size of the batch on
    its device. For comparison with published runs; `relative` is the sound reading.

    Args:
        sigma: fraction of the batch's largest entry, non-negative; scalar or `(K,)`.
        axis_name: the name of the `vmap` axis that is the batch. The schemes of this package name
            it `"batch"`.
        recorded: standard normals `(K, ...)` of one signal, used in place of draws, to repeat a
            run whose noise is known: `w_k = sigma_k max g_k recorded[k]`. May be traced, so that
            `vmap` hands each signal its own.

    Raises:
        ValueError: as for `absolute`; or at the first use, `recorded` is not one array of the shape
            of the iterate for each of the `K` iterations.
        NameError: at the first use, no enclosing `vmap` has an axis of that name.
    """
    level = _schedule("sigma", sigma)

    def jitter(key: Array, iterate: Array, k: Array, num_iterations: int) -> Array:
        # all_gather and not pmax: pmax has no derivative, and the public code's maximum does.
        largest = jnp.max(jax.lax.all_gather(_parts(iterate).max(), axis_name))
        noise = (
            normal_like(key, iterate)
            if recorded is None
            else _replay(recorded, iterate, k, num_iterations)
        )
        return level(k, num_iterations).astype(_real(iterate)) * largest * noise

    return jitter


def matched_jitter(sigma_g: float, step_size: float, num_iterations: int) -> np.ndarray:
    """Returns the schedule for `unit_norm` that meets the condition under Theorem 2.

    In denoising (`A = I`) iteration `k` displaces the iterate by
    `sum_{i<=k} eta (1 - eta)^{k-i} w_i`. Asking that its mean square norm be `sigma_g^2` after
    every iteration gives

    `sigma_0 = sigma_g / eta`, and `sigma_k = sigma_g sqrt((2 - eta) / eta)` for `k >= 1`,

    so that the jittered trajectory spreads as far as one whose truth is moved by noise of that
    norm.

    Args:
        sigma_g: root mean square norm of the shift to be matched, non-negative.
        step_size: `eta`, in the open interval (0, 2), where the recursion contracts.
        num_iterations: `K`, at least 1.

    Returns:
        `(K,)` float32, root mean square norms `sigma_k`.

    Raises:
        ValueError: an argument is out of range.

    Source: Guan and Davenport (2024), the condition in the proof of Theorem 2, with the noise of
    iteration `k` counted once; the print also adds a `w_0` to the start, which eq. 7 does not have.
    """
    if not (np.isfinite(sigma_g) and sigma_g >= 0):
        raise ValueError(f"sigma_g must be finite and non-negative, got {sigma_g}")
    if not 0 < step_size < 2:
        raise ValueError(f"step_size must lie between 0 and 2, got {step_size}")
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    schedule = np.full(num_iterations, sigma_g * np.sqrt((2 - step_size) / step_size), np.float32)
    schedule[0] = sigma_g / step_size
    return schedule


def _schedule(name: str, value: ArrayLike):
    """Returns `(k, num_iterations) -> level`, with the level checked here, before tracing."""
    levels = np.asarray(value, np.float32)
    if levels.ndim > 1 or not np.all(np.isfinite(levels)) or np.any(levels < 0):
        raise ValueError(f"{name} must be a finite non-negative number or vector, got {value}")

    def level(k: Array, num_iterations: int) -> Array:
        if levels.ndim == 0:
            return jnp.asarray(levels)
        # A gather past the end would clamp silently.
        if levels.shape[0] != num_iterations:
            raise ValueError(
                f"{name} is a schedule of {levels.shape[0]} levels, "
                f"but the reconstruction runs {num_iterations} iterations"
            )
        return jnp.asarray(levels)[k]

    return level


def _replay(recorded: ArrayLike, iterate: Array, k: Array, num_iterations: int) -> Array:
    expected = (num_iterations, *iterate.shape)
    if jnp.shape(recorded) != expected:
        raise ValueError(
            f"recorded must have shape {expected}, a signal for each iteration, "
            f"got {jnp.shape(recorded)}"
        )
    return jnp.asarray(recorded, iterate.dtype)[k]


def _real(x: Array) -> jnp.dtype:
    return jnp.finfo(x.dtype).dtype


def _parts(x: Array) -> Array:
    return jnp.stack([x.real, x.imag]) if jnp.iscomplexobj(x) else x
