"""Every kind of jitter: its statistics, its derivative, its schedule."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, close, equal, near, normal

from jitter_jax.noise import normal_like
from jitter_jax.operators import identity
from jitter_jax.unroll import gradient_descent, jitter

KINDS = ("absolute", "relative", "unit_norm", "repo")
DRAWS = 4000
SHAPE = (5, 4)
# Five standard errors of a standard deviation estimated from all entries of all draws.
STATISTICAL = 5 / np.sqrt(2 * DRAWS * 20)


def draws(kind, sigma, iterate, k=0, num_iterations=1):
    """`(DRAWS, ...)` independent draws for one signal."""
    draw = getattr(jitter, kind)(sigma)
    one = lambda key: draw(key, iterate, jnp.int32(k), num_iterations)
    # One signal is a batch of one to the kind that looks at its batch.
    batch_of_one = lambda key: jax.vmap(one, axis_name="batch")(key[None])[0]
    return np.asarray(jax.jit(jax.vmap(batch_of_one))(jax.random.split(jax.random.key(1), DRAWS)))


def iterate_of(dtype):
    x = 3 * normal(0, *SHAPE, dtype=dtype)
    return x.at[0, 0].set(-20)  # the largest modulus is not the largest entry


def expected_std(kind, iterate):
    x = np.asarray(iterate)
    if kind == "unit_norm":
        return 1 / np.sqrt(x.size * (2 if np.iscomplexobj(x) else 1))
    largest = max(x.real.max(), x.imag.max()) if np.iscomplexobj(x) else x.max()
    return {"absolute": 1.0, "relative": np.abs(x).max(), "repo": largest}[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_statistics(kind, dtype):
    iterate = iterate_of(dtype)
    noise = draws(kind, 0.3, iterate)
    assert noise.dtype == dtype and noise.shape[1:] == SHAPE
    std = 0.3 * expected_std(kind, iterate)
    for part in (noise.real, noise.imag) if np.iscomplexobj(noise) else (noise,):
        np.testing.assert_allclose(part.std(), std, rtol=STATISTICAL)
        assert abs(part.mean()) < 5 * std / np.sqrt(part.size)
        # Entries of one draw are independent of each other: the variance of their sum adds up.
        np.testing.assert_allclose(part.sum((1, 2)).var() / std**2, 20, rtol=5 * np.sqrt(2 / DRAWS))
    if np.iscomplexobj(noise):
        correlation = np.mean(noise.real * noise.imag) / std**2
        assert abs(correlation) < 5 / np.sqrt(noise.size)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_unit_norm_has_the_mean_square_norm_of_its_name(dtype):
    noise = draws("unit_norm", 0.7, iterate_of(dtype))
    square = np.sum(np.abs(noise) ** 2, (1, 2))
    np.testing.assert_allclose(square.mean(), 0.7**2, rtol=5 * np.sqrt(2 / 20 / DRAWS))


@pytest.mark.parametrize("kind", KINDS)
def test_dtype_of_the_iterate_is_kept(kind):
    with jax.enable_x64(True):
        draw = getattr(jitter, kind)(0.1)
        for dtype in ("float32", "complex64", "float64", "complex128"):
            shaped = jax.eval_shape(
                jax.vmap(
                    lambda key, x, draw=draw: draw(key, x, jnp.int32(0), 1), axis_name="batch"
                ),
                jax.random.split(jax.random.key(0), 2),
                jnp.ones((2, *SHAPE), dtype),
            )
            assert shaped.dtype == dtype


def batch_draw(kind, iterates):
    draw = getattr(jitter, kind)(0.5)
    keys = jax.random.split(jax.random.key(3), len(iterates))
    return jax.vmap(lambda key, x: draw(key, x, jnp.int32(0), 1), axis_name="batch")(keys, iterates)


@pytest.mark.parametrize("kind", KINDS)
def test_only_repo_looks_at_the_neighbours(kind):
    iterates = jnp.abs(normal(0, 3, *SHAPE))
    other = iterates.at[2].multiply(100)
    before, after = batch_draw(kind, iterates), batch_draw(kind, other)
    if kind == "repo":
        ratio = float(other.max() / iterates.max())
        close(after, ratio * before)  # every signal's noise grew with one signal
    else:
        equal(after[:2], before[:2])


@pytest.mark.parametrize("kind", KINDS)
def test_only_repo_carries_a_gradient(kind):
    iterates = normal(0, 3, *SHAPE)
    weights = normal(1, 3, *SHAPE)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(weights * batch_draw(kind, x)))(iterates)
    largest = np.unravel_index(np.argmax(iterates), iterates.shape)
    expected = np.zeros(iterates.shape)
    if kind == "repo":
        expected[largest] = value / iterates[largest]  # the noise is proportional to the maximum
    near(gradient, expected, TOLERANCE["float32"])


def test_repo_maximum_is_signed():
    noise = batch_draw("repo", -jnp.ones((2, *SHAPE)))
    close(noise, -batch_draw("repo", jnp.ones((2, *SHAPE))))


def test_repo_takes_the_name_of_the_batch_axis():
    key, x = jax.random.split(jax.random.key(0), 2), jnp.ones((2, *SHAPE))
    draw = lambda key, x: jitter.repo(0.5, axis_name="other")(key, x, jnp.int32(0), 1)
    assert jax.vmap(draw, axis_name="other")(key, x).shape == x.shape
    with pytest.raises(NameError, match="other"):
        jax.vmap(draw, axis_name="batch")(jax.random.split(jax.random.key(0), 2), x)


@pytest.mark.parametrize("kind", KINDS)
def test_schedule_gives_the_level_of_its_iteration(kind):
    schedule = np.array([0.0, 0.5, 2.0])
    draw = getattr(jitter, kind)
    x = iterate_of("float32")[None]

    def at(k, level):
        return jax.vmap(lambda key, x: draw(level)(key, x, jnp.int32(k), 3), axis_name="batch")(
            jax.random.key(0)[None], x
        )

    for k, level in enumerate(schedule):
        close(at(k, schedule), at(k, level))


@pytest.mark.parametrize("kind", KINDS)
def test_levels_are_checked(kind):
    make = getattr(jitter, kind)
    for bad in (-0.1, float("nan"), float("inf"), [0.1, -0.2], np.ones((2, 2))):
        with pytest.raises(ValueError, match="sigma must be a finite non-negative number"):
            make(bad)
    for num_iterations in (2, 4):
        with pytest.raises(ValueError, match=f"3 levels.* {num_iterations} iterations"):
            jitter_once(make(np.ones(3)), jnp.ones(2), num_iterations)


def jitter_once(draw, y, num_iterations):
    """A jittered reconstruction of a batch of one."""

    def run(y, key):
        return gradient_descent(
            jnp.zeros_like,
            identity(),
            y,
            step_size=0.1,
            num_iterations=num_iterations,
            key=key,
            jitter=draw,
        )

    return jax.vmap(run, axis_name="batch")(y[None], jax.random.key(0)[None])


@pytest.mark.parametrize("eta", [0.05, 0.4, 1.0, 1.7])
def test_matched_jitter_satisfies_its_recursion(eta):
    levels = jitter.matched_jitter(0.8, eta, 9)
    assert levels.dtype == np.float32 and levels.shape == (9,)
    for k in range(9):
        total = sum(
            eta**2 * (1 - eta) ** (2 * (k - i)) * float(levels[i]) ** 2 for i in range(k + 1)
        )
        np.testing.assert_allclose(total, 0.8**2, rtol=TOLERANCE["float32"])


def test_matched_jitter_displaces_a_denoising_unroll_alike_after_every_iteration():
    eta, sigma_g, num_iterations = 0.4, 0.8, 5
    draw = jitter.unit_norm(jitter.matched_jitter(sigma_g, eta, num_iterations))
    y = normal(0, *SHAPE)

    def run(**options):
        return gradient_descent(
            jnp.zeros_like,
            identity(),
            y,
            step_size=eta,
            num_iterations=num_iterations,
            return_trajectory=True,
            **options,
        )

    noisy = jax.jit(jax.vmap(lambda key: run(key=key, jitter=draw)))
    displacement = noisy(jax.random.split(jax.random.key(0), DRAWS)) - run()[None]
    square = np.mean(np.sum(np.square(displacement), (2, 3)), 0)
    assert square[0] == 0
    np.testing.assert_allclose(square[1:], sigma_g**2, rtol=5 * np.sqrt(2 / 20 / DRAWS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 0.5, 3), "sigma_g must be finite and non-negative, got -1.0"),
        ((float("inf"), 0.5, 3), "sigma_g must be finite and non-negative, got inf"),
        ((1.0, 0.0, 3), "step_size must lie between 0 and 2, got 0.0"),
        ((1.0, 2.0, 3), "step_size must lie between 0 and 2, got 2.0"),
        ((1.0, 0.5, 0), "num_iterations must be at least 1, got 0"),
    ],
)
def test_matched_jitter_errors_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        jitter.matched_jitter(*arguments)


def replay(recorded, iterates, k, sigma=0.5, num_iterations=3, seed=0):
    """`repo` on a batch, each signal with its own record `(batch, K, ...)`."""

    def one(recorded, x, key):
        draw = jitter.repo(sigma, recorded=recorded)
        return draw(key, x, jnp.int32(k), num_iterations)

    keys = jax.random.split(jax.random.key(seed), len(iterates))
    return jax.jit(jax.vmap(one, axis_name="batch"))(recorded, iterates, keys)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_recorded_normals_are_replayed(dtype):
    iterates = normal(0, 2, *SHAPE, dtype=dtype)
    recorded = normal(1, 2, 3, *SHAPE, dtype=dtype)
    largest = max(np.asarray(iterates).real.max(), np.asarray(iterates).imag.max())
    schedule = np.array([0.5, 0.0, 2.0])
    for k in range(3):
        close(replay(recorded, iterates, k), 0.5 * largest * recorded[:, k])
        close(replay(recorded, iterates, k, schedule), schedule[k] * largest * recorded[:, k])
    equal(replay(recorded, iterates, 1, seed=1), replay(recorded, iterates, 1, seed=2))


def test_recorded_normals_take_the_type_of_the_iterate():
    with jax.enable_x64(True):
        recorded = np.random.default_rng(0).normal(size=(1, 3, *SHAPE))
        for dtype in ("float32", "float64"):
            assert replay(recorded, jnp.ones((1, *SHAPE), dtype), 0).dtype == dtype


def test_recorded_normals_keep_the_gradient_of_the_maximum():
    iterates, recorded = normal(0, 2, *SHAPE), normal(1, 2, 3, *SHAPE)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(replay(recorded, x, 2) ** 2))(iterates)
    expected = np.zeros(iterates.shape)
    largest = np.unravel_index(np.argmax(iterates), iterates.shape)
    expected[largest] = 2 * value / iterates[largest]  # the square of what the maximum scales
    near(gradient, expected, TOLERANCE["float32"])


def test_a_recorded_run_is_the_same_reconstruction():
    recorded, y = normal(0, 4, *SHAPE), normal(1, *SHAPE)
    eta, sigma = 0.3, 0.2

    def run(y, key):
        return gradient_descent(
            jnp.zeros_like,
            identity(),
            y,
            step_size=eta,
            num_iterations=4,
            start=jnp.ones_like(y),
            key=key,
            jitter=jitter.repo(sigma, recorded=recorded),
        )

    x = np.ones(SHAPE)
    for w in np.asarray(recorded):
        stepped = x - eta * (x - np.asarray(y))
        x = stepped - eta * sigma * stepped.max() * w
    actual = jax.vmap(run, axis_name="batch")(y[None], jax.random.key(0)[None])[0]
    near(actual, x, TOLERANCE["float32"])


@pytest.mark.parametrize("shape", [(2, *SHAPE), (4, *SHAPE), SHAPE, (3, 1, 4), (3, 5, 4, 1), ()])
def test_recorded_normals_of_another_shape_are_refused(shape):
    message = rf"recorded must have shape \(3, 5, 4\).* got {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=message):
        replay(jnp.ones((1, *shape)), jnp.ones((1, *SHAPE)), 0)
    with pytest.raises(ValueError, match="recorded must have shape"):
        jitter_once(jitter.repo(0.1, recorded=np.ones((3, 2))), jnp.ones(2), num_iterations=4)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_normal_like_draws_each_part_with_standard_deviation_one(dtype):
    with jax.enable_x64(True):
        like = jnp.zeros((DRAWS, 20), dtype)
        noise = np.asarray(jax.jit(normal_like)(jax.random.key(0), like))
        assert noise.dtype == dtype and noise.shape == like.shape
        parts = (noise.real, noise.imag) if np.iscomplexobj(noise) else (noise,)
        for part in parts:
            np.testing.assert_allclose(part.std(), 1, rtol=STATISTICAL)
            assert abs(part.mean()) < 5 / np.sqrt(part.size)
        assert abs(np.mean(parts[0] * parts[-1]) - (len(parts) == 1)) < 5 * np.sqrt(2 / noise.size)


def test_normal_like_of_real_and_of_empty_arrays():
    x = jnp.zeros(SHAPE)
    equal(normal_like(jax.random.key(3), x), jax.random.normal(jax.random.key(3), SHAPE))
    assert normal_like(jax.random.key(0), jnp.zeros((0, 2), "complex64")).shape == (0, 2)
