"""Two stages of training: stopped and continued, shared, refused; what configs of SMUG refuse."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers import equal

from jitter_jax import experiment
from jitter_jax.commands.compare import compare, config_of
from jitter_jax.commands.runs import load_network, load_trained
from jitter_jax.commands.train import pretrained_network, pretraining, train_only
from jitter_jax.config import smug_config
from jitter_jax.train import METRICS_FILE, TIMING_FIELDS, ConfigError, read_metrics

SCHEMES = ("mse", "mse+end_to_end", "unrolled_stability+weighted_step")


def small(**fields):
    config = smug_config()
    config.data.update({"num_train": 2, "num_validation": 1, "num_test": 1})
    config.data.out_of_distribution = ()
    config.data.images.shape = (16, 16)
    config.data.coils.num = 2
    config.network.update({"name": "modl_cnn", "depth": 2, "width": 4})
    config.unroll.num_iterations = 2
    config.unroll.solver.num_iterations = 2
    config.unroll.remat = "none"  # compiles faster
    config.smoothing.update({"num_samples": 2, "chunk": 2})
    config.pretrain.num_steps = 2
    config.optimizer.schedule = "constant"  # so that a run can be stopped by its number of steps
    config.train.update({"num_steps": 2, "batch_size": 2, "log_every": 1, "validate_every": 2})
    config.metrics.names = ("psnr",)
    config.evaluate.attack.name = "fgsm"
    config.evaluate.num_draws = 1
    with config.ignore_type():
        config.update_from_flattened_dict(fields)
    return config


def records(workdir):
    return [
        {name: value for name, value in record.items() if name not in TIMING_FIELDS}
        for record in read_metrics(workdir / METRICS_FILE)
    ]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Three schemes, each in two stages, without a stop."""
    folder = tmp_path_factory.mktemp("compared")
    summary = compare(small(), folder, schemes=SCHEMES, num_seeds=1, progress=False)
    return folder, summary


def test_schemes_of_a_seed_share_the_first_stage(compared):
    folder, summary = compared
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "pretrain-half_quadratic-0",
        "mse-0",
        "mse-end_to_end-0",
        "unrolled_stability-weighted_step-0",
    }
    stage = folder / "pretrain-half_quadratic-0"
    assert [r["step"] for r in records(stage) if r["split"] == "train"] == [1, 2]  # trained once
    stored = json.loads((stage / "config.json").read_text())
    assert (stored["scheme"]["name"], stored["smoothing"]["where"]) == ("denoising", "none")
    assert stored["pretrain"]["num_steps"] == 0
    for scheme in SCHEMES:
        assert np.isfinite(summary[scheme]["worst case"]["psnr"]["mean"])
    losses = [records(folder / f"{name}-0")[0]["loss"] for name in ("mse", "mse-end_to_end")]
    assert losses[0] != losses[1]


def test_comparison_is_read_back_where_it_was_moved_to(compared, tmp_path):
    folder, summary = compared
    shutil.copytree(folder, tmp_path / "moved")
    before = (tmp_path / "moved" / "mse-0" / "evaluation.json").stat().st_mtime_ns
    again = compare(small(), tmp_path / "moved", schemes=("mse",), num_seeds=1, progress=False)
    assert again["mse"] == summary["mse"]
    assert (tmp_path / "moved" / "mse-0" / "evaluation.json").stat().st_mtime_ns == before


def test_methods_do_not_share_a_first_stage(tmp_path):
    """Its folder is of one config, which has the method."""
    folders = {
        config_of(small(), scheme, 0, tmp_path).pretrain.workdir
        for scheme in ("mse", "mse@proximal", "spgd_jitter", "mse+step")
    }
    assert folders == {
        str(tmp_path / name) for name in ("pretrain-half_quadratic-0", "pretrain-proximal-0")
    }


def test_run_that_was_stopped_in_both_stages_goes_on_bit_for_bit(compared, tmp_path):
    folder, _ = compared
    whole = folder / "unrolled_stability-weighted_step-0"
    config = config_of(small(), SCHEMES[2], 0, tmp_path)
    config.pretrain.workdir = ""  # in the run's own folder
    workdir = tmp_path / "run"
    shorter = config.copy_and_resolve_references()
    shorter.pretrain.num_steps = 1
    train_only(pretraining(shorter), workdir / "pretrain", progress=False)
    stopped = config.copy_and_resolve_references()
    stopped.train.num_steps = 1
    train_only(stopped, workdir, progress=False)
    # The first stage is over, and not needed any more.
    shutil.rmtree(workdir / "pretrain" / "checkpoints")
    _, state = train_only(config, workdir, progress=False)
    assert state.step == 2
    equal(load_trained(workdir).params, load_trained(whole).params)
    train = lambda folder: [r for r in records(folder) if r["split"] == "train"]
    assert train(workdir) == train(whole)
    stage = folder / "pretrain-half_quadratic-0"
    assert train(workdir / "pretrain") == train(stage)


def test_second_stage_starts_from_the_first_and_frozen_makes_the_target(compared, tmp_path):
    """At the first step the network is the frozen one, so that the loss is the same."""
    folder, _ = compared
    stage = folder / "pretrain-half_quadratic-0"
    config = config_of(small(), SCHEMES[2], 0, folder)
    equal(pretrained_network(config, folder / "any", progress=False), load_network(stage, config))
    config.scheme.unrolled_stability.frozen = str(stage)
    train_only(config, tmp_path, progress=False)
    own, frozen = records(folder / "unrolled_stability-weighted_step-0"), records(tmp_path)
    assert frozen[0]["step"] == own[0]["step"] == 1
    assert frozen[0]["loss"] == pytest.approx(own[0]["loss"], rel=1e-5)
    assert frozen[0]["grad_norm"] != pytest.approx(own[0]["grad_norm"], rel=1e-3)
    assert frozen[0]["stability"] > 0


@pytest.mark.parametrize(
    ("workdir", "fields", "message"),
    [
        # A run that is no first stage.
        ("new", {"pretrain.workdir": "mse-0"}, "holds a run of the scheme 'mse'"),
        ("new", {"pretrain.workdir": "new"}, "it is the folder of the whole run"),
        # A first stage of another config.
        ("new", {"network.width": 8}, "network.width: the run has 4, the config now says 8"),
        # A first stage where the run should be.
        ("pretrain-half_quadratic-0", {}, 'scheme.name: the run has "denoising"'),
        (
            "new",
            {"scheme.unrolled_stability.frozen": "mse-0", "network.width": 8},
            "another network",
        ),
        ("new", {"scheme.unrolled_stability.frozen": "none"}, "no run was started"),
    ],
)
def test_folders_that_do_not_fit_are_refused(workdir, fields, message, compared):
    folder, _ = compared
    scheme = SCHEMES[2] if "frozen" in str(fields) else "mse"
    config = config_of(small(), scheme, 0, folder)
    folders = ("pretrain.workdir", "scheme.unrolled_stability.frozen")
    for name, value in fields.items():
        value = str(folder / value) if name in folders else value
        config.update_from_flattened_dict({name: value})
    error = ValueError if "frozen" in str(fields) else ConfigError
    before = {path for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(error, match=message):
        train_only(config, folder / workdir, progress=False)
    assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_bad_second_stage_is_refused_before_the_first(tmp_path):
    config = small(**{"smoothing.where": "weighted_step", "smoothing.weight_depth": 0})
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        train_only(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


STABILITY = {"scheme.name": "unrolled_stability", "smoothing.where": "step"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"smoothing.sigma": -0.1}, "sigma must be finite and non-negative, got -0.1"),
        ({"smoothing.sigma": float("nan")}, "sigma must be finite .* got nan"),
        ({"smoothing.num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"smoothing.chunk": -1}, "chunk must be at least 1 or None, got -1"),
        ({"smoothing.clamp": -1.0}, "clamp must be positive or None, got -1.0"),
        ({"smoothing.where": "outside"}, "smoothing.where='outside' is not accepted"),
        ({"smoothing.where": "end_to_end", "smoothing.noise_on": "x"}, "noise_on .* got 'x'"),
        ({"smoothing.where": "step", "smoothing.chunk": 0, "smoothing.memory_gb": 0.0}, "budget"),
        ({"scheme.name": "denoising", "scheme.denoising.sigma": -1.0}, "sigma .* got -1.0"),
        ({"scheme.name": "denoising", "scheme.denoising.num_samples": 0}, "num_samples .* got 0"),
        ({"scheme.name": "unrolled_stability"}, "smoothing.where='none'"),
        (STABILITY | {"smoothing.where": "end_to_end"}, "smoothing.where='end_to_end'"),
        (STABILITY | {"scheme.unrolled_stability.weight": -1.0}, "weight .* got -1.0"),
        (STABILITY | {"scheme.unrolled_stability.target": "x"}, "target .* got 'x'"),
        ({"evaluate.smoothing_draws": 0}, "smoothing_draws=0"),
        ({"unroll.start": "measurement"}, "unroll.start='measurement'"),
        ({"unroll.sees_measurement": True}, "unroll.sees_measurement=True"),
        ({"data.coils.num": 0}, "data.coils.num=0"),
    ],
)
def test_bad_fields_name_the_value(fields, message):
    with pytest.raises(ValueError, match=message):
        experiment.build(small(**fields))


def recorded(folder, **arrays):
    rng = np.random.default_rng(0)
    real, imaginary = rng.normal(size=(2, 2, 16, 16))
    np.savez(folder / "coils.npz", kspace=real + 1j * imaginary, **arrays)
    return {
        "data.out_of_distribution": ("recorded",),
        "data.folder": str(folder),
        "data.coils.file": "coils.npz",
    }


@pytest.mark.parametrize(
    ("arrays", "fields", "message"),
    [
        ({"maps": np.full((3, 16, 16), 1 / np.sqrt(3) + 0j)}, {}, r"\(16, 16, 3\)"),
        (
            {"maps": np.ones((2, 16, 16), complex)},
            {},
            "sum of squares of 1 .* got a deviation of 1; ",
        ),
        ({}, {"data.coils.num_calibration": 0}, "num_calibration"),
    ],
)
def test_bad_recorded_coils_are_refused(arrays, fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        experiment.build(small(**recorded(tmp_path, **arrays), **fields))


def test_memory_decides_how_many_samples_are_taken_at_once():
    fields = {"smoothing.where": "step", "smoothing.chunk": 0, "smoothing.num_samples": 6}
    chunk = lambda memory_gb: (
        experiment.make_reconstructor(
            small(**fields, **{"smoothing.memory_gb": memory_gb})
        ).smoothing.chunk
    )
    assert chunk(1e-9) == 1
    assert chunk(1.0) is None
    # Enough for the samples of one iteration, not for those of both at once.
    assert chunk(1e-9 * 2 * 8 * one_sample_bytes()) == 6


def one_sample_bytes():
    """What the derivative of one sample needs."""
    bare = experiment.make_reconstructor(small())
    operator = experiment.example_operator(small())
    x = np.zeros((16, 16, 1), np.complex64)
    y = jax.eval_shape(operator.forward, x)
    y = np.zeros(y.shape, y.dtype)
    params = jax.eval_shape(bare.init, jax.random.key(0), operator, y)
    energy = lambda tree: abs(bare.learned_step(*tree) ** 2).sum()
    compiled = jax.jit(jax.value_and_grad(energy)).lower((params, x)).compile()
    return compiled.memory_analysis().temp_size_in_bytes
