"""Configs become what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import near

from configs import points, seismic, seismic_paper, seismic_wells
from jitter_jax import experiment, unroll
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.data.sources import make_sources


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def small(config=seismic):
    config = config.get_config()
    config.data.update({"shape": (24, 16), "num_train": 4, "num_validation": 2, "num_test": 2})
    return config


def test_every_config_is_complete():
    wanted = set(seismic.get_config().to_dict())
    for module in (points, seismic_paper, seismic_wells):
        assert set(module.get_config().to_dict()) == wanted


@pytest.mark.parametrize("module", [points, seismic, seismic_paper])
def test_configs_build(module):
    built = experiment.build(module.get_config())
    assert set(built.sources) >= {"train", "validation", "test"}


def test_paper_config_is_the_paper_s():
    config = seismic_paper.get_config()
    assert config.unroll.num_iterations == 10
    assert config.train.batch_size == 16
    assert config.optimizer.learning_rate == 1e-4
    assert (config.network.depth, config.network.width) == (5, 64)
    assert (config.evaluate.threat.epsilon, config.evaluate.threat.unit) == (1.0, "absolute")


def test_out_of_distribution_sets_share_the_noise_of_the_test_set():
    built = experiment.build(small())
    sets = {}
    for name in ("test", "small_layer", "validation"):
        examples = next(evaluation_batches(built.sources[name], 2))
        measured = built.measure(examples, name)
        x, y, scale = (np.asarray(a) for a in measured)
        raw = jax.vmap(built.operator.forward)(jnp.asarray(examples["signal"]))
        sets[name] = y * scale[:, None, None, None] - np.asarray(raw)
        near(x * scale[:, None, None, None], examples["signal"], 1e-5)
        near(np.abs(y).max(axis=(1, 2, 3)), np.ones(2), 1e-6)
    near(sets["small_layer"], sets["test"], 1e-3)
    assert np.abs(sets["validation"] - sets["test"]).max() > 0.01
    assert np.std(sets["test"]) == pytest.approx(0.01, rel=0.1)


def test_training_noise_is_each_examples_own():
    """The noise hangs on the example's number, neither on its place nor on its neighbours."""
    built = experiment.build(small())
    examples = next(evaluation_batches(built.sources["train"], 4))
    whole = built.measure(examples, "train").measurement
    turned = {key: value[[2, 0]] for key, value in examples.items()}
    part = built.measure(turned, "train").measurement
    near(part, np.asarray(whole)[[2, 0]], 1e-6)


@pytest.mark.parametrize("fresh", [False, True])
def test_fresh_noise(fresh):
    config = small()
    config.scheme.name = "mse"
    config.data.fresh_noise = fresh
    built = experiment.build(config)
    examples = next(evaluation_batches(built.sources["train"], 2))
    y = built.measure(examples, "train").measurement[0]
    params = built.reconstructor.init(jax.random.key(0), built.operator, y)
    losses = [float(built.loss(params, examples, jax.random.key(i))[0]) for i in (0, 1)]
    assert (losses[0] != losses[1]) == fresh


def test_spgd_unrolls_the_proximal_method():
    config = small()
    config.unroll.num_iterations = 2
    outputs = {}
    for scheme, method in (
        ("spgd_jitter", "gradient"),
        ("mse", "proximal"),
        ("mse", "gradient"),
    ):
        config.scheme.name, config.unroll.method = scheme, method
        built = experiment.build(config)
        y = jax.random.normal(jax.random.key(1), (24, 16, 1))
        params = built.reconstructor.init(jax.random.key(0), built.operator, y)
        outputs[scheme, method] = np.asarray(built.reconstructor.apply(params, built.operator, y))
    near(outputs["spgd_jitter", "gradient"], outputs["mse", "proximal"], 1e-6)
    assert np.abs(outputs["mse", "gradient"] - outputs["mse", "proximal"]).max() > 1e-3


def test_jitter_schedule_from_config():
    config = seismic.get_config().scheme.jitter
    config.kind, config.schedule = "absolute", (0.0, 2.0)
    jitter = experiment.make_jitter(config, 2)
    draws = [jitter(jax.random.key(i), jnp.zeros(500), jnp.int32(i), 2) for i in (0, 1)]
    assert float(jnp.abs(draws[0]).max()) == 0.0
    assert float(jnp.std(draws[1])) == pytest.approx(2.0, rel=0.1)
    with pytest.raises(ValueError, match="2 levels"):
        experiment.make_jitter(config, 3)


def test_matched_jitter_from_config():
    config = seismic.get_config().scheme.jitter
    config.kind, config.sigma, config.step_size = "matched", 1.0, 0.5
    jitter = experiment.make_jitter(config, 3)
    draw = jitter(jax.random.key(0), jnp.zeros(4000), jnp.int32(0), 3)
    expected = unroll.jitter.matched_jitter(1.0, 0.5, 3)[0]
    assert float(jnp.linalg.norm(draw)) == pytest.approx(float(expected), rel=0.05)


@pytest.mark.parametrize("level", ["fixed", "krainovic"])
def test_input_level(level):
    config = seismic.get_config().scheme.input_jitter
    config.level = level
    assert experiment.input_level(config) > 0


BAD_FIELDS = {
    "operator.name": "radon",
    "network.name": "transformer",
    "unroll.method": "newton",
    "unroll.step_size.name": "cubic",
    "unroll.remat": "some",
    "unroll.start": "noise",
    "scheme.name": "magic",
    "scheme.jitter.kind": "pink",
    "data.kind": "radar",
    "data.normalisation": "l2",
    "data.noise_std": -0.1,
    "evaluate.attack.name": "magic",
    "evaluate.threat.norm": "l3",
}


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_bad_fields_name_the_value(field):
    config = small()
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({field: BAD_FIELDS[field]})
    with pytest.raises(ValueError, match=str(BAD_FIELDS[field])):
        built = experiment.build(config)
        built.measure(next(evaluation_batches(built.sources["train"], 1)), "train")


def test_file_sources(tmp_path):
    signals = np.arange(6 * 4 * 3, dtype=np.float32).reshape(6, 4, 3)
    np.savez(tmp_path / "train.npz", signal=signals, measurement=-signals)
    np.save(tmp_path / "test.npy", signals[:2])
    options = {
        "seed": 0,
        "shape": (4, 3),
        "num_train": 1,
        "num_validation": 2,
        "num_test": 5,
        "train_file": str(tmp_path / "train.npz"),
        "test_file": str(tmp_path / "test.npy"),
    }
    sources = make_sources("file", **options)
    assert [len(sources[name]) for name in ("train", "validation", "test")] == [4, 2, 2]
    np.testing.assert_array_equal(sources["validation"][1]["measurement"][..., 0], -signals[5])
    with pytest.raises(IndexError):
        sources["validation"][2]
    with pytest.raises(ValueError, match="num_validation=6"):
        make_sources("file", **(options | {"num_validation": 6}))
    with pytest.raises(ValueError, match="test_file"):
        make_sources("file", **(options | {"test_file": ""}))
    with pytest.raises(ValueError, match="small_bias"):
        make_sources("file", **options, out_of_distribution=("small_bias",))


def test_given_measurements_are_only_normalised(tmp_path):
    signals = np.ones((3, 24, 16), np.float32)
    np.savez(tmp_path / "data.npz", signal=signals, measurement=4 * signals)
    config = small()
    config.data.update({"kind": "file", "num_validation": 1})
    config.data.train_file = config.data.test_file = str(tmp_path / "data.npz")
    config.data.out_of_distribution = ()
    built = experiment.build(config)
    measured = built.measure(next(evaluation_batches(built.sources["train"], 2)), "train")
    near(measured.measurement, np.ones((2, 24, 16, 1)), 1e-6)
    near(measured.signal, np.full((2, 24, 16, 1), 0.25), 1e-6)
