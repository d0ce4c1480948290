"""Super-resolution: a blur of which every few pixels are kept, at sizes that divide and others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, counted, equal, near, normal, precision, tolerance
from scipy.signal import convolve2d

from jitter_jax.operators import blur, super_resolution

# (factor, shape of the image)
CASES = [(1, (5, 4)), (2, (8, 6)), (2, (7, 5)), (3, (9, 7)), (3, (8, 10)), (4, (3, 3)), (9, (4, 1))]
both_boundaries = pytest.mark.parametrize("boundary", ["zero", "periodic"])
pair = jax.jit(lambda operator, x, y: (operator.forward(x), operator.adjoint(y)))


@both_boundaries
@pytest.mark.parametrize(("factor", "shape"), CASES)
def test_equals_scipy_and_has_its_adjoint(factor, shape, boundary):
    channels = 1 + factor % 2
    with precision("float64"):
        kernel = normal(0, 3, 1, dtype="float64")
        operator = super_resolution(kernel, factor, shape=shape, boundary=boundary)
        x = normal(1, *shape, channels, dtype="float64")
        edge = {"zero": "fill", "periodic": "wrap"}[boundary]
        expected = np.stack(
            [
                convolve2d(x[..., c], kernel, mode="same", boundary=edge)[::factor, ::factor]
                for c in range(channels)
            ],
            axis=-1,
        )
        y = normal(2, *expected.shape, dtype="float64")
        forward, adjoint = pair(operator, x, y)
        near(forward, expected, tolerance("float64"))
        assert forward.dtype == adjoint.dtype == "float64" and adjoint.shape == x.shape
        gap = abs(np.vdot(forward, y) - np.vdot(x, adjoint))
        assert gap < tolerance("float64") * np.linalg.norm(forward) * np.linalg.norm(y)


def test_factor_one_is_the_blur():
    kernel, x = normal(0, 2, 3), normal(1, 4, 5, 1)
    close(
        pair(super_resolution(kernel, 1, shape=(4, 5)), x, x),
        pair(blur(kernel, shape=(4, 5)), x, x),
    )


def test_which_pixels_are_kept():
    operator = super_resolution(np.ones((1, 1)), 3, shape=(4, 5))
    x = jnp.arange(20.0).reshape(4, 5, 1)
    near(operator.forward(x)[..., 0], [[0, 3], [15, 18]], tolerance("float32"))
    spread = np.zeros((4, 5))
    spread[::3, ::3] = [[1, 2], [3, 4]]
    near(operator.adjoint(jnp.array([[1.0, 2], [3, 4]])[..., None])[..., 0], spread, 1e-6)
    assert operator.support() is None


def test_kernel_for_each_signal():
    kernels, xs, ys = normal(0, 3, 3, 3), normal(1, 3, 5, 6, 1), normal(2, 3, 3, 3, 1)
    function, traces = counted(
        jax.vmap(lambda k, x, y: pair(super_resolution(k, 2, shape=(5, 6)), x, y))
    )
    batched = jax.jit(function)
    each = [
        pair(super_resolution(k, np.int64(2), shape=[5, 6]), x, y)
        for k, x, y in zip(kernels, xs, ys, strict=True)
    ]
    close(batched(kernels, xs, ys), jax.tree.map(lambda *parts: jnp.stack(parts), *each))
    batched(2 * kernels, xs, ys)
    assert len(traces) == 1


def test_operators_of_equal_settings_are_equal():
    kernel = np.ones((2, 2))
    first, again = (super_resolution(kernel, 2, shape=(5, 6)) for _ in range(2))
    equal(first, again)
    structures = {
        jax.tree.structure(super_resolution(kernel, factor, shape=shape, boundary=boundary))
        for factor, shape, boundary in [
            *[(2, (5, 6), "zero"), (3, (5, 6), "zero"), (2, (6, 5), "zero")],
            (2, (5, 6), "periodic"),
        ]
    }
    assert len(structures) == 4 and jax.tree.structure(again) in structures


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda o: super_resolution(np.ones((1, 1)), 0, shape=(4, 5)),
            "factor must be at least 1, got 0",
        ),
        (
            lambda o: super_resolution(np.ones((5, 5)), 2, shape=(4, 5)),
            r"kernel of shape \(5, 5\) is larger than the image, \(4, 5\)",
        ),
        (lambda o: o.forward(jnp.ones((4, 4, 1))), r"image must have .* got \(4, 4, 1\)"),
        (
            lambda o: o.adjoint(jnp.ones((2, 2, 1))),
            r"measurement must have shape \(2, 3, channels\), got \(2, 2, 1\)",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(super_resolution(np.ones((2, 2)), 2, shape=(4, 5)))
