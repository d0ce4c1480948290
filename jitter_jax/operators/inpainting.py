"""Inpainting: some pixels of an image are known."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jitter_jax.operators._checks import check_array
from jitter_jax.operators.linear_operator import LinearOperator

Array = jax.Array


def inpainting(mask: ArrayLike) -> LinearOperator:
    """Returns `A = M`: the image where it is known, zero elsewhere, in every channel.

    `A = A^H = A^2`. The measurement keeps the shape of the image, so that one compiled program
    serves every mask; `support()` tells the known pixels from the zeros beside them.

    Args:
        mask: `(height, width)` bool, True where a pixel is known; numbers count as True unless
            zero. A mask for each signal is `jax.vmap(inpainting)(masks)`.

    Returns:
        An operator from images `(height, width, channels)` to the same shape. It raises ValueError
        for images of another shape.

    Raises:
        ValueError: `mask` does not have two axes.
    """
    mask = jnp.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"mask must have shape (height, width), got {mask.shape}")
    return LinearOperator(_keep, _keep, mask != 0, support_function=_support)


def _support(mask: Array) -> Array:
    return mask[:, :, None]


def _keep(mask: Array, x: Array) -> Array:
    check_array("image", x, mask.shape)
    return jnp.where(_support(mask), x, 0)
