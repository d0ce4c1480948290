"""Averages over Gaussian noise: closed forms, weights, chunks and their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, check_gradient, close, counted, equal, near, normal, precision

from jitter_jax.networks.layers import Conv, keep_costly
from jitter_jax.smoothing import (
    Smoothing,
    check_samples,
    chunk_for_memory,
    keep_averages,
    monte_carlo,
    smooth,
)

DRAWS = 4000
KEY = 3


def key():
    """A fresh handle of one key: the tests use its draws more than once on purpose."""
    return jax.random.key(KEY)


def copies(smoothing, x):
    """The noisy copies that are averaged, written again."""
    numbers = range(smoothing.num_samples)
    return [smoothing.perturb(jax.random.fold_in(key(), s), x) for s in numbers]


def cubic(x):
    return jnp.sin(x) * jnp.sum(x**2)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_mean_of_a_linear_and_of_a_quadratic_function(dtype):
    """`E (x + w) = x` and `E |x + w|^2 = |x|^2 + parts sigma^2`, within five standard errors."""
    sigma, x = 0.3, normal(0, 6, dtype=dtype)
    parts = 2 if dtype == "complex64" else 1
    run = lambda function: np.asarray(
        jax.jit(smooth(function, Smoothing(sigma, DRAWS, chunk=500)))(x, key())
    )
    error = 5 * sigma / np.sqrt(DRAWS)
    linear = run(lambda x: 2 * x) - 2 * np.asarray(x)
    assert 0 < np.abs(linear.real).max() < 2 * error and np.abs(linear.imag).max() < 2 * error
    # The variance of |x + w|^2 is 4 sigma^2 |x|^2 + 2 parts sigma^4.
    size = np.abs(np.asarray(x)) ** 2
    deviation = np.sqrt((4 * sigma**2 * size + 2 * parts * sigma**4) / DRAWS)
    quadratic = run(lambda x: jnp.square(jnp.abs(x)))
    assert (np.abs(quadratic - size - parts * sigma**2) < 5 * deviation).all()
    assert (5 * deviation < parts * sigma**2).mean() > 0.5  # or the noise would not show


def test_without_noise_it_is_the_function():
    x = normal(0, 5)
    # A power of two: the mean of equal numbers is then exact.
    equal(smooth(cubic, Smoothing(0.0, 4))(x, key()), cubic(x))
    weighted = smooth(cubic, Smoothing(0.0, 3), weight=lambda x: jnp.sum(x**2))
    near(weighted(x, key()), cubic(x), TOLERANCE["float32"])


def test_mean_of_the_noisy_copies_weighted_or_not():
    smoothing, x = Smoothing(0.4, 5), normal(0, 4)
    values = np.stack([cubic(c) for c in copies(smoothing, x)])
    plain = values.mean(axis=0)
    near(smooth(cubic, smoothing)(x, key()), plain, TOLERANCE["float32"])
    for constant in (0.2, 1.0):
        weighted = smooth(cubic, smoothing, weight=lambda _, c=constant: jnp.float32(c))
        near(weighted(x, key()), plain, TOLERANCE["float32"])
    weight = lambda x: jax.nn.sigmoid(3 * jnp.sum(x))
    shares = np.array([weight(c) for c in copies(smoothing, x)])
    assert np.ptp(shares) > 0.1
    expected = (shares[:, None] * values).sum(0) / shares.sum()
    near(smooth(cubic, smoothing, weight=weight)(x, key()), expected, TOLERANCE["float32"])


def test_a_weight_can_pick_one_copy_or_none():
    smoothing, x = Smoothing(0.4, 4), normal(0, 3)
    chosen = copies(smoothing, x)[2]
    pick = lambda x: jnp.all(jnp.abs(x - chosen) < 1e-6).astype(jnp.float32)
    near(smooth(cubic, smoothing, weight=pick)(x, key()), cubic(chosen), TOLERANCE["float32"])
    none = smooth(cubic, smoothing, weight=lambda x: jnp.float32(0))
    equal(none(x, key()), np.zeros(3, np.float32))  # not NaN


@pytest.mark.parametrize("weighted", [False, True])
def test_chunks_change_neither_value_nor_gradient(weighted):
    x = normal(0, 4, dtype="complex64")
    weight = (lambda x, w: jax.nn.sigmoid(w * jnp.sum(x.real))) if weighted else None

    def run(chunk):
        def loss(x, scale):
            smoothed = smooth(
                lambda x: jax.lax.complex(jnp.sin(scale * x.real), x.imag**3),
                Smoothing(0.3, 7, chunk),
                weight=None if weight is None else lambda x: weight(x, scale),
                probe=lambda value, x: {"gap": jnp.sum(jnp.square(jnp.abs(value - x)))},
            )
            mean, probed = smoothed(x, key())
            return jnp.sum(jnp.square(jnp.abs(mean))) + probed["gap"], mean

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, jnp.float32(1.3))

    whole = run(None)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(whole))
    for chunk in (3, 100):  # with a remainder, and more than there are
        close(run(chunk), whole)


def test_samples_do_not_depend_on_how_many_there_are():
    draw = lambda key: jax.random.normal(key, (3,))
    first = [draw(jax.random.fold_in(key(), s)) for s in range(6)]
    for count, chunk in ((1, None), (4, None), (4, 3), (6, 4)):
        mean = monte_carlo(draw, key(), num_samples=count, chunk=chunk)
        near(mean, np.mean(first[:count], axis=0), TOLERANCE["float32"])


def test_every_key_of_a_tree_is_folded():
    def draw(keys):
        one, other = keys["one"], keys["other"]
        assert other is None
        return {"one": jax.random.normal(one), "two": jnp.int32(2)}

    mean = monte_carlo(draw, {"one": key(), "other": None}, num_samples=2)
    expected = np.mean([jax.random.normal(jax.random.fold_in(key(), s)) for s in (0, 1)])
    near(mean["one"], expected, TOLERANCE["float32"])
    assert mean["two"] == 2


def test_noise_of_complex_entries_has_its_level_in_each_part():
    x = jnp.full(20_000, 1 + 2j, jnp.complex64)
    noise = np.asarray(Smoothing(0.2).perturb(key(), x)) - np.asarray(x)
    assert noise.real.std() == pytest.approx(0.2, rel=0.03)
    assert noise.imag.std() == pytest.approx(0.2, rel=0.03)
    assert abs(np.mean(noise.real * noise.imag)) < 5 * 0.2**2 / np.sqrt(noise.size)


def test_clamp_cuts_each_noisy_part():
    x, key_of_noise = 0.9 * normal(0, 500, dtype="complex64"), key()
    free = np.asarray(Smoothing(0.5).perturb(key_of_noise, x))
    cut = Smoothing(0.5, clamp=1.0).perturb(key(), x)
    assert cut.dtype == jnp.complex64
    equal(cut, np.clip(free.real, -1, 1) + 1j * np.clip(free.imag, -1, 1))
    assert 0.1 < np.mean(np.abs(free.real) > 1) < 0.9
    real = Smoothing(0.5, clamp=0.3).perturb(key(), normal(0, 50))
    assert float(jnp.abs(real).max()) == np.float32(0.3)


def test_no_noise_outside_the_support():
    x, support = normal(0, 4, 3), jnp.array([[True], [False], [True], [False]])
    noisy = np.asarray(Smoothing(0.5).perturb(key(), x, support))
    moved = noisy != np.asarray(x)
    equal(moved, np.broadcast_to(support, moved.shape))


def test_probe_is_averaged_without_weights():
    smoothing, x = Smoothing(0.4, 5), normal(0, 4)
    probe = lambda value, x: (jnp.sum(value * x), value)
    smoothed = smooth(cubic, smoothing, weight=lambda x: jnp.exp(jnp.sum(x)), probe=probe)
    mean, (product, plain) = smoothed(x, key())
    values = np.stack([cubic(c) for c in copies(smoothing, x)])
    near(plain, values.mean(axis=0), TOLERANCE["float32"])
    near(product, (values @ np.asarray(x)).mean(), TOLERANCE["float32"])
    assert float(jnp.abs(mean - plain).max()) > 0.01


def test_gradient_in_float64():
    with precision("float64"):
        smoothing = Smoothing(0.3, 5, chunk=2)
        weight = lambda x: jax.nn.sigmoid(jnp.sum(x))
        run = lambda x: smooth(cubic, smoothing, weight=weight)(x, key())
        x = normal(0, 4, dtype="float64")
        assert run(x).dtype == jnp.float64
        check_gradient(lambda x: jnp.sum(run(x) ** 2), x)


class Costly:
    """Two convolutions whose results `keep_costly` keeps."""

    layers = (Conv(16), Conv(16))

    @classmethod
    def init(cls, x):
        keys = jax.random.split(jax.random.key(0))
        return [layer.init(k, x) for layer, k in zip(cls.layers, keys, strict=True)]

    @classmethod
    def apply(cls, params, x):
        for layer, own in zip(cls.layers, params, strict=True):
            x = jnp.tanh(layer.apply(own, x))
        return x


IMAGE = jax.ShapeDtypeStruct((16, 16, 16), jnp.float32)


def temporaries(num_samples, chunk, remat=None):
    """Bytes that the gradient of a smoothed network needs, once or in three iterations."""

    def loss(params, x):
        smoothed = smooth(lambda x: Costly.apply(params, x), Smoothing(0.1, num_samples, chunk))
        if remat is None:
            return jnp.sum(smoothed(x, key()) ** 2)
        step = lambda x, k: (smoothed(x, jax.random.fold_in(key(), k)), None)
        step = jax.checkpoint(step, prevent_cse=False, policy=remat)
        return jnp.sum(jax.lax.scan(step, x, jnp.arange(3))[0] ** 2)

    params = jax.eval_shape(Costly.init, IMAGE)
    compiled = jax.jit(jax.grad(loss)).lower(params, IMAGE).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_chunks_bound_the_memory():
    few, many = (temporaries(count, 4) for count in (8, 32))
    assert many < 1.05 * few
    assert temporaries(32, None) > 3 * many
    # Inside rematerialised iterations a policy reaches into the chunks.
    few, many = (temporaries(count, 4, keep_averages) for count in (8, 32))
    assert many < 1.05 * few
    assert temporaries(32, 4, keep_costly) > 1.5 * many


def test_chunk_for_memory_follows_the_budget():
    params = jax.eval_shape(Costly.init, IMAGE)
    function, calls = counted(lambda tree: Costly.apply(*tree))

    def chunk(budget_bytes, num_samples=10**9):
        return chunk_for_memory(
            function, (params, IMAGE), budget_bytes=budget_bytes, num_samples=num_samples
        )

    assert chunk(1.0) == 1
    assert chunk(1e15, 50) == 50
    half, whole = chunk(5e6), chunk(1e7)
    assert 1 < half < whole < 10**9 and abs(whole - 2 * half) <= 1
    # What it says of one sample is what the samples of a chunk need.
    assert temporaries(whole, None) == pytest.approx(1e7, rel=0.5)
    before = len(calls)
    for budget in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="budget_bytes must be positive"):
            chunk(budget)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        chunk(1.0, 0)
    assert len(calls) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Smoothing(-0.1), "sigma must be finite and non-negative, got -0.1"),
        (lambda: Smoothing(float("nan")), "sigma must be finite and non-negative, got nan"),
        (lambda: Smoothing(float("inf")), "sigma must be finite and non-negative, got inf"),
        (lambda: Smoothing(0.1, 0), "num_samples must be at least 1, got 0"),
        (lambda: Smoothing(0.1, chunk=0), "chunk must be at least 1 or None, got 0"),
        (lambda: Smoothing(0.1, clamp=0.0), "clamp must be positive or None, got 0.0"),
        (lambda: Smoothing(0.1, clamp=float("nan")), "clamp must be positive or None, got nan"),
        (lambda: monte_carlo(jnp.sum, key(), num_samples=-1), "num_samples .* got -1"),
        (lambda: monte_carlo(jnp.sum, key(), num_samples=1, chunk=0), "chunk .* got 0"),
        (lambda: check_samples(0, 1), "num_samples must be at least 1, got 0"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
