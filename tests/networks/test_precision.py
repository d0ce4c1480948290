"""Precision of the networks' products: what is rounded, what is not, and what PSNR shows of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Pointwise, close, equal, near, normal
from jax.extend.core import jaxprs_in_params
from published_files import dncnn, ista_net, modl
from tiny_runs import tiny_config, write_run

from configs import compressed_sensing, mri_phantom, points, seismic
from jitter_jax import experiment as experiments
from jitter_jax import networks, unroll
from jitter_jax.commands.runs import init_params, load_experiments, start
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.networks.layers import BatchNorm, Conv, GroupNorm
from jitter_jax.networks.precision import in_precision
from jitter_jax.operators import block_sampling, cartesian_mri, identity, orthonormal_rows

FLOAT32 = jnp.dtype(jnp.float32)
ROUNDING = 2.0**-8  # of bfloat16, half of it to either side
FAMILIES = {
    "seismic_cnn": networks.SeismicCNN(8),
    "dncnn": networks.DnCNN(3, 8),
    "unet": networks.UNet(8, 1),
    "didn": networks.DIDN(8, 1),
    "modl_cnn": networks.MoDLCNN(3, 8),
    "dpdnn_unet": networks.DPDNNUNet(8, 1),
    "mlp": networks.MLP(3, 8),
    "ista_net_pp": networks.ISTANetPPPhase(8, 1),
    "ista_net_plus": networks.ISTANetPlusPhase(8),
    "ista_net": networks.ISTANetPlusPhase(8, residual=False),
    "weight_encoder": networks.WeightEncoder(2, 8),
    "published_dncnn": networks.published.PlainDnCNN(3, 8),
}


def inputs_of(name):
    x = normal(1, 4) if name == "mlp" else normal(1, 16, 16, 2)
    return (x, jnp.float32(0.3)) if name == "ista_net_pp" else (x,)


def equations(jaxpr):
    """Yields every equation of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def dtypes(function, *args):
    """Returns the types of what goes into the equations of a function, by their names."""
    found = {}
    for equation in equations(jax.make_jaxpr(function)(*args).jaxpr):
        types = {str(v.aval.dtype) for v in equation.invars if hasattr(v.aval, "dtype")}
        found.setdefault(equation.primitive.name, set()).update(types)
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_in_bfloat16_has_float32_outside(name):
    plain, inputs = FAMILIES[name], inputs_of(name)
    narrow = in_precision(plain, "bfloat16")
    params = narrow.init(jax.random.key(0), *inputs)
    equal(params, plain.init(jax.random.key(0), *inputs))

    def value_and_gradient(network):
        def loss(params, x):
            out = network.apply(params, x, *inputs[1:])
            return jnp.mean(jnp.square(out - 0.3)), out

        (_, out), gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
            params, inputs[0]
        )
        return out, gradient

    (expected, gradient), (actual, narrow_gradient) = map(value_and_gradient, (plain, narrow))
    assert actual.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((params, narrow_gradient))} == {FLOAT32}
    near(actual, expected, 0.05)
    assert float(jnp.abs(actual - expected).max()) > 0
    total = lambda tree: float(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))
    difference = total(jax.tree.map(jnp.subtract, gradient, narrow_gradient))
    # Of the U-Net, whose norms over a few pixels come one after the other, 0.07.
    assert difference < 0.1**2 * total(gradient)

    types = dtypes(lambda params: narrow.apply(params, *inputs), params)
    if "conv_general_dilated" in types:
        assert types["conv_general_dilated"] == {"bfloat16"}


def test_a_residual_connection_is_not_rounded():
    network = in_precision(networks.DnCNN(3, 8), "bfloat16")
    x = normal(0, 8, 8, 1)
    params = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0), x))
    equal(network.apply(params, x), x)


@pytest.mark.parametrize(
    "norm",
    [
        GroupNorm(2),
        GroupNorm(2, differentiation="plain"),
        GroupNorm(4, affine=False),
        BatchNorm("signal"),
        BatchNorm("frozen"),
    ],
    ids=["group", "plain", "instance", "signal", "frozen"],
)
def test_norms_take_their_statistics_in_float32(norm):
    """A mean of 100.3 would be 100.5 in bfloat16, and a sum over 1024 pixels half of it."""
    x = (100 + normal(0, 32, 32, 4)).astype(jnp.bfloat16)
    variables = norm.init(jax.random.key(0), x.astype(jnp.float32))
    if "batch_stats" in variables:
        variables["batch_stats"] = {"mean": jnp.full(4, 100.3), "var": jnp.full(4, 1.1)}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} <= {FLOAT32}
    weight = normal(1, 32, 32, 4).astype(jnp.bfloat16).astype(jnp.float32)

    def slopes(x):
        def loss(variables, x):
            y = norm.apply(variables, x)
            return jnp.sum(weight * y.astype(jnp.float32)), y

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables, x)

    (of_variables, of_x), y = slopes(x)
    (expected_of_variables, expected_of_x), expected = slopes(x.astype(jnp.float32))
    assert y.dtype == of_x.dtype == jnp.bfloat16
    near(y.astype(jnp.float32), expected, ROUNDING)
    near(of_x.astype(jnp.float32), expected_of_x, ROUNDING)
    close(of_variables, expected_of_variables)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("inputs", [2, 6])
def test_derivatives_sum_over_pixels_in_float32(inputs, kernel_size):
    """A sum of ones in bfloat16 ends at 256."""
    x, network = jnp.ones((64, 40, inputs)), Conv(6, kernel_size)
    params = network.init(jax.random.key(0), x)
    narrow = x.astype(jnp.bfloat16)
    total = lambda params, x: jnp.sum(network.apply(params, x).astype(jnp.float32))
    gradient = jax.jit(jax.grad(total))(params, narrow)["params"]
    expected = jax.jit(jax.grad(total))(params, x)["params"]
    np.testing.assert_array_equal(gradient["bias"], np.full(6, 64 * 40))
    near(gradient["kernel"], expected["kernel"], ROUNDING)


@pytest.mark.parametrize(
    ("network", "leaf"),
    [(networks.DIDN(8, 1), "PReLU_0"), (networks.ISTANetPlusPhase(8), "threshold")],
    ids=["slope", "threshold"],
)
def test_numbers_for_all_pixels_have_their_gradient_in_float32(network, leaf):
    x = 1 + 0.1 * normal(0, 64, 64, 1)
    params = network.init(jax.random.key(0), x)

    def gradient(network):
        loss = lambda params: jnp.sum(network.apply(params, x))
        return jax.tree.leaves(jax.jit(jax.grad(loss))(params)["params"][leaf])[0]

    near(gradient(in_precision(network, "bfloat16")), gradient(network), 0.1)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("precision", "expected"), [("tf32", "HIGH"), ("float32", "HIGHEST")])
def test_products_of_derivatives_have_the_precision_too(precision, expected, stride):
    """The derivative is taken where `jax.default_matmul_precision` has ended."""
    plain = Conv(6, stride=stride)
    network, x = in_precision(plain, precision), normal(0, 8, 8, 6)
    params = plain.init(jax.random.key(0), x)
    slope = jax.grad(lambda params, x: jnp.sum(network.apply(params, x) ** 2), (0, 1))
    products = [
        equation
        for equation in equations(jax.make_jaxpr(slope)(params, x).jaxpr)
        if equation.primitive.name in ("conv_general_dilated", "dot_general")
    ]
    assert len(products) >= 3
    for equation in products:
        asked = equation.params["precision"]
        assert {value.name for value in asked} == {expected}
    # A CPU has no other product of float32.
    equal(network.apply(params, x), plain.apply(params, x))


def small(name):
    """A tiny experiment with a network of `network.name`, or of ISTA-Net++."""
    module = {"mlp": points, "seismic_cnn": seismic, "ista_net_pp": compressed_sensing}
    config = module.get(name, mri_phantom).get_config()
    config.data.update({"num_train": 8, "num_validation": 2, "num_test": 8})
    config.data.out_of_distribution = ()
    config.data.sections.shape = config.data.images.shape = (16, 16)
    config.network.update({"width": 8, "depth": 1 if name in ("unet", "didn") else 2})
    config.unroll.num_iterations = config.unroll.solver.num_iterations = 2
    if name == "ista_net_pp":
        config.operator.block = 8
        config.data.augment.patch = ()
    else:
        config.network.name = name
    if name in ("unet", "didn", "modl_cnn"):
        config.unroll.method = "half_quadratic"
    if name == "dpdnn_unet":
        config.unroll.method = "half_quadratic_gradient"
        # Not the published 0.1 and 0.9, which weigh the network by 0.
        config.unroll.splitting.update({"delta": 0.2, "eta": 0.3})
    config.network.precision = "bfloat16"
    return config


CONFIGURED = [
    "seismic_cnn",
    "dncnn",
    "unet",
    "didn",
    "modl_cnn",
    "dpdnn_unet",
    "mlp",
    "ista_net_pp",
]


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_config_rounds_nothing_outside_of_networks(name):
    config = small(name)
    built = experiments.build(config)
    batch = built.measure(next(evaluation_batches(built.sources["test"], 1)), "test")
    y, x, operator = batch.measurement[0], batch.signal[0], batch.operator_of(0)
    params = init_params(config, built.reconstructor)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {FLOAT32}

    def loss(params):
        iterates = built.reconstructor.apply(params, operator, y, return_trajectory=True)
        return jnp.sum(jnp.square(jnp.abs(iterates[-1] - x))), iterates

    gradient, iterates = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert iterates.dtype == x.dtype  # float32 or complex64
    leaves = jax.tree.leaves(gradient)
    assert all(leaf.dtype == jnp.float32 and bool(jnp.isfinite(leaf).all()) for leaf in leaves)
    assert sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(gradient["network"])) > 0

    types = dtypes(lambda params: loss(params)[0], params)
    if "conv_general_dilated" in types:
        assert types["conv_general_dilated"] == {"bfloat16"}
    # What the loops hand on: iterates, keys, counters and weights.
    assert "bfloat16" not in types["scan"]
    assert types.get("fft", set()) <= {"complex64"}
    if iterates.dtype == jnp.complex64:
        assert "fft" in types


def trained(config, num_steps, learning_rate):
    """Returns the experiment, and its parameters after some steps of training."""
    config.train.num_steps = num_steps
    config.optimizer.learning_rate = learning_rate
    built = experiments.build(config)
    state, step = start(built)
    batches = list(evaluation_batches(built.sources["train"], 8))
    for number in range(config.train.num_steps):
        state, _ = step(state, batches[number % len(batches)])
    return built, state.params


def psnr(built, params):
    """Returns the mean over the test set in dB."""
    examples = next(evaluation_batches(built.sources["test"], len(built.sources["test"])))
    batch = built.measure(examples, "test")

    @jax.jit
    def one(y, x, operator):
        estimate = built.reconstructor.apply(params, operator, y)
        return built.metrics["psnr"].function(estimate, x)

    values = [
        one(batch.measurement[i], batch.signal[i], batch.operator_of(i)) for i in range(len(batch))
    ]
    return float(np.mean(values))


def trainable(name):
    config = small(name)
    config.data.num_train = 32
    config.scheme.name = "mse"
    config.unroll.num_iterations = 3
    return config


def psnr_in(config, precision, params):
    config.network.precision = precision
    return psnr(experiments.build(config), params)


@pytest.mark.parametrize("name", ["seismic_cnn", "dncnn"])
def test_psnr_changes_by_less_than_a_twentieth_of_a_decibel(name):
    config = trainable(name)
    built, params = trained(config, num_steps=150, learning_rate=1e-2)
    first = psnr(built, init_params(config, built.reconstructor))
    wide, narrow = (psnr_in(config, precision, params) for precision in ("default", "bfloat16"))
    assert wide > first + 1, "trained, so that the network matters"
    assert 0 < abs(narrow - wide) < 0.05


def test_training_is_the_same_until_rounding_has_grown():
    # After 150 larger steps the two are as far apart as runs of two seeds.
    config = trainable("seismic_cnn")
    found = []
    for precision in ("default", "bfloat16"):
        config.network.precision = precision
        built, params = trained(config, num_steps=50, learning_rate=3e-3)
        found.append(psnr_in(config, "default", params))
    assert found[0] > psnr(built, init_params(config, built.reconstructor)) + 0.4
    assert 0 < abs(found[1] - found[0]) < 0.05


def test_a_run_is_evaluated_in_another_precision(tmp_path):
    folder = write_run(tmp_path / "run", tiny_config())
    ((built, params),) = load_experiments([folder], {}).values()
    ((narrow, same),) = load_experiments([folder], {"network.precision": "bfloat16"}).values()
    equal(params, same)
    assert (built.config.network.precision, narrow.config.network.precision) == (
        "default",
        "bfloat16",
    )
    batch = built.measure(next(evaluation_batches(built.sources["test"], 1)), "test")
    wide, rounded = (
        jax.jit(made.reconstructor.apply)(params, batch.operator_of(0), batch.measurement[0])
        for made in (built, narrow)
    )
    near(rounded, wide, 0.02)
    assert float(jnp.abs(rounded - wide).max()) > 0


def test_weighted_smoothing_takes_the_precision():
    config = tiny_config("weighted_step")
    config.network.precision = "bfloat16"
    reconstructor = experiments.make_reconstructor(config)
    params = jax.eval_shape(lambda: init_params(config, reconstructor))
    types = dtypes(reconstructor.weight, params, jnp.zeros((16, 16, 1), jnp.complex64))
    assert types["conv_general_dilated"] == {"bfloat16"}


MRI = cartesian_mri(np.random.default_rng(0).random((4, 4)) < 0.5)
SAMPLING = block_sampling(orthonormal_rows(2, 4, seed=0), shape=(4, 4))
PUBLISHED = {
    "pp": (lambda: ista_net("pp"), SAMPLING, "float32"),
    "plus": (lambda: ista_net("plus"), SAMPLING, "float32"),
    "modl": (modl, MRI, "complex64"),
    "dncnn": (dncnn, identity(), "float32"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_take_the_precision(tmp_path, name):
    make, operator, dtype = PUBLISHED[name]
    np.savez(tmp_path / "net.npz", **make()[-1])
    y = operator.forward(normal(0, 4, 4, 1, dtype=dtype))
    wide, narrow = (
        unroll.load_published(tmp_path / "net.npz", precision=precision)
        for precision in ("default", "bfloat16")
    )
    params = wide.init(jax.random.key(0), operator, y)
    equal(params, narrow.init(jax.random.key(0), operator, y))
    types = dtypes(lambda params: narrow.apply(params, operator, y), params)
    assert types["conv_general_dilated"] == {"bfloat16"}
    out, expected = (jax.eval_shape(made.apply, params, operator, y) for made in (narrow, wide))
    assert (out.shape, out.dtype) == (expected.shape, expected.dtype)


def test_a_config_s_precision_reaches_published_weights(tmp_path):
    np.savez(tmp_path / "net.npz", **dncnn()[-1])
    config = seismic.get_config()
    config.network.update({"weights": str(tmp_path / "net.npz"), "precision": "bfloat16"})
    config.operator.name = "identity"
    reconstructor = experiments.make_reconstructor(config)
    y = jnp.zeros((8, 8, 1))
    params = reconstructor.init(jax.random.key(0), identity(), y)
    types = dtypes(lambda params: reconstructor.apply(params, identity(), y), params)
    assert types["conv_general_dilated"] == {"bfloat16"}


def test_dpdnn_takes_the_precision():
    made = unroll.dpdnn(num_iterations=1, width=4, num_scales=1, precision="bfloat16")
    y = jnp.zeros((8, 8, 1))
    params = jax.eval_shape(lambda: made.init(jax.random.key(0), identity(), y))
    types = dtypes(lambda params: made.apply(params, identity(), y), params)
    assert types["conv_general_dilated"] == {"bfloat16"}


def test_unknown_precisions_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"precision must be one of \('default', .*'half'"):
        in_precision(networks.MLP(), "half")
    with pytest.raises(ValueError, match="`dtype`, got Pointwise"):
        in_precision(Pointwise(), "bfloat16")
    np.savez(tmp_path / "net.npz", **dncnn()[-1])
    for changes in ({}, {"weights": str(tmp_path / "net.npz")}):
        config = seismic.get_config()
        config.network.update({"precision": "half", **changes})
        with pytest.raises(ValueError, match=r"network\.precision='half' is not accepted"):
            experiments.make_reconstructor(config)


def test_other_networks_take_a_precision_of_products():
    x, params = normal(0, 3, 4), normal(1, 4, 4)
    assert in_precision(Pointwise, "default") is Pointwise
    network = in_precision(Pointwise, "float32")
    equal(network.apply(params, x), Pointwise.apply(params, x))
    jaxpr = jax.make_jaxpr(network.apply)(params, x).jaxpr
    (product,) = [e for e in equations(jaxpr) if e.primitive.name == "dot_general"]
    assert {value.name for value in product.params["precision"]} == {"HIGHEST"}
