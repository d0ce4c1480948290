"""The spectral norm of a Jacobian by power iteration against dense singular values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, check_gradient, near, normal, precision

from jitter_jax.analysis import jacobian_norm
from jitter_jax.operators import dense, identity, inpainting

N = 4


def largest(matrix):
    return np.linalg.svd(np.asarray(matrix), compute_uv=False)[0]


def norm(matrix, operator, y, **options):
    options = {"key": jax.random.key(3), "num_iterations": 300, **options}
    return jax.jit(
        lambda matrix, y: jacobian_norm(lambda seen: matrix @ seen, operator, y, **options)
    )(matrix, y)


# (size of the estimate, of the measurement): square, tall, wide
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(
    ("size", "measured", "space"),
    [(4, 4, "signal"), (6, 3, "signal"), (2, 5, "measurement"), (6, 3, "measurement")],
)
def test_is_the_largest_singular_value(size, measured, space, dtype):
    with precision(dtype):
        a = normal(0, measured, N, dtype=dtype)
        matrix, y = normal(1, size, measured, dtype=dtype), normal(2, measured, dtype=dtype)
        found = norm(matrix, dense(a), y, space=space)
        assert found.shape == () and found.dtype == jnp.float64
        exact = largest(matrix @ a if space == "signal" else matrix)
        near(found, exact, TOLERANCE["float64"])


def test_of_a_map_that_is_not_complex_linear():
    """Conjugation makes the Jacobian one of real and imaginary parts, with values of its own."""
    with jax.enable_x64(True):
        b, c = normal(0, 3, N, dtype="complex128"), normal(1, 3, N, dtype="complex128")
        found = jax.jit(
            lambda y: jacobian_norm(
                lambda seen: b @ seen + c @ seen.conj(),
                identity(),
                y,
                key=jax.random.key(0),
                num_iterations=300,
            )
        )(normal(2, N, dtype="complex128"))
        b, c = np.asarray(b), np.asarray(c)
        rows = [
            np.hstack([(b + c).real, -(b - c).imag]),
            np.hstack([(b + c).imag, (b - c).real]),
        ]
        near(found, largest(np.vstack(rows)), TOLERANCE["float64"])


def test_measurement_space_is_what_is_measured():
    """Of a reconstruction that also reads the pixels nobody measured, and reads them louder."""
    with jax.enable_x64(True):
        mask = np.array([[1, 0, 1], [0, 0, 1]], bool)
        gains = jnp.where(mask, jnp.arange(6.0).reshape(2, 3), 100.0)[..., None]
        y = normal(0, 2, 3, 1, dtype="float64") * mask[..., None]
        run = lambda space: jacobian_norm(
            lambda seen: gains * seen,
            inpainting(mask),
            y,
            key=jax.random.key(0),
            space=space,
            num_iterations=300,
        )
        for space in ("signal", "measurement"):
            near(run(space), 5.0, TOLERANCE["float64"])


def test_rises_to_the_norm_at_the_rate_of_the_gap():
    """`||J v||` after `k` iterations lacks a share of `(s_2 / s_1)^(4 k)`, and never overshoots."""
    ratio, counts = 0.9, [5, 10, 15, 20]
    with jax.enable_x64(True):
        matrix = jnp.diag(jnp.array([2.0, 2.0 * ratio, 0.1, 0.01]))
        y = jnp.zeros(N)
        missing = []
        for count in counts:
            missing.append(1 - float(norm(matrix, identity(), y, num_iterations=count)) / 2)
    assert min(missing) > 0
    slopes = np.diff(np.log(missing)) / np.diff(counts)
    # Once the second is far below the first it is a straight line; the first slopes are less steep.
    np.testing.assert_allclose(slopes[-1], 4 * np.log(ratio), rtol=0.05)
    assert np.all(np.diff(slopes) < 1e-6)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_gradient_to_the_weights(dtype):
    """`u^H dJ v` with the singular vectors, and differences of a network that is not linear."""
    with precision(dtype):
        matrix, y = normal(1, 3, N, dtype=dtype), normal(2, N, dtype=dtype)

        def run(reconstruct):
            key = jax.random.key(3)
            return jacobian_norm(reconstruct, identity(), y, key=key, num_iterations=300)

        of_weights = lambda matrix: run(lambda seen: matrix @ seen)
        u, _, v = np.linalg.svd(np.asarray(matrix))
        expected = np.outer(u[:, 0], v[0]).conj()  # df = Re sum(g dz)
        # The vectors converge half as fast as the value.
        near(jax.jit(jax.grad(of_weights))(matrix), expected, 1e-8)

        def bent(matrix):
            return run(lambda seen: matrix @ (seen * jnp.tanh(jnp.abs(matrix @ seen))))

        check_gradient(bent, normal(4, N, N, dtype=dtype) / 2)


def test_of_a_constant_it_is_zero_with_a_finite_gradient():
    run = lambda matrix: jacobian_norm(
        lambda seen: matrix @ seen, identity(), jnp.ones(N), key=jax.random.key(0)
    )
    value, gradient = jax.jit(jax.value_and_grad(run))(jnp.zeros((3, N)))
    assert value == 0 and np.isfinite(gradient).all()


def test_vmap_is_a_loop():
    ys = normal(0, 3, N)
    run = jax.jit(
        lambda y, seed: jacobian_norm(
            jnp.sin, identity(), y, key=jax.random.key(seed), num_iterations=5
        )
    )
    looped = [run(y, seed) for seed, y in enumerate(ys)]
    near(jax.vmap(run)(ys, jnp.arange(3)), looped, TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_iterations": 0}, "num_iterations must be at least 1, got 0"),
        ({"num_iterations": -3}, "num_iterations must be at least 1, got -3"),
        ({"space": "start"}, r"space must be one of \('measurement', 'signal'\), got 'start'"),
    ],
)
def test_errors_name_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        jacobian_norm(jnp.sin, identity(), jnp.ones(N), key=jax.random.key(0), **options)
