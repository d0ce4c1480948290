"""The learned steps: parameter counts, what is added to what, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, near, normal

from jitter_jax.networks import MLP, DnCNN, SeismicCNN, UNet

NETWORKS = {
    "MLP": (MLP(depth=3, width=8), (5, 2)),
    "DnCNN": (DnCNN(3, 8), (6, 7, 2)),
    "SeismicCNN": (SeismicCNN(8), (6, 7, 2)),
    "UNet": (UNet(4, 2), (11, 9, 2)),
}


def count(network, shape):
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (SeismicCNN(), (16, 16, 2), 19_587),
        (DnCNN(8, 64), (16, 16, 2), 224_256),
        (UNet(32, 4), (32, 32, 1), 7_756_097),
        # Dense layers 2-32, 32-32, 32-2 with their biases.
        (MLP(3, 32), (2,), (2 * 32 + 32) + (32 * 32 + 32) + (32 * 2 + 2)),
    ],
)
def test_parameter_counts(network, shape, expected):
    assert count(network, shape) == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_shape_dtype_and_dependence_on_the_key(name):
    network, shape = NETWORKS[name]
    x = normal(0, *shape)
    one, same, other = (network.init(jax.random.key(seed), x) for seed in (0, 0, 1))
    close(one, same)
    y = jax.jit(network.apply)(one, x)
    channels = 1 if name == "SeismicCNN" else shape[-1]
    assert y.shape == (*shape[:-1], channels) and y.dtype == jnp.float32
    assert float(jnp.abs(y - network.apply(other, x)).max()) > 0


def test_dncnn_adds_its_last_input_channels():
    x = normal(0, 6, 7, 3)
    for out_channels in (None, 1):
        with_skip = DnCNN(3, 8, out_channels=out_channels)
        without = DnCNN(3, 8, out_channels=out_channels, residual=False)
        params = with_skip.init(jax.random.key(0), x)
        added = x if out_channels is None else x[..., 2:]
        near(with_skip.apply(params, x) - without.apply(params, x), added, 1e-5)


def test_seismic_weights_are_a_tenth_of_he_normal():
    kernels = [
        leaf
        for leaf in jax.tree.leaves(SeismicCNN(64).init(jax.random.key(0), normal(0, 4, 4, 2)))
        if leaf.shape == (3, 3, 64, 64)
    ]
    for kernel in kernels:
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)) / 10, rtol=0.02)
    assert len(kernels) == 2


def test_dncnn_needs_two_layers():
    with pytest.raises(ValueError, match="depth must be at least 2, got 1"):
        DnCNN(1).init(jax.random.key(0), jnp.zeros((4, 4, 1)))


def test_unet_normalises_the_scale_of_its_input_away():
    network = UNet(4, 2, out_channels=1)
    x = normal(0, 21, 18, 1)
    params = network.init(jax.random.key(0), x)
    near(
        network.apply(params, 3 * x), network.apply(params, x), 1e-3
    )  # up to the epsilon of the norms
    residual = UNet(4, 2, out_channels=1, residual=True)
    near(residual.apply(params, x) - network.apply(params, x), x, 1e-5)
    batched = jnp.stack([x, 2 * x + 1])
    looped = jnp.stack([network.apply(params, signal) for signal in batched])
    close(network.apply(params, batched), looped, loosen=10)  # rounding of normalised blocks


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (UNet(4, 0), (8, 8, 1), "levels must be at least 1, got 0"),
        (UNet(4, 2), (8, 7, 1), r"at least 8 pixels a side, got \(8, 7, 1\)"),
    ],
)
def test_unet_refuses(network, shape, message):
    with pytest.raises(ValueError, match=message):
        network.init(jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize("depth", [0, -1])
def test_mlp_needs_a_layer(depth):
    with pytest.raises(ValueError, match=f"depth must be at least 1, got {depth}"):
        MLP(depth).init(jax.random.key(0), jnp.zeros(2))


def test_mlp_of_one_layer_is_affine():
    network, x, other = MLP(depth=1, out_features=3), normal(0, 2), normal(1, 2)
    params = network.init(jax.random.key(0), x)
    assert count(network, (2,)) == 2 * 3 + 3
    run = lambda x: network.apply(params, x)
    close(run(x) + run(other) - run(jnp.zeros(2)), run(x + other))


@pytest.mark.parametrize("network", [DnCNN, SeismicCNN])
def test_forward_mode_with_plain_rules(network):
    x, direction = normal(0, 6, 7, 2), normal(1, 6, 7, 2)
    size = {"width": 8, "activation": jnp.tanh}
    quick, plain = network(**size), network(**size, differentiation="plain")
    params = quick.init(jax.random.key(0), x)
    value, derivative = jax.jvp(lambda x: plain.apply(params, x), (x,), (direction,))
    near(value, quick.apply(params, x), 1e-5)
    # <J u, v> = <u, J^T v>, forward mode of one form against reverse mode of the other.
    cotangent = normal(2, *value.shape)
    _, back = jax.vjp(lambda x: quick.apply(params, x), x)
    near(jnp.vdot(derivative, cotangent), jnp.vdot(direction, back(cotangent)[0]), 1e-4)
    jacobian = jax.jacfwd(lambda s: plain.apply(params, x + s * direction))(0.0)
    near(jacobian, derivative, 1e-4)
    with pytest.raises(TypeError):
        jax.jvp(lambda x: quick.apply(params, x), (x,), (direction,))
