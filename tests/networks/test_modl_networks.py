"""The networks of SMUG and of MoDL: sizes, formulas, and what a result depends on."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import close, near, normal

from jitter_jax.attacks import Threat, pgd, reconstruction_error
from jitter_jax.networks import DIDN, MoDLCNN, WeightEncoder
from jitter_jax.operators import cartesian_mri
from jitter_jax.unroll import half_quadratic, scalar, unrolled

TINY = DIDN(width=4, num_blocks=1)


def shapes(network, channels=2):
    x = jax.ShapeDtypeStruct((16, 16, channels), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), x)


def filled(network, channels=2):
    """Variables of a network, of which no two are alike."""
    leaves, structure = jax.tree.flatten(shapes(network, channels))
    draws = [normal(i, *leaf.shape) for i, leaf in enumerate(leaves)]
    values = [
        draw / np.sqrt(np.prod(draw.shape[:-1])) if draw.ndim > 1 else 0.1 + 0.3 * jnp.abs(draw)
        for draw in draws
    ]
    return jax.tree.unflatten(structure, values)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (DIDN(), 5_021_761),
        (DIDN(8), 79_397),
        (WeightEncoder(), 9_681),
        (MoDLCNN(), 113_412),
    ],
)
def test_parameter_counts(network, expected):
    variables = shapes(network)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == expected
    statistics = jax.tree.leaves(variables.get("batch_stats", {}))
    assert len(statistics) == (0 if isinstance(network, DIDN) else 2 * network.depth)


def test_didn_begins_as_published():
    params = jax.jit(DIDN(32, 1).init)(jax.random.key(0), jnp.zeros((8, 8, 2)))["params"]
    leaves = {jax.tree_util.keystr(k): v for k, v in jax.tree.leaves_with_path(params)}
    kernels = np.concatenate([v.ravel() for k, v in leaves.items() if k.endswith("['kernel']")])
    np.testing.assert_allclose(kernels.std(), 0.02, rtol=0.02)
    assert all(np.all(v == 0) for k, v in leaves.items() if k.endswith("['bias']"))
    slopes = [v for k, v in leaves.items() if k.endswith("['negative_slope']")]
    assert all(v == 0.25 for v in slopes) and len(slopes) == 4 + 9


def test_didn_pads_any_size_and_adds_its_last_input_channels():
    network, x = TINY.clone(out_channels=1, residual=False), normal(0, 13, 10, 3)
    params = filled(network, channels=3)
    padded = jnp.pad(x, ((1, 2), (3, 3), (0, 0)))

    @jax.jit
    def results(x, padded):
        whole = network.clone(residual=True).apply(params, x)
        return whole, network.apply(params, x), network.apply(params, padded)

    whole, correction, of_padded = results(x, padded)
    assert correction.shape == (13, 10, 1)
    near(correction, of_padded[1:14, 3:13], 1e-5)
    near(whole - correction, x[..., 2:], 1e-5)


def test_forward_mode_of_didn_with_plain_rules():
    x, direction, cotangent = (normal(seed, 8, 8, 2) for seed in range(3))
    params, plain = filled(TINY), TINY.clone(differentiation="plain")
    push = jax.jit(lambda x: jax.jvp(partial(plain.apply, params), (x,), (direction,)))
    pull = jax.jit(lambda x: jax.vjp(partial(TINY.apply, params), x)[1](cotangent)[0])
    value, derivative = push(x)
    near(value, TINY.apply(params, x), 1e-5)
    near(jnp.vdot(derivative, cotangent), jnp.vdot(direction, pull(x)), 1e-4)


def test_an_attack_through_didn_is_worse_than_noise():
    mask = np.zeros((16, 16), bool)
    mask[::3] = mask[6:10] = True
    operator, x = cartesian_mri(mask), normal(0, 16, 16, 1, dtype="complex64")
    y = operator.forward(x)
    method = unrolled(
        half_quadratic, TINY, {"regularisation": scalar.fixed(1.0)}, num_iterations=1, remat=False
    )
    params = {"network": filled(TINY)}
    ball = Threat(0.02, norm="linf", unit="relative").ball_at(operator, x, y)

    @jax.jit
    def run(key):
        objective = reconstruction_error(partial(method.apply, params, operator), operator, x, y)
        _, info = pgd(ball, num_steps=3)(objective, jnp.zeros_like(y), key)
        signs = ball.project(jnp.sign(normal(1, *y.shape)) * (1 + 1j) * ball.radius)
        return info.clean, info.value, objective(signs)

    clean, attacked, noisy = run(jax.random.key(0))
    assert attacked - clean > 3 * abs(noisy - clean), (clean, attacked, noisy)


def test_modl_cnn_is_its_formula():
    network, x = MoDLCNN(depth=3, width=4), normal(0, 6, 7, 2)
    variables = filled(network)
    expected = x
    for layer in range(3):
        kernel = variables["params"][f"Conv_{layer}"]
        conv = nn.Conv(kernel["kernel"].shape[-1], (3, 3), use_bias=False)
        norm = nn.BatchNorm(use_running_average=True, epsilon=1e-3)
        expected = norm.apply(
            {name: variables[name][f"BatchNorm_{layer}"] for name in variables},
            conv.apply({"params": kernel}, expected),
        )
        expected = nn.relu(expected) if layer < 2 else expected
    near(network.apply(variables, x), x + expected, 1e-5)
    near(network.clone(residual=False).apply(variables, x), expected, 1e-5)
    with pytest.raises(ValueError, match="depth must be at least 2, got 1"):
        MoDLCNN(1).init(jax.random.key(0), x)


def test_a_weight_is_one_number_of_one_image():
    network, x = WeightEncoder(depth=2, width=4), normal(0, 3, 6, 7, 2)
    variables = filled(network)
    weights = jax.jit(jax.vmap(partial(network.apply, variables)))
    assert weights(x).shape == (3,)
    assert np.all((weights(x) > 0) & (weights(x) < 1)) and np.ptp(weights(x)) > 1e-3
    close(network.apply(variables, x), weights(x))
    close(weights(x.at[1:].multiply(10.0))[0], weights(x)[0])
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        WeightEncoder(0).init(jax.random.key(0), x)


def test_a_weight_of_batch_statistics_sees_the_batch():
    network, x = WeightEncoder(2, 4, "signal", axis_name="copies"), normal(0, 3, 6, 7, 2)
    variables = filled(network)
    weights = jax.jit(jax.vmap(partial(network.apply, variables), axis_name="copies"))
    louder = x.at[1:].multiply(10.0)
    assert abs(float(weights(louder)[0] - weights(x)[0])) > 1e-3


def test_a_weight_encoder_learns_with_frozen_statistics():
    network = WeightEncoder(depth=3, width=8)
    clean = jnp.cumsum(jnp.cumsum(normal(0, 8, 12, 12, 2), 1), 2) / 12
    x = jnp.concatenate([clean, clean + 0.3 * normal(1, *clean.shape)])
    labels = jnp.arange(16) < 8
    variables = jax.jit(network.init)(jax.random.key(0), x[0])
    optimizer = optax.adam(1e-2)

    def loss(variables):
        weights = network.apply(variables, x)
        return -jnp.mean(jnp.log(jnp.where(labels, weights, 1 - weights)))

    @jax.jit
    def train(variables):
        def step(carry, _):
            variables, state = carry
            value, gradient = jax.value_and_grad(loss)(variables)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(variables, updates), state), value

        carry = (variables, optimizer.init(variables))
        (variables, _), values = jax.lax.scan(step, carry, length=100)
        return variables, values

    trained, values = train(variables)
    assert values[0] < 1.0 and values[-1] < 0.2, values
    close(trained["batch_stats"], variables["batch_stats"])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (DIDN(width=6), "width must be a positive multiple of 4, got 6"),
        (DIDN(num_blocks=0), "num_blocks must be at least 1, got 0"),
    ],
)
def test_didn_refuses(network, message):
    with pytest.raises(ValueError, match=message):
        network.init(jax.random.key(0), jnp.zeros((8, 8, 2)))
