"""The shared layers against the plain ones: values, derivatives, and under every transformation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jitter_jax.networks import layers
from jitter_jax.networks.layers import (
    BatchNorm,
    Conv,
    GroupNorm,
    activation,
    conv_general_dilated,
)

# Relative to the largest entry of what is compared.
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
LABELS = ("NHWC", "HWIO", "NHWC")


def close(actual, expected, loosen=1.0):
    actual_leaves, expected_leaves = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual_leaves) == len(expected_leaves)
    for a, e in zip(actual_leaves, expected_leaves, strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        scale = max(float(np.abs(e).max()), 1e-30)
        np.testing.assert_allclose(
            np.asarray(a) / scale,
            np.asarray(e) / scale,
            rtol=0,
            atol=loosen * TOLERANCE[str(e.dtype)],
        )


def normal(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def plain_convolution(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LABELS)


def fast_convolution(x, kernel):
    return conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LABELS)


def derivatives(convolution, x, kernel, direction):
    """Value, first derivatives, and the derivative of their product with a direction."""

    def value(x, kernel):
        return jnp.mean(jnp.sin(convolution(x, kernel)))

    def slope(x, kernel):
        gradients = jax.grad(value, (0, 1))(x, kernel)
        return sum(jnp.vdot(g, d) for g, d in zip(gradients, direction, strict=True))

    return (
        convolution(x, kernel),
        jax.grad(value, (0, 1))(x, kernel),
        jax.grad(slope, (0, 1))(x, kernel),
    )


@pytest.mark.parametrize(
    ("batch", "height", "width", "inputs", "outputs", "size", "dtype"),
    [
        (1, 8, 9, 1, 1, 3, "float64"),
        (2, 9, 8, 2, 32, 3, "float32"),
        (2, 9, 8, 2, 32, 3, "float64"),
        (1, 7, 6, 32, 1, 3, "float32"),
        (2, 5, 12, 32, 2, 5, "float64"),
        (1, 37, 10, 32, 32, 3, "float32"),  # three strips, the last one incomplete
        (1, 37, 10, 6, 8, 3, "float64"),
        # By Winograd's algorithm: tiles and strips that end with the signal, and that do not.
        (1, 64, 64, 16, 16, 3, "float32"),
        (2, 67, 62, 16, 17, 3, "float32"),
        (2, 67, 62, 17, 16, 3, "float64"),
        (2, 32, 5, 8, 6, 5, "float64"),  # two whole strips
        (2, 6, 7, 6, 6, 1, "float32"),
        (1, 4, 4, 1, 1, 1, "float64"),
    ],
)
def test_convolution_equals_plain(batch, height, width, inputs, outputs, size, dtype):
    with jax.enable_x64(dtype == "float64"):
        x = normal(0, batch, height, width, inputs, dtype=dtype)
        kernel = normal(1, size, size, inputs, outputs, dtype=dtype) / size
        direction = (normal(2, *x.shape, dtype=dtype), normal(3, *kernel.shape, dtype=dtype))
        actual = jax.jit(lambda *a: derivatives(fast_convolution, *a))(x, kernel, direction)
        expected = jax.jit(lambda *a: derivatives(plain_convolution, *a))(x, kernel, direction)
        close(actual, expected)


def test_rectangular_kernel_equals_plain():
    x, kernel = normal(0, 1, 20, 9, 6), normal(1, 3, 5, 6, 5)
    direction = (normal(2, *x.shape), normal(3, *kernel.shape))
    fast, plain = (
        jax.jit(lambda *a, f=f: derivatives(f, *a))(x, kernel, direction)
        for f in (fast_convolution, plain_convolution)
    )
    close(fast, plain)


@pytest.mark.parametrize(
    "options",
    [
        {"window_strides": (2, 2)},
        {"padding": "VALID"},
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 2), "padding": ((1, 1), (1, 1))},
        {"feature_group_count": 2},
        {"dimension_numbers": ("NCHW", "HWIO", "NCHW")},
    ],
)
def test_uncovered_convolutions_are_plain(options):
    given = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LABELS} | options
    x = normal(0, 1, 6, 6, 6)
    kernel = normal(1, 3, 3, 6 // given.get("feature_group_count", 1), 4)
    close(conv_general_dilated(x, kernel, **given), lax.conv_general_dilated(x, kernel, **given))
    # Forward mode works: nothing of ours stands between.
    jax.jvp(lambda k: conv_general_dilated(x, k, **given), (kernel,), (kernel,))


def test_other_backends_are_plain(monkeypatch):
    x, kernel = normal(0, 1, 6, 6, 6), normal(1, 3, 3, 6, 6)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    jax.jvp(lambda k: fast_convolution(x, k), (kernel,), (kernel,))


def test_flax_conv_takes_it():
    x = normal(0, 10, 9, 6)
    fast = nn.Conv(5, (3, 3), conv_general_dilated=conv_general_dilated)
    plain = nn.Conv(5, (3, 3))
    variables = plain.init(jax.random.key(0), x)

    def gradient(module):
        return jax.jit(jax.grad(lambda v: jnp.sum(jnp.sin(module.apply(v, x)))))(variables)

    close(fast.apply(variables, x), plain.apply(variables, x))
    close(gradient(fast), gradient(plain))


@pytest.mark.parametrize("use_bias", [True, False])
def test_conv_is_laid_out_as_in_flax(use_bias):
    x = normal(0, 2, 3, 8, 9, 6)
    ours = Conv(5, 3, use_bias=use_bias, bias_init=nn.initializers.normal(1.0))
    theirs = nn.Conv(5, (3, 3), use_bias=use_bias)
    variables = ours.init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, theirs.init(jax.random.key(1), x)
    )
    close(ours.apply(variables, x), theirs.apply(variables, x))
    close(ours.apply(variables, x[1, 2]), theirs.apply(variables, x)[1, 2])


@pytest.mark.parametrize(
    ("height", "width", "outputs", "size", "stride"),
    [(8, 9, 5, 3, 2), (7, 10, 4, 5, 3), (5, 4, 2, 1, 2)],
)
def test_strided_convolution_equals_a_part_of_the_whole(height, width, outputs, size, stride):
    with jax.enable_x64(True):
        x = normal(0, 2, height, width, 3, dtype="float64")
        kernel = normal(1, size, size, 3, outputs, dtype="float64")
        direction = (normal(2, *x.shape, dtype="float64"), jnp.cos(kernel))

        def strided(x, kernel):
            one = lambda x: Conv(outputs, size, use_bias=False, stride=stride).apply(
                {"params": {"kernel": kernel}}, x
            )
            return jax.vmap(one)(x)

        def part(x, kernel):
            return plain_convolution(x, kernel)[:, ::stride, ::stride]

        close(
            jax.jit(lambda *a: derivatives(strided, *a))(x, kernel, direction),
            jax.jit(lambda *a: derivatives(part, *a))(x, kernel, direction),
        )


def test_strided_convolution_is_plain_elsewhere(monkeypatch):
    x = normal(0, 6, 6, 3)
    quick, plain = Conv(4, stride=2), Conv(4, stride=2, differentiation="plain")
    variables = quick.init(jax.random.key(0), x)
    forward = lambda module: jax.jvp(lambda x: module.apply(variables, x), (x,), (x,))
    expected = forward(plain)
    with pytest.raises(TypeError, match="forward-mode"):
        forward(quick)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    close(forward(quick), expected)


@pytest.mark.parametrize(
    ("shape", "groups", "dtype"),
    [
        ((8, 9, 32), 4, "float32"),
        ((7, 5, 6), 1, "float64"),
        ((5, 4, 3), 3, "float64"),
        ((3, 6, 5, 8), 2, "float64"),
    ],
)
def test_group_norm_equals_flax(shape, groups, dtype):
    with jax.enable_x64(dtype == "float64"):
        channels = shape[-1]
        x = 2 * normal(0, *shape, dtype=dtype) + 1
        params = {
            "scale": normal(1, channels, dtype=dtype),
            "bias": normal(2, channels, dtype=dtype),
        }
        direction = (normal(3, *shape, dtype=dtype), jax.tree.map(jnp.cos, params))

        def ours(x, params):
            return GroupNorm(groups).apply({"params": params}, x)

        def theirs(x, params):
            module = nn.GroupNorm(groups, epsilon=1e-5, use_fast_variance=False)
            # Flax takes a leading axis for the batch only if there is one.
            batched = x.reshape(-1, *shape[-3:])
            return module.apply({"params": params}, batched).reshape(shape)

        def everything(norm):
            def value(x, params):
                return jnp.mean(jnp.sin(norm(x, params)))

            def slope(x, params):
                gradients = jax.grad(value, (0, 1))(x, params)
                return sum(
                    jnp.vdot(g, d)
                    for g, d in zip(
                        jax.tree.leaves(gradients), jax.tree.leaves(direction), strict=True
                    )
                )

            return (
                norm(x, params),
                jax.grad(value, (0, 1))(x, params),
                jax.grad(slope, (0, 1))(x, params),
            )

        close(jax.jit(lambda: everything(ours))(), jax.jit(lambda: everything(theirs))())


def test_group_norm_keeps_its_digits_far_from_zero():
    deviation = np.random.default_rng(0).normal(size=(64, 64, 32))
    exact = deviation.reshape(-1, 4, 8)
    exact = (exact - exact.mean((0, 2), keepdims=True)) / exact.std((0, 2), keepdims=True)
    x = jnp.asarray(100 + deviation, jnp.float32)
    actual = GroupNorm(4).apply({"params": {"scale": jnp.ones(32), "bias": jnp.zeros(32)}}, x)
    close(GroupNorm(4, affine=False).apply({}, x), actual)
    # 100 + deviation is stored to 4e-6, and its mean is a sum of 4096 such numbers; a variance
    # taken as the difference of squares would be wrong by 1e-3 and more.
    np.testing.assert_allclose(actual, exact.reshape(x.shape), rtol=0, atol=1e-4)


def test_batch_norm_equals_flax():
    x, channels = 2 * normal(0, 3, 5, 4, 6) + 1, 6
    params = {"scale": normal(1, channels), "bias": normal(2, channels)}
    stored = {"mean": normal(3, channels), "var": jnp.square(normal(4, channels))}
    variables = {"params": params, "batch_stats": stored}
    frozen = BatchNorm()
    assert jax.tree.map(jnp.shape, frozen.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, variables
    )
    theirs = nn.BatchNorm(use_running_average=True)
    close(frozen.apply(variables, x), theirs.apply(variables, x))

    def ours(variables, x):
        norm = BatchNorm("signal", "batch")
        return jax.vmap(lambda x: norm.apply(variables, x), axis_name="batch")(x)

    def training(variables, x):
        norm = nn.BatchNorm(use_running_average=False, use_fast_variance=False)
        return norm.apply(variables, x, mutable=["batch_stats"])[0]

    def everything(norm):
        value = lambda params, x: jnp.mean(jnp.sin(norm({**variables, "params": params}, x)))
        return norm(variables, x), jax.grad(value, (0, 1))(params, x)

    close(jax.jit(lambda: everything(ours))(), jax.jit(lambda: everything(training))())
    alone = BatchNorm("signal")
    close(alone.apply(variables, x), GroupNorm(channels).apply(variables, x))
    close(alone.apply(variables, x)[1], alone.apply({"params": params}, x[1]))


def test_frozen_statistics_carry_no_gradient_and_shift_nothing_at_first():
    norm, x = BatchNorm(epsilon=0.0), normal(0, 5, 4, 3)
    variables = norm.init(jax.random.key(0), x)
    close(norm.apply(variables, x), x)
    slopes = jax.grad(lambda v: jnp.sum(jnp.square(norm.apply(v, x))))(variables)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes["batch_stats"]))
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(slopes["params"]))


class Network(nn.Module):
    """A small network of all the layers, with either derivative rule."""

    differentiation: layers.Differentiation = "reverse"

    @nn.compact
    def __call__(self, x):
        x = Conv(6, differentiation=self.differentiation)(x)
        x = GroupNorm(2, differentiation=self.differentiation)(x)
        x = Conv(5, differentiation=self.differentiation)(activation("silu")(x))
        return Conv(1, 1, differentiation=self.differentiation)(x)


FAST, PLAIN = Network(), Network("plain")


@pytest.fixture(scope="module")
def variables():
    return FAST.init(jax.random.key(0), jnp.zeros((18, 7, 1)))


def unrolled(network, variables, y, policy):
    def iteration(x, _):
        return x - 0.1 * network.apply(variables, jnp.concatenate([y, x], -1)[..., :1] + x), None

    if policy != "none":
        keep = jax.checkpoint_policies.save_only_these_names(layers.COSTLY_RESULT)
        iteration = jax.checkpoint(iteration, policy=keep if policy == "named" else None)
    return lax.scan(iteration, y, None, length=3)[0]


def batch_loss(network, variables, y, policy="none"):
    one = lambda y: jnp.mean(jnp.square(unrolled(network, variables, y, policy)))
    return jnp.mean(jax.vmap(one)(y))


@pytest.mark.parametrize("policy", ["none", "all", "named"])
def test_gradient_of_a_vmapped_checkpointed_scan(variables, policy):
    y = normal(1, 3, 18, 7, 1)
    gradient = lambda network, p: jax.jit(
        jax.value_and_grad(lambda v, y: batch_loss(network, v, y, p), (0, 1))
    )(variables, y)
    close(gradient(FAST, policy), gradient(PLAIN, "none"), loosen=5)  # sums of other lengths


def test_vmap_of_the_gradient_is_a_loop_over_it(variables):
    y = normal(1, 3, 18, 7, 1)
    gradient = jax.jit(
        jax.grad(lambda v, y: jnp.mean(jnp.square(unrolled(FAST, v, y, "named"))), (0, 1))
    )
    batched = jax.jit(jax.vmap(gradient, (None, 0)))(variables, y)
    for n in range(3):
        close(jax.tree.map(lambda leaf, n=n: leaf[n], batched), gradient(variables, y[n]), loosen=5)


def test_nested_vmap(variables):
    y = normal(1, 2, 3, 18, 7, 1)
    gradient = jax.vmap(jax.grad(lambda v, y: jnp.mean(jnp.square(FAST.apply(v, y)))), (None, 0))
    nested = jax.jit(jax.vmap(gradient, (None, 0)))(variables, y)
    flat = jax.jit(gradient)(variables, y.reshape(6, 18, 7, 1))
    close(jax.tree.map(lambda a: a.reshape(6, *a.shape[2:]), nested), flat)


def test_second_derivative_of_a_vmapped_checkpointed_scan(variables):
    y = normal(1, 2, 18, 7, 1)

    def penalty(network, p):
        """Squared norm of the gradient in the data, as in a curvature penalty."""
        gradient = jax.grad(lambda v, y: batch_loss(network, v, y, p), 1)
        return jax.jit(jax.grad(lambda v: jnp.sum(jnp.square(100 * gradient(v, y)))))(variables)

    close(penalty(FAST, "named"), penalty(PLAIN, "none"), loosen=5)


def test_a_signal_does_not_see_its_neighbours(variables):
    y = normal(1, 3, 18, 7, 1)
    loud = y.at[1:].multiply(1e3)
    run = jax.jit(jax.vmap(lambda y: unrolled(FAST, variables, y, "none")))
    close(run(loud)[0], run(y)[0])


def test_forward_mode_needs_the_plain_rule(variables):
    y = normal(1, 6, 5, 1)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda y: FAST.apply(variables, y), (y,), (y,))
    forward = jax.jit(jax.jacfwd(lambda y: PLAIN.apply(variables, y)))(y)
    close(jax.jit(jax.jacrev(lambda y: FAST.apply(variables, y)))(y), forward)
    direction = normal(2, *y.shape)
    push = jax.jit(lambda u: jax.jvp(lambda y: PLAIN.apply(variables, y), (y,), (u,))[1])
    close(push(direction), jnp.tensordot(forward, direction, 3))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_type_is_kept(variables, dtype):
    y = normal(0, 8, 7, 1).astype(dtype)

    def both(y):
        result, pullback = jax.vjp(lambda y: FAST.apply(variables, y), y)
        return result, pullback(result)[0]

    assert all(leaf.dtype == dtype and jnp.all(jnp.isfinite(leaf)) for leaf in jax.jit(both)(y))


def test_float64_signal_stays_float64():
    with jax.enable_x64(True):
        x = normal(0, 8, 7, 1, dtype="float64")
        result, _ = jax.eval_shape(FAST.init_with_output, jax.random.key(0), x)
        assert result.dtype == jnp.float64


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Conv(4, 2), (8, 8, 1), "kernel_size must be odd"),
        (Conv(4, differentiation="forward"), (8, 8, 1), "'reverse' or 'plain', got 'forward'"),
        (Conv(4), (8, 8), r"got shape \(8, 8\)"),
        (Conv(4, stride=0), (8, 8, 1), "stride must be at least 1, got 0"),
        (BatchNorm("batch"), (8, 8, 1), r"one of \('frozen', 'signal'\), got 'batch'"),
        (BatchNorm(axis_name="b"), (8, 8, 1), "frozen statistics take no axis_name, got 'b'"),
        (BatchNorm(), (8, 8), r"got shape \(8, 8\)"),
        (GroupNorm(4), (8, 8, 6), "divide the 6 channels of x, got 4"),
        (GroupNorm(4, differentiation="no"), (8, 8, 4), "'reverse' or 'plain', got 'no'"),
        (GroupNorm(4), (8, 4), r"got shape \(8, 4\)"),
    ],
)
def test_errors_say_what_is_accepted(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", lambda v: np.maximum(v, 0)),
        ("leaky_relu", lambda v: np.where(v > 0, v, 0.01 * v)),
        ("elu", lambda v: np.where(v > 0, v, np.expm1(v))),
        ("silu", lambda v: v / (1 + np.exp(-v))),
        ("softplus", lambda v: np.log1p(np.exp(v))),
        ("tanh", np.tanh),
        ("identity", lambda v: v),
        (
            "gelu",
            lambda v: 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))),
        ),
    ],
)
def test_activation(name, expected):
    v = np.linspace(-3, 3, 13).astype(np.float32)
    close(activation(name)(jnp.asarray(v)), jnp.asarray(expected(v)))


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"one of \['elu', 'gelu'.*got 'rely'"):
        activation("rely")
