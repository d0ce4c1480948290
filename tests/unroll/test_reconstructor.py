"""Reconstructors: parameters, step sizes, the start, and complex signals through real channels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import TOLERANCE, close, equal, near, normal

from jitter_jax.networks import DnCNN, SeismicCNN
from jitter_jax.networks.layers import keep_costly
from jitter_jax.operators import convolution, dense
from jitter_jax.smoothing import Smoothing
from jitter_jax.unroll import (
    from_channels,
    gradient_descent,
    jitter,
    proximal_gradient,
    scalar,
    to_channels,
    unrolled,
)

ETA = 0.1
SHAPE = (6, 5, 1)


class Pointwise(nn.Module):
    """One linear map of the channels; it remembers nothing of its neighbours."""

    out_channels: int

    @nn.compact
    def __call__(self, x):
        return jnp.tanh(nn.Dense(self.out_channels)(x))


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def shapes_of(reconstructor, operator, y):
    return jax.eval_shape(reconstructor.init, jax.random.key(0), operator, y)


@pytest.mark.parametrize(
    ("network", "sees_measurement", "dtype", "expected"),
    [
        (SeismicCNN(), True, "float32", 19_587 + 1),
        (DnCNN(8, 64), False, "complex64", 224_256 + 1),
        (DnCNN(8, 64, out_channels=1), True, "float32", 223_680 + 1),
    ],
)
def test_parameter_counts_of_the_published_networks(network, sees_measurement, dtype, expected):
    reconstructor = unrolled(
        gradient_descent,
        network,
        {"step_size": scalar.sigmoid()},
        sees_measurement=sees_measurement,
    )
    params = shapes_of(reconstructor, convolution(), jnp.zeros((16, 16, 1), dtype))
    assert count(params) == expected


@pytest.mark.parametrize(
    ("made", "init", "value"),
    [
        (scalar.exponential(), -1.0, 0.3679),
        (scalar.sigmoid(), -1.0, 0.02689),
        (scalar.exponential(0.5), 0.5, np.exp(0.5)),
        (scalar.sigmoid(0.0, scale=3.0), 0.0, 1.5),
    ],
)
def test_learned_step_sizes(made, init, value):
    assert made.init == init
    np.testing.assert_allclose(made.value(jnp.float32(init)), value, rtol=2e-4)  # printed digits
    slope = jax.grad(made.value)(jnp.float32(init))
    assert slope > 0


def test_fixed_step_size_is_no_parameter():
    reconstructor = unrolled(gradient_descent, Pointwise(1), {"step_size": scalar.fixed(0.3)})
    assert set(shapes_of(reconstructor, convolution(), jnp.ones(SHAPE))) == {"network"}
    assert scalar.fixed(0.3).value(None) == jnp.float32(0.3)
    learned = unrolled(gradient_descent, Pointwise(1), {"step_size": scalar.exponential()})
    params = learned.init(jax.random.key(0), convolution(), jnp.ones(SHAPE))
    assert set(params) == {"network", "step_size"} and params["step_size"] == -1


def loop(method, f, eta, operator, y, start, num_iterations):
    """The two unrolls, written again."""
    x = start
    for _ in range(num_iterations):
        gradient = operator.adjoint(operator.forward(x) - y)
        x = x - eta * (gradient + f(x)) if method is gradient_descent else f(x - eta * gradient)
    return x


@pytest.mark.parametrize(
    ("method", "sees_measurement", "start", "dtype"),
    [
        (gradient_descent, False, "adjoint", "float32"),
        (gradient_descent, True, "measurement", "float32"),
        (gradient_descent, True, "adjoint", "complex64"),
        (proximal_gradient, True, "adjoint", "float32"),
        (proximal_gradient, False, "measurement", "complex64"),
    ],
)
def test_apply_equals_a_loop_at_any_number_of_iterations(method, sees_measurement, start, dtype):
    network = Pointwise(2 if dtype == "complex64" else 1)
    operator, y = convolution(normal(0, 4, dtype=dtype) / 2), normal(1, *SHAPE, dtype=dtype)
    reconstructor = unrolled(
        method,
        network,
        {"step_size": scalar.exponential(np.log(ETA))},
        num_iterations=3,
        start=start,
        sees_measurement=sees_measurement,
    )
    params = reconstructor.init(jax.random.key(0), operator, y)

    def learned(x):
        parts = [y, x] if sees_measurement else [x]
        # First y then x, of each all real parts before all imaginary parts.
        real = [
            p for part in parts for p in ([part.real, part.imag] if network_is_wide else [part])
        ]
        out = network.apply(params["network"], jnp.concatenate(real, -1))
        return out[..., :1] + 1j * out[..., 1:] if network_is_wide else out

    network_is_wide = dtype == "complex64"
    x_0 = operator.adjoint(y) if start == "adjoint" else y
    run = jax.jit(reconstructor.apply, static_argnames="num_iterations")
    for number in (None, 5):
        expected = loop(method, learned, jnp.float32(ETA), operator, y, x_0, number or 3)
        close(run(params, operator, y, num_iterations=number), expected)


def test_key_jitter_and_trajectory_reach_the_method():
    operator, y = convolution(), normal(1, *SHAPE)
    reconstructor = unrolled(
        gradient_descent,
        Pointwise(1),
        {"step_size": scalar.fixed(0.1)},
        num_iterations=4,
        start="measurement",
    )
    params = reconstructor.init(jax.random.key(0), operator, y)
    clean = reconstructor.apply(params, operator, y, return_trajectory=True)
    assert clean.shape == (5, *SHAPE)
    equal(clean[0], y)
    noisy = reconstructor.apply(
        params,
        operator,
        y,
        key=jax.random.key(1),
        jitter=lambda key, x, k, total: jnp.full_like(x, k + 10 * total),
        return_trajectory=True,
    )
    near(clean[1] - noisy[1], np.full(SHAPE, 0.1 * 40), 10 * TOLERANCE["float32"])  # cancellation
    with pytest.raises(ValueError, match="key came without jitter"):
        reconstructor.apply(params, operator, y, key=jax.random.key(0))
    with pytest.raises(ValueError, match="4 iterations"):
        draw = jitter.absolute(np.ones(3))
        reconstructor.apply(params, operator, y, key=jax.random.key(0), jitter=draw)


def test_step_size_is_learned():
    operator, y = dense(normal(0, 3, 6) / 3), normal(1, 3, 1)
    reconstructor = unrolled(gradient_descent, Pointwise(1), {"step_size": scalar.sigmoid()})
    params = reconstructor.init(jax.random.key(0), operator, y)
    gradient = jax.grad(lambda p: jnp.sum(reconstructor.apply(p, operator, y) ** 2))(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))


def test_channels_of_complex_signals():
    z = normal(0, 3, 2, dtype="complex64")
    channels = to_channels(z)
    equal(channels, jnp.stack([z[:, 0].real, z[:, 1].real, z[:, 0].imag, z[:, 1].imag], -1))
    equal(from_channels(channels, like=z), z)
    x = normal(0, 3, 2)
    assert to_channels(x) is x and from_channels(x, like=x) is x


def test_reconstruction_of_a_batch_by_vmap():
    operator, ys = convolution(), normal(1, 3, *SHAPE)
    reconstructor = unrolled(proximal_gradient, Pointwise(1), {"step_size": scalar.fixed(0.1)})
    params = reconstructor.init(jax.random.key(0), operator, ys[0])
    run = jax.jit(lambda y: reconstructor.apply(params, operator, y))
    close(jax.vmap(run)(ys), jnp.stack([run(y) for y in ys]))


@pytest.mark.parametrize("method", [gradient_descent, proximal_gradient])
@pytest.mark.parametrize(
    ("dtype", "out_channels", "got"),
    [("float32", 2, r"\(6, 5, 2\) float32"), ("complex64", 4, r"\(6, 5, 2\) complex64")],
)
def test_network_of_too_many_channels_is_refused(method, dtype, out_channels, got):
    operator, y = convolution(), normal(1, *SHAPE, dtype=dtype)
    reconstructor = unrolled(method, Pointwise(out_channels), {"step_size": scalar.fixed(0.1)})
    params = reconstructor.init(jax.random.key(0), operator, y)
    with pytest.raises(ValueError, match=rf"learned_step .*\(6, 5, 1\) {dtype}, got {got}"):
        reconstructor.apply(params, operator, y)


def test_method_with_its_own_factor_of_the_jitter():
    operator, y = convolution(), normal(1, *SHAPE)
    ones = lambda key, x, k, total: jnp.ones_like(x)

    def moved(method):
        reconstructor = unrolled(
            method, Pointwise(1), {"step_size": scalar.fixed(0.1)}, num_iterations=1
        )
        params = reconstructor.init(jax.random.key(0), operator, y)
        return reconstructor.apply(params, operator, y, key=jax.random.key(1), jitter=ones)

    equal(moved(proximal_gradient), moved(partial(proximal_gradient, noise_step_size=0.1)))
    other = moved(partial(proximal_gradient, noise_step_size=0.5))
    assert float(jnp.abs(other - moved(proximal_gradient)).max()) > 0.01


class Brightness(nn.Module):
    """Weighs a copy by its mean."""

    @nn.compact
    def __call__(self, x):
        return nn.sigmoid(nn.Dense(1)(jnp.mean(x, (0, 1))))[0]


def smoothed(sigma=0.3, num_samples=4, *, weighted=False, **options):
    smoothing = Smoothing(sigma, num_samples, options.pop("chunk", None))
    return unrolled(
        proximal_gradient,
        Pointwise(2),
        {"step_size": scalar.fixed(ETA)},
        **{"num_iterations": 2, **options},
        smoothing=smoothing,
        weight_network=Brightness() if weighted else None,
    )


SMOOTHING_KEY = 4
COMPLEX = "complex64"


def smoothed_problem(weighted):
    operator, y = convolution(normal(0, 4, dtype=COMPLEX) / 2), normal(1, *SHAPE, dtype=COMPLEX)
    params = smoothed(weighted=weighted).init(jax.random.key(0), operator, y)
    return params, operator, y


@pytest.mark.parametrize("weighted", [False, True])
def test_smoothed_steps_equal_a_loop_at_any_number_of_iterations(weighted):
    """Every step and every sample has noise of its own, from the step's and the sample's number."""
    params, operator, y = smoothed_problem(weighted)
    assert set(params) == ({"network", "weight"} if weighted else {"network"})
    reconstructor = smoothed(weighted=weighted, chunk=3)
    bare = unrolled(proximal_gradient, Pointwise(2), {"step_size": scalar.fixed(ETA)})
    probe = lambda value, x: jnp.sum(jnp.abs(value - x))

    def loop(num_iterations):
        x, probed = operator.adjoint(y), []
        for k in range(num_iterations):
            step_key = jax.random.fold_in(jax.random.key(SMOOTHING_KEY), k)
            x = x - ETA * operator.adjoint(operator.forward(x) - y)
            values, weights = [], []
            for s in range(4):
                noisy = reconstructor.smoothing.perturb(jax.random.fold_in(step_key, s), x)
                values.append(np.asarray(bare.learned_step(params, noisy)))
                weights.append(reconstructor.weight(params, noisy) if weighted else 1.0)
            probed.append(np.mean([probe(value, x) for value in values]))
            x = jnp.asarray(np.average(values, axis=0, weights=weights).astype(COMPLEX))
        return x, np.array(probed, np.float32), np.ptp(weights), np.ptp(values, axis=0).max()

    run = jax.jit(reconstructor.apply, static_argnames=("num_iterations", "probe"))
    for number in (None, 3):
        x, probed, spread, noise = loop(number or 2)
        assert noise > 0.1 and (spread > 0.01) == weighted
        options = {"smoothing_key": jax.random.key(SMOOTHING_KEY), "num_iterations": number}
        near(run(params, operator, y, **options), x, TOLERANCE["float32"])
        estimate, found = run(params, operator, y, probe=probe, **options)
        near(estimate, x, TOLERANCE["float32"])
        near(found, probed, TOLERANCE["float32"])


def test_smoothed_steps_without_noise_are_the_bare_ones():
    params, operator, y = smoothed_problem(weighted=True)
    bare = unrolled(
        proximal_gradient, Pointwise(2), {"step_size": scalar.fixed(ETA)}, num_iterations=2
    )
    key = jax.random.key(1)
    estimate = smoothed(0.0, weighted=True).apply(params, operator, y, smoothing_key=key)
    near(estimate, bare.apply(params, operator, y), TOLERANCE["float32"])
    # One that averages over nothing takes a key, and leaves it alone.
    equal(
        bare.apply(params, operator, y, smoothing_key=jax.random.key(2)),
        bare.apply(params, operator, y),
    )


def test_smoothed_steps_and_jitter_together():
    params, operator, y = smoothed_problem(weighted=False)
    reconstructor = smoothed(num_iterations=1)
    ones = lambda key, x, k, total: jnp.ones_like(x)
    run = lambda **options: reconstructor.apply(
        params, operator, y, smoothing_key=jax.random.key(0), return_trajectory=True, **options
    )
    clean, jittered = run(), run(key=jax.random.key(1), jitter=ones)
    assert clean.shape == (2, *SHAPE) and float(jnp.abs(clean - jittered)[1].max()) > 0.01


def test_weights_and_network_learn_through_the_average():
    params, operator, y = smoothed_problem(weighted=True)
    reconstructor = smoothed(weighted=True)
    loss = lambda p, key: jnp.sum(
        jnp.square(jnp.abs(reconstructor.apply(p, operator, y, smoothing_key=key)))
    )
    gradient = jax.jit(jax.grad(loss))(params, jax.random.key(0))
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))


def test_a_policy_does_not_keep_the_samples_of_chunks():
    """The results that it keeps would be those of all samples: the chunk would bound nothing."""
    operator, y = convolution(), normal(1, 16, 16, 1)

    def temporaries(num_samples):
        reconstructor = unrolled(
            proximal_gradient,
            DnCNN(2, 16),
            {"step_size": scalar.fixed(ETA)},
            num_iterations=2,
            smoothing=Smoothing(0.1, num_samples, chunk=2),
            remat=keep_costly,
        )
        params = shapes_of(reconstructor, operator, y)
        loss = lambda p, key: jnp.sum(reconstructor.apply(p, operator, y, smoothing_key=key) ** 2)
        compiled = jax.jit(jax.grad(loss)).lower(params, jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(16) < 1.05 * temporaries(4)


def apply_bare(**options):
    operator, y = convolution(), normal(1, *SHAPE)
    reconstructor = unrolled(gradient_descent, Pointwise(1), {"step_size": scalar.fixed(0.1)})
    params = reconstructor.init(jax.random.key(0), operator, y)
    return reconstructor.apply(params, operator, y, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: smoothed().apply(*smoothed_problem(False)),
            "a smoothed reconstructor needs a smoothing_key",
        ),
        (lambda: apply_bare(probe=lambda value, x: value), "probe needs .* smoothed"),
        (
            lambda: unrolled(
                gradient_descent,
                Pointwise(1),
                {"step_size": scalar.fixed(1)},
                weight_network=Brightness(),
            ),
            "weight_network needs a smoothing",
        ),
        (
            lambda: unrolled(
                gradient_descent, Pointwise(1), {"step_size": scalar.fixed(1)}, num_iterations=0
            ),
            "num_iterations must be at least 1, got 0",
        ),
        (
            lambda: unrolled(
                gradient_descent, Pointwise(1), {"step_size": scalar.fixed(1)}, start="zero"
            ),
            "start must be 'adjoint' or 'measurement', got 'zero'",
        ),
        (lambda: scalar.fixed(0.0), "value must be positive, got 0.0"),
        (lambda: scalar.fixed(float("nan")), "value must be positive, got nan"),
        (lambda: scalar.sigmoid(scale=-1.0), "scale must be positive, got -1.0"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
