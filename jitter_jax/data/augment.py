"""Random patches and flips, drawn by a key inside the training step.

An image is `(height, width, ...)` of any dtype, any number of channels behind. What is drawn
depends on the key and on height and width only, so that one key cuts or turns several arrays alike.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jitter_jax.data._checks import checked_count

Array = jax.Array


def augment(
    examples: Mapping[str, Any], *, patch: tuple[int, int] | tuple[()], flips: bool, key: Array
) -> dict[str, Any]:
    """Cut and turn the signal of every example, each by a key of its own.

    Args:
        examples: `signal`, `(batch, height, width, ...)`, and `index`, `(batch,)`, which is folded
            into the key; what else there is stays as it is.
        patch: `(rows, columns)` of the patch; empty cuts none.
        flips: whether to mirror and rotate.
        key: PRNG key.

    Raises:
        ValueError: as for `random_patch`.
    """

    def one(image: Array, number: Array) -> Array:
        key_patch, key_flip = jax.random.split(jax.random.fold_in(key, number))
        if patch:
            image = random_patch(image, patch, key=key_patch)
        return random_flip(image, key=key_flip) if flips else image

    signal, index = (jnp.asarray(examples[name]) for name in ("signal", "index"))
    return {**examples, "signal": jax.vmap(one)(signal, index)}


def random_patch(image: Array, shape: tuple[int, int], *, key: Array) -> Array:
    """Cut a patch out of an image; every place at which it lies inside is equally likely.

    Args:
        image: `(height, width, ...)`.
        shape: `(rows, columns)` of the patch, at most those of the image; static.
        key: PRNG key.

    Returns:
        `(rows, columns, ...)` of the image's dtype.

    Raises:
        ValueError: the patch is larger than the image, or an argument is not as above.
    """
    _check_image(image)
    if len(shape) != 2:
        raise ValueError(f"shape={shape!r} is not accepted: (rows, columns) is expected")
    patch = tuple(checked_count("shape's entry", side) for side in shape)
    if patch[0] > image.shape[0] or patch[1] > image.shape[1]:
        raise ValueError(
            f"shape={patch} is not accepted: at most the image's {image.shape[:2]} is expected"
        )
    places = jnp.array([n - side + 1 for n, side in zip(image.shape, patch, strict=False)])
    row, column = jax.random.randint(key, (2,), 0, places)
    corner = (row, column, *(0,) * (image.ndim - 2))
    return jax.lax.dynamic_slice(image, corner, patch + image.shape[2:])


def random_flip(image: Array, *, key: Array) -> Array:
    """Turn an image into one of its mirror images and rotations, all equally likely.

    Of a square image these are the eight of the dihedral group: rows reversed or not, columns
    reversed or not, rows and columns exchanged or not. Of another image the four without exchange.

    Args:
        image: `(height, width, ...)`.
        key: PRNG key.

    Returns:
        The image's shape and dtype.

    Raises:
        ValueError: the image has fewer than two axes.
    """
    _check_image(image)
    rows, columns, exchange = jax.random.bernoulli(key, shape=(3,))
    image = jnp.where(rows, image[::-1], image)
    image = jnp.where(columns, image[:, ::-1], image)
    if image.shape[0] != image.shape[1]:
        return image
    return jnp.where(exchange, jnp.swapaxes(image, 0, 1), image)


def _check_image(image: Array) -> None:
    if image.ndim < 2:
        raise ValueError(f"image has shape {image.shape}; (height, width, ...) is expected")
