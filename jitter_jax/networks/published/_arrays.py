"""Arrays of a checkpoint, once their shapes are known to be those of a network."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from jitter_jax.data.files import as_float32, load_arrays

Array = jax.Array
Shapes = dict[str, tuple[int, ...]]


def read_arrays(
    path: str | Path, network: str, shapes_like: Callable[[Shapes], Shapes], *, prefix: str = ""
) -> dict[str, Array]:
    """Reads the float32 arrays of a network by name.

    Args:
        path: `.npz` file.
        network: what the arrays are to be, for the message.
        shapes_like: from the shapes found to those of the network that is most like them.
        prefix: taken off the names that have it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its arrays are not those of such a network.
    """
    arrays = {key.removeprefix(prefix): array for key, array in load_arrays(path).items()}
    found = {key: array.shape for key, array in arrays.items()}
    expected = shapes_like(found)
    wrong = {
        key: (found.get(key), expected.get(key))
        for key in sorted(found.keys() | expected.keys())
        if found.get(key) != expected.get(key)
    }
    if wrong:
        few = dict(list(wrong.items())[:5])
        raise ValueError(
            f"{path}: not {network}; {len(wrong)} arrays have other (found, expected) shapes, "
            f"the first of them {few}"
        )
    return {key: jnp.asarray(as_float32(path, key, array)) for key, array in arrays.items()}


def size(found: Shapes, key: str, axis: int, *, num_axes: int, default: int) -> int:
    """Returns a side of an array; `default` if it is not there or has other axes."""
    shape = found.get(key, ())
    return shape[axis] if len(shape) == num_axes else default
