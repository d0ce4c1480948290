"""Operators given by a matrix, and the identity."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jitter_jax.operators.linear_operator import LinearOperator

Array = jax.Array


def identity() -> LinearOperator:
    """Returns the identity `A x = x`, the operator of denoising."""
    return LinearOperator(_identity, _identity)


def _identity(leaves: tuple[()], x: Array) -> Array:
    del leaves
    return x


def dense(matrix: ArrayLike) -> LinearOperator:
    """Returns `A x = matrix @ x` along the first axis of `x`.

    Args:
        matrix: `(m, n)`, real or complex. `x` has shape `(n, ...)` and `A x` has `(m, ...)`.

    Raises:
        ValueError: `matrix` has fewer than two axes. More than two are a batch of operators, for
            `vmap` to take apart.
    """
    matrix = jnp.asarray(matrix)
    if matrix.ndim < 2:
        raise ValueError(f"matrix must have shape (m, n), got {matrix.shape}")
    return LinearOperator(_dense_forward, _dense_adjoint, matrix)


def _dense_forward(matrix: Array, x: Array) -> Array:
    return matrix_product(matrix, x)


def _dense_adjoint(matrix: Array, y: Array) -> Array:
    return matrix_product(matrix.conj().T, y)


def matrix_product(matrix: Array, x: Array) -> Array:
    """Returns `matrix @ x` along the first axis of `x`, in full precision on every device."""
    # By default accelerators multiply float32 in bfloat16 or TF32, and the adjoint would be one to
    # three digits only.
    return jnp.tensordot(matrix, x, axes=1, precision=jax.lax.Precision.HIGHEST)
