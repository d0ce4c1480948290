"""Smoothed gradients: the mean error under noise of several levels."""

from typing import get_args

import jax
import jax.numpy as jnp

from jitter_jax import metrics
from jitter_jax.attacks.threat import Space
from jitter_jax.data.batch import Batch
from jitter_jax.noise import measured_noise
from jitter_jax.schemes.lift import LevelLoss, Loss, Params
from jitter_jax.smoothing import Smoothing, monte_carlo
from jitter_jax.unroll import Reconstructor

Array = jax.Array


def smt_grad(
    reconstructor: Reconstructor,
    smoothing: Smoothing,
    *,
    num_levels: int = 6,
    space: Space = "signal",
) -> Loss:
    """Returns the loss `1/T sum_t E_delta mean |x - H(y + (t/T) A delta)|^2`, `delta ~ N(0, s^2)`.

    `t = 1, ..., T`, with the samples of `smoothing` at each level. Its gradient accumulates that of
    all levels, in one step; `smt_grad_levels` takes a step for each.

    Args:
        reconstructor: the reconstruction `H`, not smoothed.
        smoothing: the noise of the last level.
        num_levels: `T`, at least 1.
        space: where the noise goes: `"signal"`, or `"measurement"` for `y + (t/T) delta`.

    Returns:
        `loss(params, batch, key) -> (scalar, aux)`.

    Raises:
        ValueError: `num_levels` is below 1, `space` is unknown, the reconstructor is smoothed
            already, or the noise is to be cut.

    Source: "Certified adversarial defense methods for inverse problems", algorithm 2.
    """
    of_level = smt_grad_levels(reconstructor, smoothing, num_levels=num_levels, space=space)

    def loss(params: Params, batch: Batch, key: Array) -> tuple[Array, dict[str, Array]]:
        # Without this a derivative would keep what every level computed.
        one = jax.checkpoint(lambda level: of_level(params, batch, key, level)[0])
        return jnp.mean(jax.lax.map(one, jnp.arange(num_levels))), {}

    return loss


def smt_grad_levels(
    reconstructor: Reconstructor,
    smoothing: Smoothing,
    *,
    num_levels: int = 6,
    space: Space = "signal",
) -> LevelLoss:
    """Returns the loss of one level of `smt_grad`, for an optimizer step at each.

    The public code takes these steps, with each loss divided by `T` once more, which Adam does not
    notice.

    Args:
        reconstructor: the reconstruction `H`, not smoothed.
        smoothing: the noise of the last level.
        num_levels: `T`, at least 1.
        space: where the noise goes.

    Returns:
        `loss(params, batch, key, level) -> (scalar, aux)`, `level = 0, ..., T - 1`.

    Raises:
        ValueError: as for `smt_grad`.
    """
    if num_levels < 1:
        raise ValueError(f"num_levels must be at least 1, got {num_levels}")
    if space not in get_args(Space):
        raise ValueError(f"space must be one of {get_args(Space)}, got {space!r}")
    if reconstructor.smoothing is not None:
        raise ValueError("the reconstructor is smoothed already")
    if smoothing.clamp is not None:
        raise ValueError(f"clamp must be None, got {smoothing.clamp}")

    def loss(
        params: Params, batch: Batch, key: Array, level: Array
    ) -> tuple[Array, dict[str, Array]]:
        scale = smoothing.sigma * (level + 1) / num_levels

        def example_loss(x, y, operator, key):
            def draw(key: Array) -> Array:
                noisy = y + scale * measured_noise(key, operator, y, space)
                return metrics.mse(reconstructor.apply(params, operator, noisy), x)

            return monte_carlo(
                draw,
                jax.random.fold_in(key, level),
                num_samples=smoothing.num_samples,
                chunk=smoothing.chunk,
            )

        return jnp.mean(batch.lift(example_loss, key)), {}

    return loss
