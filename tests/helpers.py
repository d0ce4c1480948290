"""What the tests share: tolerances by precision, comparison, seeded arrays, finite differences."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

# Relative to the largest entry of what is compared, by the precision it was computed in.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
# Of a derivative against central differences, which are taken in float64 with a step of 1e-5:
# truncation is of the order of 1e-10, rounding of 1e-16 / 1e-5.
FINITE_DIFFERENCE = 1e-7
_STEP = 1e-5


def tolerance(dtype):
    """Returns the tolerance of a real or complex dtype."""
    return TOLERANCE[str(jnp.finfo(dtype).dtype)]


def close(actual, expected, loosen=1.0):
    """Asserts that two trees agree in structure, shape, dtype and value."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape, (a.dtype, a.shape, e.dtype, e.shape)
        if jnp.issubdtype(e.dtype, jnp.inexact):
            near(a, e, loosen * tolerance(e.dtype))
        else:
            np.testing.assert_array_equal(a, e)


def near(actual, expected, relative):
    """Asserts that two arrays agree to a fraction of the expected array's largest entry."""
    expected = np.asarray(expected)
    scale = max(float(np.abs(expected).max()), 1e-30)
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=relative * scale)


def equal(actual, expected):
    """Asserts that two trees hold the same arrays, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def normal(seed, *shape, dtype="float32"):
    """Draws standard normal entries; the parts of a complex array are each standard normal."""
    draw = np.random.default_rng(seed).normal(size=(2, *shape))
    value = draw[0] + 1j * draw[1] if np.issubdtype(dtype, np.complexfloating) else draw[0]
    return jnp.asarray(value.astype(dtype))


def precision(dtype):
    """Returns the context in which JAX keeps `dtype`."""
    wide = np.dtype(dtype) in (np.float64, np.complex128)
    return jax.enable_x64(True) if wide else contextlib.nullcontext()


def counted(function):
    """Returns the function, and a list that grows with every call, so with every trace under jit.

    Made anew for each use: a function that JAX has seen before is not traced again.
    """
    calls = []

    def wrapper(*args, **kwargs):
        calls.append(None)
        return function(*args, **kwargs)

    return wrapper, calls


def check_gradient(function, *args, seed=0):
    """Asserts that `jax.grad` of a real scalar function agrees with central differences.

    Every argument, a tree of float64 or complex128 arrays, is moved along one random direction.
    """
    assert jax.config.jax_enable_x64
    function = jax.jit(function)
    gradients = jax.jit(jax.grad(function, tuple(range(len(args)))))(*args)
    for position, gradient in enumerate(gradients):
        leaves, structure = jax.tree.flatten(args[position])
        direction = jax.tree.unflatten(
            structure,
            [normal(seed + i, *leaf.shape, dtype=leaf.dtype) for i, leaf in enumerate(leaves)],
        )

        def along(step, position=position, direction=direction):
            moved = list(args)
            moved[position] = jax.tree.map(lambda a, d: a + step * d, args[position], direction)
            return float(function(*moved))

        # JAX's gradient g of a real function of complex z has df = Re sum(g dz).
        products = jax.tree.map(lambda g, d: float(jnp.sum(g * d).real), gradient, direction)
        expected = (along(_STEP) - along(-_STEP)) / (2 * _STEP)
        assert abs(expected) > 1e-3, "the direction tells nothing"
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), expected, rtol=FINITE_DIFFERENCE)


class Pointwise:
    """A learned step without a library."""

    @staticmethod
    def init(key, x):
        return jax.random.normal(key, (x.shape[-1], x.shape[-1])) / 2

    @staticmethod
    def apply(params, x):
        return jnp.tanh(x @ params)
