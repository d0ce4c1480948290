"""Configs become what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import near

from configs import (
    mri_brain,
    mri_fastmri_knee,
    mri_phantom,
    points,
    seismic,
    seismic_paper,
    seismic_wells,
)
from jitter_jax import experiment, schemes, unroll
from jitter_jax.data.pipeline import evaluation_batches


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def small(config=seismic):
    config = config.get_config()
    config.data.update({"num_train": 4, "num_validation": 2, "num_test": 2})
    config.data.sections.shape = (24, 16)
    return config


def test_every_config_is_complete():
    wanted = set(seismic.get_config().to_dict())
    for module in (mri_brain, mri_fastmri_knee, mri_phantom, points, seismic_paper, seismic_wells):
        assert set(module.get_config().to_dict()) == wanted


@pytest.mark.parametrize("module", [mri_phantom, points, seismic, seismic_paper])
def test_configs_build(module):
    built = experiment.build(module.get_config())
    assert set(built.sources) >= {"train", "validation", "test"}


def test_paper_config_is_the_paper_s():
    config = seismic_paper.get_config()
    assert config.unroll.num_iterations == 10
    assert config.train.batch_size == 16
    assert config.optimizer.learning_rate == 1e-4
    assert (config.network.depth, config.network.width) == (5, 64)
    assert config.scheme.jitter.sigma == 0.1
    assert config.optimizer.clip_norm == 0.0
    assert (config.evaluate.threat.epsilon, config.evaluate.threat.unit) == (1.0, "absolute")


def test_out_of_distribution_sets_share_the_noise_of_the_test_set():
    built = experiment.build(small())
    sets = {}
    for name in ("test", "small_layer", "validation"):
        examples = next(evaluation_batches(built.sources[name], 2))
        measured = built.measure(examples, name)
        x, y, scale = (
            np.asarray(a) for a in (measured.signal, measured.measurement, measured.scale)
        )
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


def small_mri():
    config = mri_phantom.get_config()
    config.data.update({"num_train": 4, "num_validation": 2, "num_test": 2})
    config.data.images.shape = (32, 32)
    config.data.out_of_distribution = ("mask", "noise")
    config.data.normalisation = "none"
    config.unroll.num_iterations = 2
    return config


def measured(built, name, count=2):
    return built.measure(next(evaluation_batches(built.sources[name], count)), name)


def test_kspace_has_noise_where_it_is_sampled():
    config = small_mri()
    config.data.noise_std, config.data.shifts.noise_std = 0.02, 0.5
    config.data.sampling.draw = "example"
    built = experiment.build(config)
    batches = {name: measured(built, name) for name in ("test", "mask", "noise")}
    for name, batch in batches.items():
        for i in range(2):
            operator = batch.operator_of(i)
            noise = np.asarray(batch.measurement[i] - operator.forward(batch.signal[i]))
            sampled = np.broadcast_to(operator.support(), noise.shape)
            assert (noise[~sampled] == 0).all() and 0.2 < sampled.mean() < 0.3
            parts = np.stack([noise[sampled].real, noise[sampled].imag])
            level = 0.5 if name == "noise" else 0.02
            assert parts.std() == pytest.approx(level, rel=0.1)
    masks = [np.asarray(batches["test"].operator_of(i).support()) for i in range(2)]
    assert (masks[0] != masks[1]).any()


@pytest.mark.parametrize(
    ("normalisation", "size"),
    [
        ("zero_filled", lambda seen, y: np.abs(seen).max()),
        ("fastmri", lambda seen, y: np.abs(seen).std()),
        ("measurement", lambda seen, y: np.abs(y).max()),
    ],
)
def test_normalisations_of_kspace(normalisation, size):
    config = small_mri()
    plain = measured(experiment.build(config), "test")
    config.data.normalisation = normalisation
    batch = measured(experiment.build(config), "test")
    for i in range(2):
        y = np.asarray(plain.measurement[i])
        scale = size(np.asarray(plain.operator_of(i).adjoint(y)), y)
        near(batch.scale[i], scale, 1e-5)
        near(batch.measurement[i] * scale, y, 1e-5)
        near(batch.signal[i] * scale, plain.signal[i], 1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics.full_scale": "volume"}, "not slices of volumes"),
        ({"data.kind": "generated"}, "operator.name='cartesian_mri' is not accepted with"),
    ],
)
def test_what_images_do_not_have_is_refused(changes, message):
    config = small_mri()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        experiment.build(config)


def test_closed_form_level_counts_real_numbers_that_are_measured():
    config = small_mri()
    config.scheme.input_jitter.update({"level": "krainovic", "epsilon": 0.5})
    built = experiment.build(config)
    batch = measured(built, "train", 4)
    size = 2 * int(batch.operator_of(0).support().sum())
    expected = schemes.krainovic_level(
        0.5,
        noise_std=0.01,
        signal_energy=float(np.mean(np.sum(np.abs(batch.signal) ** 2, (1, 2, 3)))),
        measurement_size=size,
        signal_dimension=size,
    )
    level = experiment.input_level(
        config.scheme.input_jitter, built.sources["train"], built.measure, 0.01
    )
    assert level == pytest.approx(expected)


@pytest.mark.parametrize("scheme", experiment.SCHEMES)
def test_every_scheme_trains_on_kspace(scheme):
    config = small_mri()
    config.scheme.name = scheme
    config.unroll.sees_measurement = False  # of a denoiser
    if scheme == "denoising":
        config.unroll.method = "proximal"
    if scheme == "unrolled_stability":
        config.smoothing.update({"where": "step", "num_samples": 2})
    config.network.update({"width": 4, "depth": 2})
    built = experiment.build(config)
    examples = next(evaluation_batches(built.sources["train"], 2))
    y = measured(built, "train").measurement[0]
    params = built.reconstructor.init(
        jax.random.key(0), experiment.example_operator(built.config), y
    )
    level = () if experiment.levels_of(built.config.scheme) is None else (0,)
    loss = jax.jit(
        jax.value_and_grad(lambda params, key: built.loss(params, examples, key, *level)[0])
    )
    value, gradient = loss(params, jax.random.key(1))
    leaves = jax.tree.leaves(gradient)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(np.abs(leaf).max() > 0 for leaf in leaves)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pretrain.num_steps": 2}, "a first stage .* no denoiser"),
        ({"scheme.name": "denoising"}, "no denoiser"),
        (
            {"smoothing.where": "end_to_end", "unroll.start": "measurement"},
            r"'end_to_end' is not accepted with unroll\.start='measurement'",
        ),
        (
            {
                "unroll.method": "half_quadratic",
                "unroll.step_size.name": "fixed",
                "scheme.jitter.kind": "matched",
            },
            "another unroll.method than 'half_quadratic'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields, message):
    config = small_mri()
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=message):
        experiment.build(config)


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
    config = seismic.get_config()
    config.unroll.num_iterations = 2
    config.scheme.jitter.update({"kind": "absolute", "schedule": (0.0, 2.0)})
    jitter = experiment.make_jitter(config)
    draws = [jitter(jax.random.key(i), jnp.zeros(500), jnp.int32(i), 2) for i in (0, 1)]
    assert float(jnp.abs(draws[0]).max()) == 0.0
    assert float(jnp.std(draws[1])) == pytest.approx(2.0, rel=0.1)
    config.unroll.num_iterations = 3
    with pytest.raises(ValueError, match="2 levels"):
        experiment.make_jitter(config)


def test_matched_jitter_from_config():
    config = seismic.get_config()
    config.unroll.num_iterations = 3
    config.scheme.jitter.update({"kind": "matched", "sigma": 1.0})
    with pytest.raises(ValueError, match="fixed gradient step"):
        experiment.make_jitter(config)
    config.unroll.step_size.update({"name": "fixed", "value": 0.5})
    jitter = experiment.make_jitter(config)
    draw = jitter(jax.random.key(0), jnp.zeros(4000), jnp.int32(0), 3)
    expected = unroll.jitter.matched_jitter(1.0, 0.5, 3)[0]
    assert float(jnp.linalg.norm(draw)) == pytest.approx(float(expected), rel=0.05)


def test_input_level_of_the_data():
    """The closed form, from signals and noise as training sees them."""
    config = small()
    config.scheme.input_jitter.level = "krainovic"
    built = experiment.build(config)
    source, measure = built.sources["train"], built.measure
    level = experiment.input_level(config.scheme.input_jitter, source, measure, 0.01)
    batch = measure(next(evaluation_batches(source, 4)), "train")
    expected = schemes.krainovic_level(
        0.5,
        noise_std=0.01 * float(np.mean(1 / np.asarray(batch.scale))),
        signal_energy=float(np.mean(np.sum(np.asarray(batch.signal) ** 2, (1, 2, 3)))),
        measurement_size=24 * 16,
        signal_dimension=24 * 16,
    )
    assert level == pytest.approx(expected, rel=1e-5)
    assert level > 0


def test_no_closed_form_level_for_a_signal_that_is_zero():
    config = points.get_config()
    config.scheme.input_jitter.level = "krainovic"
    with pytest.raises(ValueError, match="epsilon"):
        experiment.build(config)


BAD_FIELDS = {
    "operator.name": "radon",
    "network.name": "transformer",
    "unroll.method": "newton",
    "unroll.step_size.name": "cubic",
    "unroll.remat": "some",
    "unroll.start": "noise",
    "scheme.name": "magic",
    "scheme.jitter.kind": "pink",
    "scheme.adversarial.threat.epsilon": -0.5,
    "scheme.input_jitter.level": "much",
    "data.kind": "radar",
    "data.normalisation": "l2",
    "data.noise_std": -0.1,
    "evaluate.attack.name": "magic",
    "evaluate.threat.norm": "l3",
    "evaluate.num_draws": 0,
    "metrics.peak": -1.0,
    "data.num_validation": 0,
    "data.sections.added_layer": "wide",
}


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_bad_fields_name_the_value(field):
    config = small()
    with config.ignore_type():
        config.update_from_flattened_dict({field: BAD_FIELDS[field]})
    with pytest.raises(ValueError, match=str(BAD_FIELDS[field])):
        experiment.build(config)


def test_unknown_and_missing_fields_are_named():
    config = small()
    with pytest.raises(AttributeError, match="widht"):
        config.network.widht = 3
    with config.unlocked():
        config.network.widht = 3
        del config.train.keep
    with pytest.raises(ValueError, match=r"unknown field network.widht; missing field train.keep"):
        experiment.build(config)


def test_ssim_needs_room():
    config = small()
    config.data.sections.shape = (24, 8)
    with pytest.raises(ValueError, match="11x11"):
        experiment.build(config)


def file_config(path, **fields):
    config = small()
    config.data.update({"kind": "file", "out_of_distribution": (), "num_test": 5})
    config.data.file.update({"train": str(path / "train.npz"), "test": str(path / "test.npy")})
    config.update_from_flattened_dict(fields)
    return config


def test_file_sources(tmp_path):
    signals = np.arange(6 * 12 * 11, dtype=np.float32).reshape(6, 12, 11)
    np.savez(tmp_path / "train.npz", signal=signals, measurement=-signals)
    np.save(tmp_path / "test.npy", signals[:2])
    sources = experiment.build(file_config(tmp_path)).sources
    assert [len(sources[name]) for name in ("train", "validation", "test")] == [4, 2, 2]
    np.testing.assert_array_equal(sources["validation"][1]["measurement"][..., 0], -signals[5])
    with pytest.raises(IndexError):
        sources["validation"][2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data.num_validation": 6}, "num_validation=6"),
        ({"data.file.test": ""}, "data.file.test is empty"),
        ({"data.out_of_distribution": ("small_bias",)}, "small_bias"),
        ({"evaluate.attacked": ("test",)}, r"evaluate\.attacked='test' is not accepted"),
        ({"data.out_of_distribution": ("sigmoid",)}, "data.folder is empty"),
    ],
)
def test_bad_file_fields(fields, message, tmp_path):
    signals = np.ones((6, 12, 11), np.float32)
    np.savez(tmp_path / "train.npz", signal=signals)
    np.save(tmp_path / "test.npy", signals[:2])
    with pytest.raises(ValueError, match=message):
        experiment.build(file_config(tmp_path, **fields))


def test_one_file_is_not_both(tmp_path):
    np.savez(tmp_path / "train.npz", signal=np.ones((6, 12, 11), np.float32))
    config = file_config(tmp_path)
    config.data.file.test = config.data.file.train
    with pytest.raises(ValueError, match="the same file"):
        experiment.build(config)


def test_wells_are_not_both():
    config = small()
    config.data.kind = "wells"
    config.data.wells.test = ("F03_2",)
    with pytest.raises(ValueError, match="F03_2"):
        experiment.build(config)


def test_given_measurements_are_only_normalised(tmp_path):
    signals = np.ones((3, 24, 16), np.float32)
    np.savez(tmp_path / "train.npz", signal=signals, measurement=4 * signals)
    np.save(tmp_path / "test.npy", signals)
    built = experiment.build(file_config(tmp_path, **{"data.num_validation": 1}))
    measured = built.measure(next(evaluation_batches(built.sources["train"], 2)), "train")
    near(measured.measurement, np.ones((2, 24, 16, 1)), 1e-6)
    near(measured.signal, np.full((2, 24, 16, 1), 0.25), 1e-6)
    near(measured.scale, np.full(2, 4.0), 1e-6)
