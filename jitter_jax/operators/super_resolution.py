"""Super-resolution: blur, then one pixel of every few."""

import dataclasses
from operator import index

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jitter_jax.operators._checks import check_array
from jitter_jax.operators.blur import Boundary, blur
from jitter_jax.operators.linear_operator import LinearOperator, compose

Array = jax.Array


def super_resolution(
    kernel: ArrayLike, factor: int, *, shape: tuple[int, int], boundary: Boundary = "zero"
) -> LinearOperator:
    """Returns `A = S B`: a blur `B`, then `S`, which keeps every `factor`-th pixel.

    `(A x)[i, j] = (B x)[factor i, factor j]` in every channel, so that the first pixel is always
    kept; `S^H` puts zeros between the pixels. The sizes need not be multiples of `factor`.

    Args:
        kernel: as for `blur`, `(kernel_height, kernel_width)`.
        factor: at least 1; 1 keeps every pixel.
        shape: `(height, width)` of an image, the larger one.
        boundary: "zero" or "periodic", as for `blur`.

    Returns:
        An operator from images `(height, width, channels)` to
        `(ceil(height / factor), ceil(width / factor), channels)`. It raises ValueError for images
        or measurements of another shape.

    Raises:
        ValueError: `factor` is below 1, or an argument is not accepted by `blur`.
    """
    factor = index(factor)
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    blurred = blur(kernel, shape=shape, boundary=boundary)
    height, width = map(index, shape)
    subsampling = LinearOperator(_Keep(factor), _Spread(factor, (height, width)))
    return compose(subsampling, blurred)


@dataclasses.dataclass(frozen=True)
class _Keep:
    factor: int

    def __call__(self, leaves: tuple[()], x: Array) -> Array:
        del leaves
        return x[:: self.factor, :: self.factor]


@dataclasses.dataclass(frozen=True)
class _Spread:
    factor: int
    shape: tuple[int, int]

    def __call__(self, leaves: tuple[()], y: Array) -> Array:
        del leaves
        kept = tuple(-(-side // self.factor) for side in self.shape)
        check_array("measurement", y, kept)
        after = [(side - 1) % self.factor for side in self.shape]
        spread = [(0, rest, self.factor - 1) for rest in after]
        return jax.lax.pad(y, jnp.zeros((), y.dtype), [*spread, (0, 0, 0)])
