"""Blur: against SciPy at both boundaries, kernels of odd and even size, the exact adjoint."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import check_gradient, close, near, normal, precision, tolerance
from scipy.signal import convolve2d

from jitter_jax.operators import blur, gaussian_kernel

# (shape of the kernel, shape of the image)
SIZES = [
    *[((1, 1), (5, 4)), ((3, 3), (8, 6)), ((4, 4), (7, 9)), ((2, 5), (6, 5)), ((5, 2), (11, 13))],
    *[((7, 5), (7, 5)), ((6, 4), (6, 4)), ((1, 1), (1, 1)), ((1, 6), (3, 8))],
]
both_boundaries = pytest.mark.parametrize("boundary", ["zero", "periodic"])
pair = jax.jit(lambda operator, x, y: (operator.forward(x), operator.adjoint(y)))


@both_boundaries
@pytest.mark.parametrize(("kernel_shape", "shape"), SIZES)
def test_equals_scipy_and_has_its_adjoint(kernel_shape, shape, boundary):
    # One case in complex arithmetic, and one with two channels.
    dtype = "complex128" if kernel_shape == (4, 4) else "float64"
    channels = 2 if kernel_shape == (2, 5) else 1
    with precision(dtype):
        kernel = normal(0, *kernel_shape, dtype=dtype)
        x, y = (normal(seed, *shape, channels, dtype=dtype) for seed in (1, 2))
        forward, adjoint = pair(blur(kernel, shape=shape, boundary=boundary), x, y)
        edge = {"zero": "fill", "periodic": "wrap"}[boundary]
        expected = [
            convolve2d(x[..., c], kernel, mode="same", boundary=edge) for c in range(channels)
        ]
        near(forward, np.stack(expected, axis=-1), tolerance(dtype))
        assert forward.dtype == adjoint.dtype == dtype and adjoint.shape == x.shape
        gap = abs(np.vdot(forward, y) - np.vdot(x, adjoint))
        assert gap < tolerance(dtype) * np.linalg.norm(forward) * np.linalg.norm(y)


@both_boundaries
def test_the_centre_of_a_kernel(boundary):
    impulse = jnp.zeros((5, 6, 1)).at[0, 2, 0].set(1.0)
    even = blur(np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]), shape=(5, 6), boundary=boundary)
    image = np.zeros((5, 6))
    image[:2, 1:5] = [[1, 2, 3, 4], [5, 6, 7, 8]]  # the centre, 2, lies on the impulse
    near(even.forward(impulse)[..., 0], image, tolerance("float32"))
    odd = blur(np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]), shape=(5, 6), boundary=boundary)
    image = np.zeros((5, 6))
    image[:2, 1:4] = [[4, 5, 6], [7, 8, 9]]
    if boundary == "periodic":
        image[4, 1:4] = [1, 2, 3]
    near(odd.forward(impulse)[..., 0], image, tolerance("float32"))


@both_boundaries
def test_a_kernel_with_unit_sum_keeps_a_constant(boundary):
    operator = blur(gaussian_kernel(5, 1.6), shape=(12, 11), boundary=boundary)
    blurred = operator.forward(jnp.full((12, 11, 1), 0.7))
    inside = blurred if boundary == "periodic" else blurred[2:-2, 2:-2]
    near(inside, np.full(inside.shape, 0.7), tolerance("float32"))
    if boundary == "zero":
        assert blurred[0, 0, 0] < 0.5  # zeros from beyond both edges


@both_boundaries
def test_kernel_for_each_signal(boundary):
    kernels, xs = normal(0, 3, 4, 3), normal(1, 3, 6, 5, 1)
    make = partial(blur, shape=(6, 5), boundary=boundary)
    batched = jax.jit(jax.vmap(lambda k, x: pair(make(k), x, x)))(kernels, xs)
    each = [pair(make(k), x, x) for k, x in zip(kernels, xs, strict=True)]
    close(batched, jax.tree.map(lambda *parts: jnp.stack(parts), *each))


@both_boundaries
def test_gradient_by_kernel_and_image(boundary):
    with jax.enable_x64(True):
        kernel, x = normal(0, 3, 2, dtype="float64"), normal(1, 4, 5, 1, dtype="float64")

        def value(kernel, x):
            forward, adjoint = pair(blur(kernel, shape=(4, 5), boundary=boundary), x, x**2)
            return jnp.sum((forward - 1) ** 2) + jnp.sum(adjoint**3)

        check_gradient(value, kernel, x)


def test_dtype_is_kept():
    operator = blur(normal(0, 3, 3), shape=(4, 5))
    x = jnp.ones((4, 5, 1))
    assert operator.forward(x).dtype == operator.adjoint(x).dtype == jnp.float32
    assert operator.forward(x.astype("complex64")).dtype == jnp.complex64
    assert operator.support() is None


@pytest.mark.parametrize(("size", "std"), [(1, 2.0), (4, 0.8), (25, 1.6)])
def test_gaussian_kernel_formula(size, std):
    offsets = [i - (size - 1) / 2 for i in range(size)]
    values = np.array([[np.exp(-(u * u + v * v) / (2 * std**2)) for v in offsets] for u in offsets])
    kernel = gaussian_kernel(size, std)
    assert kernel.dtype == np.float32
    near(kernel, values / values.sum(), tolerance("float32"))


def test_a_narrow_gaussian_of_even_size():
    near(gaussian_kernel(2, 1e-3), np.full((2, 2), 0.25), tolerance("float32"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: blur(jnp.ones(3), shape=(4, 4)), r"kernel must .* got \(3,\)"),
        (lambda o: blur(jnp.ones((0, 3)), shape=(4, 4)), r"kernel must .* got \(0, 3\)"),
        (
            lambda o: blur(jnp.ones((2, 5)), shape=(4, 4)),
            r"kernel of shape \(2, 5\) is larger than the image, \(4, 4\)",
        ),
        (lambda o: blur(jnp.ones((2, 2)), shape=(4, -1)), r"shape must .* got \(4, -1\)"),
        (
            lambda o: blur(jnp.ones((2, 2)), shape=(4, 4), boundary="reflect"),
            'boundary must be "zero" or "periodic", got \'reflect\'',
        ),
        (lambda o: gaussian_kernel(0, 1.0), "size must be at least 1, got 0"),
        (lambda o: gaussian_kernel(3, 0.0), r"std must be positive, got 0\.0"),
        (lambda o: gaussian_kernel(3, float("nan")), "std must be positive, got nan"),
        (
            lambda o: o.forward(jnp.ones((5, 4, 1))),
            r"image must have shape \(4, 5, channels\), got \(5, 4, 1\)",
        ),
        (lambda o: o.adjoint(jnp.ones((4, 5))), r"measurement must have .* got \(4, 5\)"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(blur(jnp.ones((3, 3)), shape=(4, 5)))
