"""Block compressed sensing: one matrix measures every square block of an image."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jitter_jax.operators._checks import check_array, checked_shape
from jitter_jax.operators.linear_operator import LinearOperator

Array = jax.Array


def block_sampling(
    matrix: ArrayLike, *, shape: tuple[int, int], rows: ArrayLike | None = None
) -> LinearOperator:
    """Returns `(A x)[i, j] = D Phi x_ij` for the blocks `x_ij` of an image, channel by channel.

    The image is padded with zeros at the bottom and at the right until it is made of whole blocks
    of `b x b` pixels, by none where it is already. `x_ij`, the block in row `i` and column `j` of
    blocks, is a vector of `b^2` pixels, row by row; `Phi` is `matrix`, and `D` is one for the
    measured rows and zero for the others. `(A^H y)_ij = Phi^H D y_ij`, without what lies outside
    the image. Every ratio has measurements of one shape, so that one compiled program serves all;
    `support()` tells the measured rows from the zeros beside them.

    Args:
        matrix: `Phi`, `(M, b^2)`. A matrix for each signal is
            `jax.vmap(partial(block_sampling, shape=shape))(matrices)`.
        shape: `(height, width)` of an image, each at least 1.
        rows: the measured rows, all `M` if not given: their number, from 1 to `M`, for the first
            ones, or a bool array `(M,)`, True at each. It may be traced, and then a number is not
            checked.

    Returns:
        An operator from images `(height, width, channels)` to measurements
        `(blocks_down, blocks_across, M, channels)`, `blocks_down = ceil(height / b)` and
        `blocks_across = ceil(width / b)`. It raises ValueError for images or measurements of
        another shape.

    Raises:
        ValueError: `matrix` does not have two axes or its rows are no square number long, `shape`
            is not two positive sizes, or `rows` is neither such a number nor such an array.

    Source: Gan, "Block compressed sensing of natural images" (2007); You, Xie and Zhang,
    "ISTA-Net++: flexible deep unfolding network for compressive sensing" (2021), whose public code
    adds one more block to an image of whole blocks.
    """
    matrix = jnp.asarray(matrix)
    if matrix.ndim != 2 or matrix.size == 0 or _side(matrix) ** 2 != matrix.shape[1]:
        raise ValueError(f"matrix must have shape (M, b * b) with M, b >= 1, got {matrix.shape}")
    shape = checked_shape(shape)
    leaves = (matrix, _row_mask(rows, matrix.shape[0]))
    return LinearOperator(_Measure(shape), _Fill(shape), leaves, support_function=_support)


def whole_blocks(operator: LinearOperator) -> tuple[LinearOperator, Callable[[Array], Array]]:
    """Returns the same sampling of the padded image, and the function that cuts the padding off.

    For networks whose convolutions run over the padded image. With the operator `A` and the padded
    one `A'`, `A' x' = A x` where `x'` is `x` padded with zeros, and `crop(A'^H y) = A^H y`.

    Args:
        operator: made by `block_sampling`.

    Returns:
        The operator on images of the size of its blocks, which has the leaves and measurements of
        `operator`, and `crop`, from `(..., padded_height, padded_width, channels)` to
        `(..., height, width, channels)`.

    Raises:
        ValueError: `operator` is of another kind.
    """
    shape = _sampling(operator).shape
    matrix, _ = operator.leaves
    down, across, side = _grid(matrix, shape)
    padded = down * side, across * side
    return (
        LinearOperator(_Measure(padded), _Fill(padded), operator.leaves, _support),
        lambda x: x[..., : shape[0], : shape[1], :],
    )


def sampled_ratio(operator: LinearOperator) -> Array:
    """Returns the number of measured rows over the `b^2` pixels of a block.

    Args:
        operator: made by `block_sampling`, its leaves traced or not.

    Returns:
        Scalar float32, from 0 to `M / b^2`; for a batch of operators one for each.

    Raises:
        ValueError: `operator` is of another kind.
    """
    _sampling(operator)
    matrix, rows = operator.leaves
    return jnp.sum(rows, axis=-1).astype(jnp.float32) / matrix.shape[-1]


@dataclasses.dataclass(frozen=True)
class _Measure:
    shape: tuple[int, int]

    def __call__(self, leaves: tuple[Array, Array], x: Array) -> Array:
        check_array("image", x, self.shape)
        matrix, _ = leaves
        down, across, side = _grid(matrix, self.shape)
        (height, width), channels = self.shape, x.shape[-1]
        x = jnp.pad(x, ((0, down * side - height), (0, across * side - width), (0, 0)))
        # Pixels last: with one channel the product is a plain one, and nothing moves after it.
        blocks = x.reshape(down, side, across, side, channels).transpose(0, 2, 4, 1, 3)
        blocks = blocks.reshape(down, across, channels, side * side)
        y = jnp.matmul(blocks, matrix.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.where(_support(leaves), y.swapaxes(2, 3), 0)


@dataclasses.dataclass(frozen=True)
class _Fill:
    shape: tuple[int, int]

    def __call__(self, leaves: tuple[Array, Array], y: Array) -> Array:
        matrix, _ = leaves
        down, across, side = _grid(matrix, self.shape)
        check_array("measurement", y, (down, across, matrix.shape[0]))
        (height, width), channels = self.shape, y.shape[-1]
        y = jnp.where(_support(leaves), y, 0).swapaxes(2, 3)
        blocks = jnp.matmul(y, matrix.conj(), precision=jax.lax.Precision.HIGHEST)
        blocks = blocks.reshape(down, across, channels, side, side).transpose(0, 3, 1, 4, 2)
        return blocks.reshape(down * side, across * side, channels)[:height, :width]


def _support(leaves: tuple[Array, Array]) -> Array:
    _, rows = leaves
    return rows[None, None, :, None]


def _side(matrix: Array) -> int:
    return math.isqrt(matrix.shape[-1])


def _grid(matrix: Array, shape: tuple[int, int]) -> tuple[int, int, int]:
    """Returns the blocks down, the blocks across, and the side of a block."""
    side = _side(matrix)
    return -(-shape[0] // side), -(-shape[1] // side), side


def _sampling(operator: LinearOperator) -> _Measure:
    if not isinstance(operator.forward_function, _Measure):
        raise ValueError(
            "operator must be made by block_sampling, "
            f"got one whose forward function is {operator.forward_function}"
        )
    return operator.forward_function


def _row_mask(rows: ArrayLike | None, num_rows: int) -> Array:
    if rows is None:
        return jnp.ones(num_rows, bool)
    given, rows = rows, jnp.asarray(rows)
    if rows.dtype == bool and rows.shape == (num_rows,):
        return rows
    is_number = rows.ndim == 0 and jnp.issubdtype(rows.dtype, jnp.integer)
    # Read from what was given: under jit even constants are traced by jax.numpy.
    is_known = not isinstance(given, jax.core.Tracer)
    if not is_number or (is_known and not 1 <= int(np.asarray(given)) <= num_rows):
        what = given if is_number else f"{rows.dtype} of shape {rows.shape}"
        raise ValueError(
            f"rows must be a number from 1 to {num_rows}, the rows of the matrix, "
            f"or a bool array of shape ({num_rows},), got {what}"
        )
    return jnp.arange(num_rows) < rows
