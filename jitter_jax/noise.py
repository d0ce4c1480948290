"""Gaussian noise of real and complex arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.operators import LinearOperator

Array = jax.Array


def normal_like(key: Array, like: Array, support: Array | None = None) -> Array:
    """Draws standard normals of the shape and dtype of an array.

    Of a complex array the real and the imaginary part each have standard deviation 1.

    Args:
        key: PRNG key.
        like: real or complex floating-point array.
        support: bool, broadcasts to `like`; draws are zero where it is False. None is everywhere.
    """
    draw = jax.random.normal(key, like.shape, like.dtype)
    if jnp.iscomplexobj(like):
        # A complex normal of JAX has unit variance in all, half of it in each part.
        draw = draw * np.sqrt(2).astype(like.real.dtype)
    return draw if support is None else jnp.where(support, draw, 0)


def measured_noise(key: Array, operator: LinearOperator, y: Array, space: str) -> Array:
    """Draws what standard normal noise adds to a measurement: `A w`, or `w` where `A` measures.

    Args:
        key: PRNG key.
        operator: the operator `A`.
        y: a measurement, whose shape and dtype count.
        space: `"signal"`: `w` is on the signal; `"measurement"`: on the measurement.

    Raises:
        ValueError: `space` is another.
    """
    if space not in ("signal", "measurement"):
        raise ValueError(f"space must be 'signal' or 'measurement', got {space!r}")
    if space == "measurement":
        return normal_like(key, y, operator.support())
    signal = jax.eval_shape(operator.adjoint, y)
    return operator.forward(normal_like(key, jnp.zeros(signal.shape, signal.dtype)))
