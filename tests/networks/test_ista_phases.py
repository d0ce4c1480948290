"""The phases of ISTA-Net++ and ISTA-Net+: sizes, first weights, and the formulas written again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, near, normal

from jitter_jax.networks import ConditionNetwork, ISTANetPlusPhase, ISTANetPPPhase

X = normal(0, 6, 7, 1)
LEVEL = jnp.float32(0.3)
NETWORKS = {
    "ISTA-Net++": (ISTANetPPPhase, (X, LEVEL), 37_889),
    "condition": (lambda: ConditionNetwork(40), (LEVEL,), 2_440),
    "ISTA-Net+": (ISTANetPlusPhase, (X,), 37_441),
    "ISTA-Net": (lambda: ISTANetPlusPhase(residual=False), (X,), 19_009),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_parameter_counts(name):
    make, inputs, expected = NETWORKS[name]
    params = jax.eval_shape(make().init, jax.random.key(0), *inputs)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def filled(network, *inputs):
    """Parameters of which no two entries are alike."""
    params = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    leaves, structure = jax.tree.flatten(params)
    values = [0.3 * normal(i + 1, *leaf.shape) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, values)


def convolve(x, weights):
    """`z[h, w] = b + sum k[i, j] x[h + i - 1, w + j - 1]`, zero outside."""
    height, width, _ = x.shape
    x, kernel = np.pad(x, ((1, 1), (1, 1), (0, 0))), np.asarray(weights["kernel"])
    z = sum(x[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
    return z + np.asarray(weights.get("bias", 0))


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize("channels", [1, 2])
def test_phase_of_ista_net_pp(channels):
    network, x = ISTANetPPPhase(4, 2), normal(7, 6, 7, channels)
    params = filled(network, x, LEVEL)
    own = [params["params"][f"Conv_{layer}"] for layer in range(6)]
    h = np.concatenate([x, np.full((6, 7, 1), LEVEL)], -1)
    h = convolve(h, own[0])
    for inner, outer in ((1, 2), (3, 4)):
        h = h + convolve(relu(convolve(h, own[inner])), own[outer])
    near(network.apply(params, x, LEVEL), x + convolve(h, own[5]), 1e-5)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("threshold", [0.2, -0.2])
def test_phase_of_ista_net_plus(residual, threshold):
    network = ISTANetPlusPhase(4, residual)
    params = filled(network, X)
    params["params"]["threshold"] = jnp.float32(threshold)
    own = iter([params["params"][f"Conv_{layer}"] for layer in range(6 if residual else 4)])
    h = convolve(X, next(own)) if residual else np.asarray(X)
    h = relu(convolve(h, next(own)))
    h = convolve(h, next(own))
    h = np.sign(h) * relu(np.abs(h) - threshold)
    h = convolve(relu(convolve(h, next(own))), next(own))
    near(network.apply(params, X), X + convolve(h, next(own)) if residual else h, 1e-5)
    assert next(own, None) is None


@pytest.mark.parametrize(("residual", "expected"), [(True, X), (False, jnp.zeros_like(X))])
def test_nothing_passes_a_high_threshold(residual, expected):
    network = ISTANetPlusPhase(4, residual)
    params = filled(network, X)
    params["params"]["threshold"] = jnp.float32(1e6)
    close(network.apply(params, X), expected)


def test_condition_network():
    network = ConditionNetwork(5, width=5)
    params = filled(network, LEVEL)
    own = [params["params"][f"Dense_{layer}"] for layer in range(3)]
    h = np.asarray([LEVEL])
    for layer in own[:2]:
        h = relu(h @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]))
    h = np.log1p(np.exp(h @ np.asarray(own[2]["kernel"]) + np.asarray(own[2]["bias"])))
    near(network.apply(params, LEVEL), h, 1e-5)
    assert (h > 0).all()


def test_first_weights_are_those_of_torch():
    params = ISTANetPPPhase().init(jax.random.key(0), X, LEVEL)["params"]
    dense = ConditionNetwork(40).init(jax.random.key(1), LEVEL)["params"]
    for layer in [*params.values(), *dense.values()]:
        kernel = layer["kernel"]
        bound = 1 / np.sqrt(kernel[..., 0].size)
        for weights in (kernel, layer["bias"]):
            assert float(jnp.abs(weights).max()) <= bound
        if kernel.size > 500:
            np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.06)
    plus = ISTANetPlusPhase().init(jax.random.key(0), X)["params"]
    assert plus["threshold"] == np.float32(0.01)
    inner = [layer["kernel"] for name, layer in plus.items() if name != "threshold"][1:5]
    for kernel in inner:
        assert kernel.shape == (3, 3, 32, 32)
        # Xavier's normal distribution, whole: 1 in 15,787 beyond four standard deviations.
        np.testing.assert_allclose(kernel.std(), np.sqrt(1 / (9 * 32)), rtol=0.03)
    assert max(float(jnp.abs(kernel).max() / kernel.std()) for kernel in inner) > 3.5
