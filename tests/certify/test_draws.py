"""Numbered draws of Gaussian noise, of the right size in the right place, in flat memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Pointwise, close, counted, equal, near, normal

from jitter_jax.certify import Budget, certified_discrepancy, draw, freeze, median_rank, statistics
from jitter_jax.operators import cartesian_mri, dense, identity, inpainting
from jitter_jax.smoothing import Smoothing
from jitter_jax.unroll import end_to_end, gradient_descent, scalar, unrolled

SPACES = ("signal", "measurement")
SIGMA = 0.3
MASK = np.random.default_rng(0).uniform(size=(4, 5)) < 0.5


def key(seed=0):
    return jax.random.key(seed)


@pytest.mark.parametrize(
    ("space", "dtype"),
    [("signal", "float32"), ("signal", "complex64"), ("measurement", "complex64")],
)
def test_the_noise_has_the_documented_covariance(space, dtype):
    samples = 20_000
    matrix, y = normal(1, 3, 4, dtype=dtype), normal(2, 3, dtype=dtype)
    values = statistics(
        lambda u: u,
        dense(matrix),
        y,
        sigma=SIGMA,
        num_samples=samples,
        key=key(),
        space=space,
        chunk=samples,
    )
    matrix, noise = np.asarray(matrix), np.asarray(values - y[None])
    parts = 2 if dtype == "complex64" else 1  # sigma is that of each part
    shape = np.eye(3) if space == "measurement" else matrix @ matrix.conj().T
    # Monte Carlo: 5 standard errors of the largest entry are 5 sqrt(2 / samples).
    near(noise.T @ noise.conj() / samples, parts * SIGMA**2 * shape, 0.05)
    near(noise.mean(0) + np.asarray(y), np.asarray(y), 0.05)
    if parts == 2:  # real and imaginary part are alike and independent
        assert np.abs(noise.T @ noise).max() / samples < 0.05 * parts * SIGMA**2 * shape.real.max()


@pytest.mark.parametrize(
    ("operator", "dtype", "measured"),
    [
        (inpainting(MASK), "float32", MASK),
        (cartesian_mri(MASK), "complex64", MASK),
        (identity(), "float32", np.ones_like(MASK)),
    ],
    ids=["inpainting", "mri", "identity"],
)
@pytest.mark.parametrize("space", SPACES)
def test_only_measured_points_are_noisy(space, operator, dtype, measured):
    y = operator.forward(normal(3, *MASK.shape, 1, dtype=dtype))
    noisy = draw(lambda u: u, operator, y, sigma=SIGMA, key=key(), number=2, space=space)
    assert noisy.dtype == y.dtype
    np.testing.assert_array_equal(noisy[..., 0] != y[..., 0], measured)


@pytest.mark.parametrize("space", SPACES)
def test_a_draw_is_f_of_the_noisy_measurement(space):
    operator = dense(normal(4, 3, 4))
    y, f = normal(5, 3), lambda u: jnp.tanh(operator.adjoint(u))
    settings = {"sigma": SIGMA, "space": space}
    for number in (0, 3):
        noisy = draw(lambda u: u, operator, y, key=key(), number=number, **settings)
        estimate = draw(f, operator, y, key=key(), number=number, **settings)
        close(estimate, f(noisy))
    values = statistics(f, operator, y, num_samples=5, key=key(), statistic=jnp.sum, **settings)
    assert values.shape == (5,)
    close(values[3], jnp.sum(estimate))
    equal(draw(f, operator, y, key=key(), number=3, sigma=0.0, space=space), f(y))


def test_draws_depend_neither_on_the_chunk_nor_on_the_number_of_samples():
    operator = inpainting(MASK)
    y = operator.forward(normal(6, *MASK.shape, 1))

    def values(num_samples, chunk):
        return statistics(
            lambda u: u + 1,
            operator,
            y,
            sigma=SIGMA,
            num_samples=num_samples,
            key=key(),
            chunk=chunk,
        )

    expected = values(20, 32)
    assert len(np.unique(np.asarray(expected)[:, MASK], axis=0)) == 20
    for num_samples, chunk in [(7, 3), (6, 1)]:
        equal(values(num_samples, chunk), expected[:num_samples])


def test_one_program_serves_all_sigmas_measurements_and_keys():
    operator = dense(normal(4, 3, 4))
    f, calls = counted(jnp.tanh)

    @jax.jit
    def values(operator, y, sigma, key):
        return statistics(f, operator, y, sigma=sigma, num_samples=7, key=key, chunk=3)

    first = values(operator, normal(5, 3), 0.1, key())
    traced = len(calls)
    assert traced > 0
    for seed, sigma in enumerate((0.1, 0.2, 5.0)):
        found = values(operator, normal(5 + seed, 3), sigma, key(seed))
    assert len(calls) == traced
    assert not np.allclose(found, first)
    eager = statistics(
        jnp.tanh, operator, normal(7, 3), sigma=5.0, num_samples=7, key=key(2), chunk=3
    )
    close(found, eager)


def test_one_program_certifies_many_images():
    f, calls = counted(jnp.tanh)
    budget = Budget(0.1, 0.3, num_samples=20, pixel_range=None)

    @jax.jit
    def bound(y, key):
        return certified_discrepancy(f, identity(), y, budget=budget, key=key).bound

    bound(normal(0, 4), key())
    traced = len(calls)
    bounds = [float(bound(normal(seed, 4), key(seed))) for seed in range(1, 5)]
    assert len(calls) == traced and len(set(bounds)) == 4


def test_a_frozen_reconstructor_is_one_function():
    operator = inpainting(MASK)
    y = operator.forward(normal(7, *MASK.shape, 1))
    bare = unrolled(gradient_descent, Pointwise, {"step_size": scalar.fixed(0.4)}, num_iterations=2)
    params = bare.init(key(), operator, y)
    smug = end_to_end(bare, Smoothing(0.3, 2))
    f = freeze(smug, params, operator, key=key(1))
    expected = smug.apply(params, operator, y, smoothing_key=key(1))
    equal(f(y), expected)
    equal(f(y), expected)
    # Without noise outside all draws are f(y): the noise inside does not change from draw to draw.
    values = statistics(f, operator, y, sigma=0.0, num_samples=3, key=key(), chunk=2)
    close(values, jnp.stack([expected] * 3))
    assert not np.allclose(freeze(smug, params, operator, key=key(2))(y), expected)
    # Without noise inside the key has no effect.
    equal(freeze(bare, params, operator, key=key(1))(y), bare.apply(params, operator, y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"num_samples": -3}, "num_samples must be at least 1, got -3"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
        ({"chunk": -1}, "chunk must be at least 1, got -1"),
    ],
)
def test_refused(arguments, message):
    settings = {"sigma": 0.1, "num_samples": 4, "key": key()} | arguments
    with pytest.raises(ValueError, match=message):
        statistics(jnp.tanh, identity(), jnp.zeros(3), **settings)


def test_the_median_is_one_of_the_draws():
    assert [median_rank(samples) for samples in (1, 2, 3, 4, 1000)] == [1, 1, 2, 2, 500]


def discrepancy_at(num_samples, y, key):
    budget = Budget(0.05, 0.1, num_samples=num_samples)
    return certified_discrepancy(jnp.tanh, identity(), y, budget=budget, key=key).bound


def losses_at(num_samples, y, key):
    settings = {"sigma": 0.1, "num_samples": num_samples, "key": key}
    return statistics(jnp.tanh, identity(), y, statistic=jnp.mean, **settings)


@pytest.mark.parametrize("certify", [losses_at, discrepancy_at])
def test_memory_is_flat_in_the_number_of_samples(certify):
    image = jax.ShapeDtypeStruct((64, 64, 1), "float32")

    def temporaries(num_samples):
        program = jax.jit(lambda y, key: certify(num_samples, y, key))
        analysis = program.lower(image, key()).compile().memory_analysis()
        if analysis is None:
            pytest.skip("this backend does not tell what memory a program takes")
        return analysis.temp_size_in_bytes

    few, many = temporaries(64), temporaries(1024)
    assert few >= image.size * 4
    # The losses, their order and what sorts them; an image for each draw would take 16384 bytes.
    assert many - few <= 16 * (1024 - 64)
