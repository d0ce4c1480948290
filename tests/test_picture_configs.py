"""Configs of pictures become what they say: operators, ratios, patches, defences, weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_files import dncnn, ista_net

from configs import compressed_sensing, denoising
from jitter_jax import experiment
from jitter_jax.commands.runs import init_params
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.operator_config import make_operator, make_redraw

SIDE = 16


def small(config=denoising, **fields):
    config = config.get_config()
    config.data.update({"num_train": 4, "num_validation": 2, "num_test": 2})
    config.data.images.shape = (SIDE, SIDE)
    config.data.augment.patch = ()
    config.operator.kernel_size = 5
    config.network.update({"width": 2, "depth": 1})
    config.unroll.num_iterations = 2
    config.update_from_flattened_dict(fields)
    return config


def sampled(**fields):
    """Block compressed sensing with blocks of 4 x 4 pixels."""
    return small(compressed_sensing, **{"operator.block": 4, "operator.train_ratios": ()} | fields)


def measured(built, name="test"):
    return built.measure(next(evaluation_batches(built.sources[name], 2)), name)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (small(), (SIDE, SIDE, 1)),
        (small(**{"operator.name": "blur"}), (SIDE, SIDE, 1)),
        (small(**{"operator.name": "super_resolution", "operator.factor": 4}), (4, 4, 1)),
        (small(**{"operator.name": "inpainting", "operator.ratio": 0.5}), (SIDE, SIDE, 1)),
        (sampled(**{"operator.ratio": 0.3}), (4, 4, 5, 1)),
        (sampled(**{"operator.ratio": 0.3, "operator.matrix": "gaussian"}), (4, 4, 5, 1)),
    ],
    ids=["identity", "blur", "super_resolution", "inpainting", "orthonormal", "gaussian"],
)
def test_pictures_are_measured_and_reconstructed(config, shape):
    built = experiment.build(config)
    batch = measured(built)
    assert batch.measurement.shape == (2, *shape)
    operator, y = batch.operator_of(0), batch.measurement[0]
    params = built.reconstructor.init(jax.random.key(0), operator, y)
    estimate = jax.eval_shape(built.reconstructor.apply, params, operator, y)
    assert estimate.shape == (SIDE, SIDE, 1)
    noise = np.asarray(y) - np.asarray(operator.forward(batch.signal[0]))
    support = operator.support()
    if support is not None:
        assert not noise[~np.broadcast_to(support, noise.shape)].any()
        noise = noise[np.broadcast_to(support, noise.shape)]
    assert np.std(noise) == pytest.approx(config.data.noise_std, rel=0.3, abs=1e-6)


def test_pixels_that_are_kept_are_the_share_asked_for_and_those_of_every_picture():
    built = experiment.build(small(**{"operator.name": "inpainting", "operator.ratio": 0.25}))
    batch = measured(built)
    masks = [np.asarray(batch.operator_of(i).support()) for i in range(2)]
    np.testing.assert_array_equal(*masks)
    assert masks[0].mean() == pytest.approx(0.25, abs=0.1)
    examples = {"signal": np.zeros((3, SIDE, SIDE, 1)), "index": np.array([0, 7, 0])}
    drawn = np.asarray(make_redraw(built.operator)(examples, jax.random.key(0))["mask"])
    np.testing.assert_array_equal(drawn[0], drawn[2])  # an example's own
    assert (drawn[0] != drawn[1]).any() and (drawn[0] != masks[0][..., 0]).any()


def test_a_training_ratio_is_drawn_for_every_example():
    config = sampled(**{"operator.train_ratios": (0.25, 0.5, 1.0)})
    operator = make_operator(config.operator)
    index = np.arange(60)
    examples = {"signal": np.zeros((60, 8, 8, 1), np.float32), "index": index}
    redraw = make_redraw(operator)
    rows = np.asarray(redraw(examples, jax.random.key(3))["rows"])
    assert set(rows) == {4, 8, 16} and min(np.bincount(rows)[[4, 8, 16]]) > 10
    part = {"signal": examples["signal"][5:9], "index": index[5:9]}
    np.testing.assert_array_equal(redraw(part, jax.random.key(3))["rows"], rows[5:9])
    assert (np.asarray(redraw(examples, jax.random.key(4))["rows"]) != rows).any()
    # What is not measured is zero, and the network is told the ratio.
    one = operator({"signal": jnp.zeros((8, 8, 1)), "rows": 4})
    y = np.asarray(one.forward(jnp.ones((8, 8, 1))))
    assert y.shape[2] == 16 and not y[:, :, 4:].any() and y[:, :, :4].any()


def test_a_matrix_from_a_file(tmp_path):
    rng = np.random.default_rng(0)
    phi, start = rng.standard_normal((5, 16)), rng.standard_normal((16, 5))
    np.savez(tmp_path / "own.npz", phi=phi, Qinit=start)
    np.savez(tmp_path / "plus.npz", **ista_net("plus")[-1])
    fields = {"operator.matrix": str(tmp_path / "own.npz"), "operator.ratio": 0.3}
    built = experiment.build(sampled(**fields))
    batch = measured(built)
    patch = np.asarray(batch.signal[0])[:4, :4, 0].ravel()
    np.testing.assert_allclose(batch.measurement[0][0, 0, :, 0], phi @ patch, rtol=1e-4, atol=1e-5)
    with_start = {**fields, "network.weights": str(tmp_path / "plus.npz")}
    estimates = []
    for scale in (1, 2):
        np.savez(tmp_path / "own.npz", phi=phi, Qinit=scale * start)
        built = experiment.build(sampled(**with_start))
        params = init_params(built.config, built.reconstructor)
        operator, y = batch.operator_of(0), batch.measurement[0]
        estimates.append(np.asarray(built.reconstructor.apply(params, operator, y)))
    assert np.abs(estimates[0] - estimates[1]).max() > 0.01


@pytest.mark.parametrize("name", ["smt_adv", "smt_grad", "jacobian", "adversarial"])
def test_defences_are_made_and_lower_the_loss_they_are_given(name):
    config = small(**{"scheme.name": name, "scheme.smt_grad.step": "accumulated"})
    config.scheme.smt_grad.update({"num_levels": 2, "num_samples": 1})
    config.scheme.smt_adv.num_samples = config.scheme.jacobian.num_iterations = 1
    config.scheme.adversarial.attack.num_steps = 1
    config.data.augment.update({"patch": (8, 8), "flips": True})
    built = experiment.build(config)
    params = init_params(config, built.reconstructor)
    raw = next(evaluation_batches(built.sources["train"], 2))
    loss = lambda params: built.loss(params, raw, jax.random.key(0))[0]
    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    size = sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(gradient))
    moved = jax.tree.map(lambda p, g: p - 1e-3 * value / size * g, params, gradient)
    assert 0 < float(jax.jit(loss)(moved)) < float(value)


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (sampled, {"operator.ratio": 1.5}, "operator.ratio=1.5"),
        (sampled, {"operator.train_ratios": (0.1, 0.0)}, "operator.ratio=0.0"),
        (sampled, {"operator.matrix": "hadamard"}, "operator.matrix='hadamard'"),
        (small, {"operator.name": "inpainting", "operator.ratio": 0.0}, "operator.ratio=0.0"),
        (small, {"operator.name": "cartesian_mri"}, "images are expected"),
        (small, {"unroll.method": "ista_net_pp"}, "'block_sampling' and 'none' are expected"),
        (small, {"scheme.smt_grad.step": "all", "scheme.name": "smt_grad"}, "scheme.smt_grad.step"),
        (small, {"data.augment.patch": (20, 8)}, r"data.augment.patch=\(20, 8\)"),
        (small, {"data.augment.patch": (8,)}, r"data.augment.patch=\(8,\)"),
    ],
)
def test_refused(make, fields, message):
    with pytest.raises(ValueError, match=message):
        experiment.build(make(**fields))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"phi": np.ones((5, 15))}, r"shape \(5, 15\), and \(rows, 16\) with 8 rows"),
        ({"phi": np.ones((6, 16))}, r"shape \(6, 16\), and \(rows, 16\) with 8 rows"),
        ({"phi": np.full((8, 16), np.nan)}, "NaN"),
        ({"psi": np.ones((8, 16))}, "phi"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "own.npz", **arrays)
    fields = {"operator.matrix": str(tmp_path / "own.npz"), "operator.ratio": 0.5}
    with pytest.raises(ValueError, match=message):
        experiment.build(sampled(**fields))


def test_published_weights_are_not_smoothed(tmp_path):
    np.savez(tmp_path / "net.npz", **dncnn()[-1])
    fields = {"network.weights": str(tmp_path / "net.npz"), "smoothing.where": "step"}
    with pytest.raises(ValueError, match="published networks are not smoothed"):
        experiment.build(small(**fields))
