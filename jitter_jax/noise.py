"""Gaussian noise of real and complex arrays."""

import jax
import jax.numpy as jnp
import numpy as np

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
