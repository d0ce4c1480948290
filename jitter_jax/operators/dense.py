"""Operators given by a matrix, and the identity."""

import dataclasses
import math
from operator import index

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jitter_jax.operators.linear_operator import LinearOperator, compose

Array = jax.Array


def identity() -> LinearOperator:
    """Returns the identity `A x = x`, the operator of denoising."""
    return LinearOperator(_identity, _identity)


def _identity(leaves: tuple[()], x: Array) -> Array:
    del leaves
    return x


def dense(matrix: ArrayLike, *, shape: tuple[int, ...] | None = None) -> LinearOperator:
    """Returns `A x = matrix @ x` along the first axis of `x`, or along its first axes as one.

    Args:
        matrix: `(m, n)`, real or complex. `x` has shape `(n, ...)` and `A x` has `(m, ...)`.
        shape: the first axes of `x`, of `n` entries in all, taken as one in row-major order:
            `dense(matrix, shape=(height, width))` measures images `(height, width, channels)`
            channel by channel, by `(m, channels)`. One axis if not given.

    Raises:
        ValueError: `matrix` has fewer than two axes, or `shape` does not have `n` entries. More
            than two axes are a batch of operators, for `vmap` to take apart.
    """
    matrix = jnp.asarray(matrix)
    if matrix.ndim < 2:
        raise ValueError(f"matrix must have shape (m, n), got {matrix.shape}")
    product = LinearOperator(_dense_forward, _dense_adjoint, matrix)
    if shape is None:
        return product
    shape = tuple(map(index, shape))
    if math.prod(shape) != matrix.shape[-1] or any(side < 0 for side in shape):
        raise ValueError(
            f"shape must have as many entries as matrix has columns, {matrix.shape[-1]}, "
            f"got {shape}"
        )
    return compose(product, LinearOperator(_Flatten(shape), _Unflatten(shape)))


@dataclasses.dataclass(frozen=True)
class _Flatten:
    shape: tuple[int, ...]

    def __call__(self, leaves: tuple[()], x: Array) -> Array:
        del leaves
        axes = len(self.shape)
        # Other axes of as many entries would be taken without complaint.
        if x.shape[:axes] != self.shape:
            raise ValueError(f"the first axes of x must be {self.shape}, got {x.shape}")
        return x.reshape(math.prod(self.shape), *x.shape[axes:])


@dataclasses.dataclass(frozen=True)
class _Unflatten:
    shape: tuple[int, ...]

    def __call__(self, leaves: tuple[()], vector: Array) -> Array:
        del leaves
        return vector.reshape(*self.shape, *vector.shape[1:])


def _dense_forward(matrix: Array, x: Array) -> Array:
    return matrix_product(matrix, x)


def _dense_adjoint(matrix: Array, y: Array) -> Array:
    return matrix_product(matrix.conj().T, y)


def matrix_product(matrix: Array, x: Array) -> Array:
    """Returns `matrix @ x` along the first axis of `x`, in full precision on every device."""
    # By default accelerators multiply float32 in bfloat16 or TF32, and the adjoint would be one to
    # three digits only.
    return jnp.tensordot(matrix, x, axes=1, precision=jax.lax.Precision.HIGHEST)
