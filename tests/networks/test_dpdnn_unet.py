"""The U-Net of DPDNN: its size, its first weights, and its halvings and doublings of any size."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, check_gradient, close, near, normal

from jitter_jax.networks import DPDNNUNet
from jitter_jax.networks.dpdnn import TransposedConv
from jitter_jax.networks.layers import Conv

SMALL = DPDNNUNet(4, 2)
LAST = "Conv_19"


def shapes(network):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((16, 16, 1)))


def filled(network, dtype="float32"):
    """Variables of a network, of which no two are alike, biases among them."""
    leaves, structure = jax.tree.flatten(shapes(network))
    draws = [normal(i, *leaf.shape, dtype=dtype) for i, leaf in enumerate(leaves)]
    scaled = [d / np.sqrt(np.prod(d.shape[:-1])) if d.ndim > 1 else d / 4 for d in draws]
    return jax.tree.unflatten(structure, scaled)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        # The 1,363,405 of DPDNN without its twelve deltas and etas.
        (DPDNNUNet(), 1_363_405 - 12),
        # First, other 3x3, transposed, 1x1 and last convolutions.
        (SMALL, (36 + 4) + (7 + 1 + 8) * (144 + 4) + 2 * 144 + 2 * (32 + 4) + (36 + 1)),
    ],
)
def test_parameter_counts(network, expected):
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(network))) == expected


def test_begins_as_published():
    names = ("Conv_0", "Conv_2", "Conv_5", "TransposedConv_0")  # 3x3, 3x3, 1x1
    init = lambda key: DPDNNUNet(32, 1).init(key, jnp.zeros((4, 4, 1)))["params"]
    layers = jax.jit(lambda key: {name: init(key)[name] for name in names})(jax.random.key(0))
    for name, layer in layers.items():
        kernel = layer["kernel"]
        rows, columns, inputs, outputs = kernel.shape
        if name.startswith("TransposedConv"):  # He
            assert set(layer) == {"kernel"}
            variance = 2 / (rows * columns * inputs)
        else:  # Xavier, uniform
            assert not np.any(layer["bias"])
            variance = 2 / (rows * columns * (inputs + outputs))
            assert np.abs(kernel).max() <= np.sqrt(3 * variance)
        # The smallest kernel has 288 entries: their spread is known to 3 % (one standard error).
        np.testing.assert_allclose(kernel.std(), np.sqrt(variance), rtol=0.12)


def whole(x, kernel):
    """Same-size convolution as one product with the patches."""
    reach = kernel.shape[0] // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], (0, 1))
    return np.einsum("hwcij,ijco->hwo", patches, kernel)


def taps(small, large, first):
    """Yields the pixel of the smaller image, that of the larger one, and the entry of the kernel.

    Row `h` of the smaller image is centred on row `2 h + first[0]` of the larger one.
    """
    for h, w, i, j in np.ndindex(*small, 3, 3):
        a, b = 2 * h + first[0] + i - 1, 2 * w + first[1] + j - 1
        if 0 <= a < large[0] and 0 <= b < large[1]:
            yield (h, w), (a, b), (i, j)


def halved(x, kernel, *, first=(0, 0)):
    """Convolution of stride 2, entry by entry."""
    small = [-(-n // 2) for n in x.shape[:2]]
    z = np.zeros((*small, kernel.shape[3]))
    for few, many, entry in taps(small, x.shape, first):
        z[few] += x[many] @ kernel[entry]
    return z


def doubled(x, kernel, size, *, first=(0, 0)):
    """Transposed convolution of stride 2, entry by entry."""
    z = np.zeros((*size, kernel.shape[3]))
    for few, many, entry in taps(x.shape[:2], size, first):
        z[many] += x[few] @ kernel[entry]
    return z


def arrays(size):
    """An image and a kernel, for NumPy, in double precision."""
    return (np.asarray(normal(s, *n, dtype="float64")) for s, n in ((0, (*size, 3)), (1, [3] * 4)))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 3), (3, 3), (5, 4), (6, 7), (8, 6)])
def test_halving_and_doubling_equal_a_loop(size):
    with jax.enable_x64(True):
        x, kernel = arrays(size)
        run = lambda layer, *args: layer.apply({"params": {"kernel": kernel}}, *args)
        small = run(Conv(3, use_bias=False, stride=2), jnp.asarray(x))
        near(small, halved(x, kernel), TOLERANCE["float64"])
        y = np.asarray(normal(2, *small.shape, dtype="float64"))
        large = run(TransposedConv(3), jnp.asarray(y), size)
        near(large, doubled(y, kernel, size), TOLERANCE["float64"])
        # With the channels of its kernel exchanged, the one is the transpose of the other.
        kernel = kernel.transpose(0, 1, 3, 2)
        transposed = run(TransposedConv(3), jnp.asarray(y), size)
        np.testing.assert_allclose(np.vdot(transposed, x), np.vdot(y, small), rtol=1e-12)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (4, 5)])
def test_tensorflow_sees_the_same_in_a_mirror(size):
    """Its "SAME" pads an even side behind only, where ours pads both ends, as in PyTorch."""
    first = tuple(1 - n % 2 for n in size)
    mirror = lambda a: a[::-1, ::-1]
    with jax.enable_x64(True):
        x, kernel = arrays(size)
        published = jax.lax.conv_general_dilated(
            x[None], kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0]
        near(halved(x, kernel, first=first), published, TOLERANCE["float64"])
        run = lambda layer, *args: layer.apply({"params": {"kernel": mirror(kernel)}}, *args)
        small = run(Conv(3, use_bias=False, stride=2), jnp.asarray(mirror(x)))
        near(mirror(small), published, TOLERANCE["float64"])
        large = run(TransposedConv(3), small, size)
        expected = doubled(np.asarray(published), kernel, size, first=first)
        near(mirror(large), expected, TOLERANCE["float64"])


def test_doubling_of_many_signals_is_a_loop():
    x, layer = normal(0, 2, 3, 4, 3, 5), TransposedConv(2)
    variables = layer.init(jax.random.key(0), x[0, 0], (7, 6))
    run = jax.jit(lambda x: layer.apply(variables, x, (7, 6)))
    nested = jax.jit(jax.vmap(jax.vmap(run)))(x)
    assert nested.shape == (2, 3, 7, 6, 2)
    close(run(x), nested)
    close(run(x[1, 2]), nested[1, 2])


def test_doubling_refuses_other_sizes():
    with pytest.raises(ValueError, match=r"sides \(4, 3\) for size=\(7, 6\), got \(3, 3, 2\)"):
        TransposedConv(2).init(jax.random.key(0), jnp.zeros((3, 3, 2)), (7, 6))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (11, 7)])
def test_any_size_is_kept_and_the_input_is_added(size):
    x, variables = normal(0, *size, 1), filled(SMALL)
    run, params = jax.jit(SMALL.apply), variables["params"]
    assert float(jnp.abs(run(variables, x) - x).max()) > 1e-3
    silent = {"params": {**params, LAST: jax.tree.map(jnp.zeros_like, params[LAST])}}
    close(run(silent, x), x)


def test_equals_the_network_written_again():
    """Every layer by itself: what feeds what, and what has an activation."""
    with jax.enable_x64(True):
        x, variables = normal(9, 7, 6, 1, dtype="float64"), filled(SMALL, "float64")
        layers, names = variables["params"], (f"Conv_{n}" for n in itertools.count())

        def convolution(x, convolve=whole):
            layer = jax.tree.map(np.asarray, layers[next(names)])
            return convolve(x, layer["kernel"]) + layer["bias"]

        relu = lambda x: np.maximum(x, 0)
        z, encoded = np.asarray(x), []
        for _ in range(2):
            for _ in range(3):
                z = relu(convolution(z))
            encoded.append(z)
            z = relu(convolution(z, halved))
        z = relu(convolution(z))
        for level, beside in enumerate(reversed(encoded)):
            kernel = np.asarray(layers[f"TransposedConv_{level}"]["kernel"])
            z = np.concatenate([doubled(z, kernel, beside.shape[:2]), beside], -1)
            for _ in range(1 + 4):  # the first is of 1x1
                z = relu(convolution(z))
        expected = x + convolution(z)
        assert next(names) == f"Conv_{len(layers) - 2}"  # all are used
        near(jax.jit(SMALL.apply)(variables, x), expected, TOLERANCE["float64"])


def test_gradient_of_doubling_against_finite_differences():
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(a) for a in arrays((3, 2)))
        run = lambda kernel, x: TransposedConv(3).apply({"params": {"kernel": kernel}}, x, (5, 4))
        check_gradient(lambda kernel, x: jnp.sum(jnp.sin(run(kernel, x))), kernel, x)


def test_gradient_against_finite_differences():
    with jax.enable_x64(True):
        network, x = DPDNNUNet(2, 1), normal(0, 3, 4, 1, dtype="float64")
        params = filled(network, "float64")
        check_gradient(lambda p, x: jnp.sum(jnp.sin(network.apply(p, x))), params, x)


def test_plain_rules_have_a_forward_mode():
    x, direction, cotangent = (normal(seed, 6, 5, 1) for seed in range(3))
    quick, plain = DPDNNUNet(4, 1), DPDNNUNet(4, 1, differentiation="plain")
    params = filled(quick)
    push = lambda network: jax.jvp(lambda x: network.apply(params, x), (x,), (direction,))
    pull = lambda network: jax.vjp(lambda x: network.apply(params, x), x)[1](cotangent)[0]
    _, derivative = jax.jit(lambda: push(plain))()
    backward = jax.jit(lambda: pull(quick))()
    # The sum of 30 products, of both signs.
    near(jnp.vdot(derivative, cotangent), jnp.vdot(direction, backward), 10 * TOLERANCE["float32"])
    with pytest.raises(TypeError, match="forward-mode"):
        push(quick)


def test_needs_a_halving():
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        DPDNNUNet(4, 0).init(jax.random.key(0), jnp.zeros((4, 4, 1)))
