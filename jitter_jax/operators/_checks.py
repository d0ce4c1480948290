"""Checks that the operators on images share."""

from operator import index

import jax

Array = jax.Array


def checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Returns `shape` as two plain integers, which compare and hash by value."""
    if len(shape) != 2 or any(index(side) < 1 for side in shape):
        raise ValueError(f"shape must be (height, width), each at least 1, got {shape}")
    height, width = map(index, shape)
    return height, width


def check_array(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `array` has `shape` and an axis of channels after it."""
    if array.ndim != len(shape) + 1 or array.shape[:-1] != shape:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{name} must have shape ({expected}, channels), got {array.shape}")
