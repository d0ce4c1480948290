"""Block compressed sensing: against a loop over blocks, every ratio in one program."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, counted, equal, near, normal, precision, tolerance

from jitter_jax.operators import (
    block_sampling,
    compose,
    dense,
    identity,
    orthonormal_rows,
    sampled_ratio,
    whole_blocks,
)

SIDE, ROWS = 3, 5
# Whole blocks, odd sizes, one block, less than one block.
SHAPES = [(6, 9), (7, 5), (3, 3), (4, 3), (2, 7), (1, 1)]
MASK = np.array([True, False, False, True, True])
every_shape = pytest.mark.parametrize("shape", SHAPES)


def matrix_of(dtype="float32", seed=0):
    return normal(seed, ROWS, SIDE**2, dtype=dtype)


def padded_shape(shape):
    return tuple(SIDE * math.ceil(size / SIDE) for size in shape)


def padded(x):
    height, width = padded_shape(x.shape[:2])
    whole = np.zeros((height, width, x.shape[2]), x.dtype)
    whole[: x.shape[0], : x.shape[1]] = x
    return whole


def block_by_block(matrix, x, measured):
    """The definition, pixel by pixel."""
    whole = padded(np.asarray(x))
    height, width, channels = whole.shape
    y = np.zeros((height // SIDE, width // SIDE, len(matrix), channels), whole.dtype)
    for i, j, row, c in np.ndindex(y.shape):
        if measured[row]:
            for u, v in np.ndindex(SIDE, SIDE):
                pixel = whole[SIDE * i + u, SIDE * j + v, c]
                y[i, j, row, c] += matrix[row, SIDE * u + v] * pixel
    return y


pair = jax.jit(lambda operator, x, y: (operator.forward(x), operator.adjoint(y)))


@pytest.mark.parametrize(
    ("shape", "channels", "rows", "measured"),
    [
        *[(shape, 1, MASK, MASK) for shape in SHAPES],
        ((7, 5), 2, None, np.ones(ROWS, bool)),
        ((6, 9), 3, 3, np.arange(ROWS) < 3),
    ],
)
def test_equals_a_loop_over_blocks_and_has_its_adjoint(shape, channels, rows, measured):
    with precision("float64"):
        matrix = matrix_of("float64")
        operator = block_sampling(matrix, shape=shape, rows=rows)
        x = normal(1, *shape, channels, dtype="float64")
        expected = block_by_block(np.asarray(matrix), x, measured)
        y = normal(2, *expected.shape, dtype="float64")
        forward, adjoint = pair(operator, x, y)
        near(forward, expected, tolerance("float64"))
        assert forward.dtype == adjoint.dtype == "float64" and adjoint.shape == x.shape
        gap = abs(np.vdot(forward, y) - np.vdot(x, adjoint))
        assert gap < tolerance("float64") * np.linalg.norm(forward) * np.linalg.norm(y)


def test_one_block_is_a_dense_matrix():
    matrix = matrix_of()
    block = block_sampling(matrix, shape=(SIDE, SIDE))
    whole = dense(matrix, shape=(SIDE, SIDE))
    x, y = normal(1, SIDE, SIDE, 2), normal(2, ROWS, 2)
    close(block.forward(x)[0, 0], whole.forward(x))
    close(block.adjoint(y[None, None]), whole.adjoint(y))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_is_kept(dtype):
    operator = block_sampling(jnp.asarray(matrix_of(), dtype), shape=(4, 5), rows=2)
    y = operator.forward(jnp.ones((4, 5, 1), dtype))
    assert y.dtype == operator.adjoint(y).dtype == dtype


def test_one_program_for_every_ratio():
    x = normal(1, 4, 7, 1)
    function, traces = counted(lambda o, x: (o.forward(x), sampled_ratio(o)))
    compiled = jax.jit(function)
    for rows in (None, 1, 4, ROWS, MASK, jnp.asarray(2)):
        measured = MASK if rows is MASK else np.arange(ROWS) < (rows or ROWS)
        for matrix in (matrix_of(), 2 * matrix_of()):
            y, ratio = compiled(block_sampling(matrix, shape=(4, 7), rows=rows), x)
            near(y, block_by_block(np.asarray(matrix), x, measured), tolerance("float32"))
            near(ratio, measured.sum() / SIDE**2, tolerance("float32"))
            assert ratio.shape == () and ratio.dtype == jnp.float32
    assert len(traces) == 1


def test_made_inside_jit_and_vmap():
    matrices = jnp.stack([matrix_of(seed=seed) for seed in range(3)])
    numbers, xs = jnp.array([1, 5, 3]), normal(4, 3, 4, 5, 1)

    def measure(matrix, number, x):
        operator = block_sampling(matrix, shape=(4, 5), rows=number)
        y = operator.forward(x)
        return y, operator.adjoint(y), operator.support(), sampled_ratio(operator)

    batched = jax.jit(jax.vmap(measure))(matrices, numbers, xs)
    one = jax.jit(measure)
    each = [one(*parts) for parts in zip(matrices, numbers, xs, strict=True)]
    close(batched, jax.tree.map(lambda *parts: jnp.stack(parts), *each))
    operators = jax.vmap(lambda m, n: block_sampling(m, shape=(4, 5), rows=n))(matrices, numbers)
    close(sampled_ratio(operators), batched[3])  # of a batch without vmap, too
    near(batched[3], np.array([1, 5, 3]) / SIDE**2, tolerance("float32"))


def test_support_is_what_is_measured():
    operator = block_sampling(matrix_of(), shape=(4, 5), rows=MASK)
    y = operator.forward(normal(1, 4, 5, 2))
    equal(np.asarray(y) != 0, np.broadcast_to(operator.support(), y.shape))
    equal(np.broadcast_to(operator.support(), y.shape)[1, 0, :, 1], MASK)
    # What stands beside the measured rows does not count, whatever it is.
    spoiled = jnp.where(operator.support(), y, jnp.nan)
    close(operator.adjoint(spoiled), operator.adjoint(y))
    assert block_sampling(matrix_of(), shape=(4, 5)).support().all()


@every_shape
def test_whole_blocks(shape):
    operator = block_sampling(matrix_of(), shape=shape, rows=4)
    whole, crop = whole_blocks(operator)
    x = normal(1, *shape, 2)
    y = block_by_block(np.asarray(matrix_of()), x, np.arange(ROWS) < 4)
    measured, filled = pair(whole, jnp.asarray(padded(np.asarray(x))), y)
    near(measured, y, tolerance("float32"))
    assert filled.shape == (*padded_shape(shape), 2)
    close(crop(filled), pair(operator, x, y)[1])
    trajectory = jnp.stack([filled, 2 * filled])
    close(crop(trajectory), jnp.stack([crop(filled), crop(2 * filled)]))
    equal(whole.support(), operator.support())
    equal(sampled_ratio(whole), sampled_ratio(operator))
    same = jax.tree.structure(whole) == jax.tree.structure(operator)
    assert same == (shape == padded_shape(shape))  # whole images compile nothing anew


def test_orthonormal_rows_make_a_projection():
    operator = block_sampling(orthonormal_rows(4, SIDE**2, seed=0), shape=(6, 3))
    y = normal(1, 2, 1, 4, 1)
    near(operator.forward(operator.adjoint(y)), y, tolerance("float32"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: block_sampling(jnp.ones(9), shape=(3, 3)), r"matrix must .* got \(9,\)"),
        (lambda o: block_sampling(jnp.ones((2, 8)), shape=(3, 3)), r"matrix must .* got \(2, 8\)"),
        (lambda o: block_sampling(jnp.ones((0, 9)), shape=(3, 3)), r"matrix must .* got \(0, 9\)"),
        (lambda o: block_sampling(jnp.ones((2, 0)), shape=(3, 3)), r"matrix must .* got \(2, 0\)"),
        (lambda o: block_sampling(matrix_of(), shape=(3, 0)), r"shape must .* got \(3, 0\)"),
        (lambda o: block_sampling(matrix_of(), shape=(3, 3, 1)), r"shape must .* got \(3, 3, 1\)"),
        *[
            (
                lambda o, rows=rows: block_sampling(matrix_of(), shape=(3, 3), rows=rows),
                rf"rows must be a number from 1 to 5, .* bool array of shape \(5,\), got {got}",
            )
            for rows, got in [
                (6, "6"),
                (0, "0"),
                (2.0, r"float\d\d of shape \(\)"),
                (np.ones(4, bool), r"bool of shape \(4,\)"),
                (np.arange(5), r"int\d\d of shape \(5,\)"),
                (True, r"bool of shape \(\)"),
            ]
        ],
        (
            lambda o: o.forward(jnp.ones((5, 4, 1))),
            r"image must have shape \(4, 5, channels\), got \(5, 4, 1\)",
        ),
        (lambda o: o.forward(jnp.ones((4, 5))), r"image must .* got \(4, 5\)"),
        (
            lambda o: o.adjoint(jnp.ones((2, 2, 9, 1))),
            r"measurement must have shape \(2, 2, 5, channels\), got \(2, 2, 9, 1\)",
        ),
        (
            lambda o: whole_blocks(identity()),
            "operator must be made by block_sampling, got .*_ident",
        ),
        (
            lambda o: sampled_ratio(compose(identity(), o)),
            "operator must be made by block_sampling",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(block_sampling(matrix_of(), shape=(4, 5)))
