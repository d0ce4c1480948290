"""Certificates of runs as `bin/certify` gives them: what the numbers are, what is kept, refused."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from published_files import ista_net
from tiny_runs import write_run
from traces import assert_ran

from configs import compressed_sensing, denoising, points
from jitter_jax import certify
from jitter_jax.commands import certify as command
from jitter_jax.commands.certify import Plan, certify_runs
from jitter_jax.commands.runs import load_experiments, published_experiments
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.keys import domain_key, subkey
from jitter_jax.metrics import mse

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = 40
PLAN = Plan(sigmas=(0.1, 0.2), epsilons=(0.0, 0.05), samples=(SAMPLES,), confidence=0.9, chunk=8)
OPTIONS = {"num_examples": 2, "progress": False}


def tiny(config):
    config.data.update({"num_train": 4, "num_validation": 2, "num_test": 3})
    config.data.images.shape = (16, 16)
    config.data.augment.patch = (8, 8)
    config.data.out_of_distribution = ()
    config.unroll.num_iterations = 1
    config.network.update({"name": "dncnn", "width": 4, "depth": 2})
    config.unroll.method = "proximal"
    config.evaluate.attack.num_steps = 2
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return load_experiments([write_run(folder, tiny(denoising.get_config()))], {})


@pytest.fixture(scope="module")
def certified(run, tmp_path_factory):
    output = tmp_path_factory.mktemp("certified")
    return output, certify_runs(run, output, PLAN, **OPTIONS)


def row_of(report, sigma, epsilon):
    (row,) = [row for row in report["rows"] if (row["sigma"], row["epsilon"]) == (sigma, epsilon)]
    return row


def test_the_numbers_are_those_of_the_functions(run, certified):
    experiment, params = run["tiny"]
    batch = experiment.measure(next(evaluation_batches(experiment.sources["test"], 2)), "test")
    operator, x, y = batch.operator_of(1), batch.signal[1], batch.measurement[1]
    f = certify.freeze(experiment.reconstructor, params, operator, key=domain_key(0, "frozen"))
    settings = {
        "budget": certify.Budget(0.05, 0.2, num_samples=SAMPLES, confidence=0.9),
        "key": subkey(jax.random.fold_in(domain_key(0, "certify"), 1), "clean"),
        "chunk": 8,
    }
    error = certify.certified_error(f, operator, y, x, loss=mse, **settings)
    discrepancy = certify.certified_discrepancy(f, operator, y, loss=mse, **settings)
    values = {
        name: of_signals[1]
        for name, of_signals in row_of(certified[1], 0.2, 0.05)["values"].items()
    }
    expected = {
        "psnr": -10 * np.log10(mse(f(y), x)),
        "smoothed_psnr": -10 * np.log10(error.median),
        "certified_psnr": -10 * np.log10(error.bound),
        "discrepancy": discrepancy.median,
        "certified_discrepancy": discrepancy.bound,
    }
    assert values["attacked_psnr"] < values["psnr"]
    for name, value in expected.items():
        assert values[name] == pytest.approx(float(value), rel=1e-4), name


def test_rows_keep_the_order_that_must_hold(certified):
    _, report = certified
    assert len(report["rows"]) == 4
    for row in report["rows"]:
        mean = {name: numbers["mean"] for name, numbers in row["metrics"].items()}
        assert mean["certified_psnr"] < mean["smoothed_psnr"] < mean["psnr"]
        # Of other draws, so the two medians differ by chance.
        assert mean["certified_psnr"] <= mean["smoothed_attacked_psnr"] + 0.2
        assert mean["certified_discrepancy"] > mean["discrepancy"] > 0
        assert row["num_signals"] == 2 and row["num_samples"] == SAMPLES
    near, far = (row_of(report, 0.1, epsilon)["metrics"] for epsilon in (0.0, 0.05))
    assert far["certified_psnr"]["mean"] < near["certified_psnr"]["mean"]
    assert far["attacked_psnr"]["mean"] < near["attacked_psnr"]["mean"] == near["psnr"]["mean"]


def test_files(certified):
    output, report = certified
    assert json.loads((output / "certify.json").read_text()) == report
    assert "0.9 for each signal by itself" in report["definitions"]["confidence"]
    with (output / "certify.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    for name in ("certify.png", "curves.png"):
        assert (output / name).stat().st_size > 1000


def test_a_stopped_command_goes_on(run, certified, monkeypatch):
    output, report = certified
    known = json.loads((output / command.SIGNALS_FILE).read_text())
    (output / command.SIGNALS_FILE).write_text(json.dumps(known[:1]))  # stopped after one signal
    computed, certified_of = [], command._Run.certified
    count = lambda self, *signal: computed.append(None) or certified_of(self, *signal)
    monkeypatch.setattr(command._Run, "certified", count)
    assert certify_runs(run, output, PLAN, **OPTIONS)["rows"] == report["rows"]
    assert len(computed) == 1
    other = replace(PLAN, sigmas=(0.3,), epsilons=(0.0,))
    certify_runs(run, output, other, **OPTIONS)
    assert len(computed) == 3
    assert certify_runs(run, output, PLAN, **OPTIONS)["rows"] == report["rows"]
    assert len(computed) == 3


def test_whole_images_and_what_cannot_be_certified(run, tmp_path, capsys):
    plan = Plan(
        sigmas=(0.2,),
        epsilons=(0.02, 5.0),
        samples=(SAMPLES,),
        confidence=0.5,
        certificates=("loss", "pixels", "centre"),
    )
    report = certify_runs(run, tmp_path, plan, **OPTIONS)
    feasible, too_far = report["rows"]
    assert 0 < feasible["metrics"]["pixel_width"]["mean"] < 1
    assert set(feasible["metrics"]) == set(command.COLUMNS)
    # Nothing is certified there, the other columns are.
    assert too_far["rank"] is None and "certified_psnr" not in too_far["metrics"]
    assert too_far["metrics"]["attacked_psnr"]["mean"] < feasible["metrics"]["psnr"]["mean"]
    assert " none " in capsys.readouterr().out


def test_one_confidence_for_all_signals():
    together = replace(PLAN, simultaneous=True)
    budgets = command.plan_budgets(together, 10, (0.0, 1.0))
    assert {budget.confidence for budget in budgets.values()} == {0.99}


def test_noise_in_the_measurement(tmp_path):
    """Blurred pictures: threat and noise are not blurred with them, so they hurt more."""
    config = tiny(denoising.get_config())
    config.operator.update({"name": "blur", "kernel_size": 5})
    runs = load_experiments([write_run(tmp_path / "blurred", config)], {})
    plan = Plan(sigmas=(0.1,), epsilons=(0.02,), samples=(SAMPLES,), confidence=0.9)
    found = {}
    for space in ("signal", "measurement"):
        report = certify_runs(
            runs, tmp_path, replace(plan, space=space), num_examples=1, progress=False
        )
        assert f"added to the {space}" in report["definitions"]["noise"]
        found[space] = report["rows"][0]["metrics"]["certified_discrepancy"]["mean"]
    assert found["measurement"] > 1.5 * found["signal"] > 0


def test_how_many_draws_are_computed_at_once_changes_no_number(run, certified, tmp_path):
    _, report = certified
    again = certify_runs(run, tmp_path, replace(PLAN, chunk=None), **OPTIONS)
    for row, same in zip(again["rows"], report["rows"], strict=True):
        for name, values in same["metrics"].items():
            assert row["metrics"][name]["mean"] == pytest.approx(values["mean"], rel=1e-4), name


def test_large_pictures_are_drawn_one_on_each_device():
    config = denoising.get_config()
    config.data.images.shape = (256, 256)
    experiment = SimpleNamespace(config=config)
    assert command._draws_at_once(experiment) == jax.device_count()
    config.data.images.shape = (16, 16)
    config.devices.num = 1
    assert command._draws_at_once(experiment) == 32


def test_runs_of_earlier_versions(tmp_path):
    """Fields that came later have their defaults."""
    folder = write_run(tmp_path / "earlier", tiny(denoising.get_config()))
    stored = json.loads((folder / "config.json").read_text())
    del stored["devices"], stored["train"]["steps_at_once"], stored["network"]["precision"]
    (folder / "config.json").write_text(json.dumps(stored))
    experiment, _ = load_experiments([folder], {})["earlier"]
    assert experiment.config.devices.num == 0 and experiment.config.train.steps_at_once == 1
    assert experiment.config.network.precision == denoising.get_config().network.precision


def test_points_have_no_picture(tmp_path):
    config = points.get_config()
    config.data.update({"num_train": 4, "num_validation": 2, "num_test": 3})
    runs = load_experiments([write_run(tmp_path / "points", config)], {})
    report = certify_runs(runs, tmp_path / "certified", PLAN, num_examples=2, progress=False)
    assert report["rows"][0]["metrics"]["certified_discrepancy"]["mean"] > 0
    written = {path.name for path in (tmp_path / "certified").iterdir()}
    assert "certify.csv" in written and "certify.png" not in written


def test_published_weights(tmp_path):
    """Of the config they keep what is measured, and bring the rest."""
    np.savez(tmp_path / "small.npz", **ista_net("pp")[-1])
    config = tiny(compressed_sensing.get_config())
    config.data.images.shape = (33, 33)
    config.data.augment.patch = ()
    runs = published_experiments([tmp_path / "small.npz"], config, {"operator.ratio": 0.5})
    experiment, params = runs["small"]
    assert experiment.config.operator.ratio == 0.5
    assert params["network"]["params"]["Conv_0"]["kernel"].shape[0] == 2  # phases of the file
    plan = Plan(sigmas=(0.2,), epsilons=(0.02,), samples=(10,), confidence=0.5)
    report = certify_runs(runs, tmp_path, plan, num_examples=1, progress=False)
    assert report["rows"][0]["run"] == "small"
    with pytest.raises(ValueError, match="different names"):
        published_experiments([tmp_path / "small.npz"] * 2, config, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigmas": (0.0,)}, "sigma must be finite and positive, got 0.0"),
        ({"sigmas": (-1.0,)}, "sigma must be finite and positive, got -1.0"),
        ({"epsilons": (-0.1,)}, "epsilon must be finite and non-negative, got -0.1"),
        (
            {"epsilons": (0.5,), "sigmas": (0.1,)},
            "num_samples=8032696 would do, or epsilon at most 0.1589",
        ),
        ({"confidence": 1.0}, "confidence must be .* got 1.0"),
        ({"confidence": 0.0}, "confidence must be .* got 0.0"),
        ({"samples": (1,)}, "num_samples must be .*at least 2, got 1"),
        ({"certificates": ("loss", "error")}, "certificate='error' is not accepted"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
        ({"space": "image"}, "space must be one of .* got 'image'"),
    ],
)
def test_bad_plans_are_refused(run, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        certify_runs(run, tmp_path / "out", replace(PLAN, **changes), **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_pictures_out_of_their_range_are_refused(run, tmp_path):
    experiment, params = run["tiny"]
    wide = [
        {**example, "signal": 255 * example["signal"]}
        for example in map(experiment.sources["test"].__getitem__, range(2))
    ]
    sources = {**experiment.sources, "test": wide}
    with pytest.raises(ValueError, match=r"outside of pixel_range=\(0.0, 1.0\)"):
        certify_runs({"wide": (experiment._replace(sources=sources), params)}, tmp_path, PLAN)


def test_the_binary_wants_runs_or_weights():
    done = subprocess.run(
        [sys.executable, ROOT / "bin" / "certify", "--weights=a.npz", "--workdir=a", "--output=b"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "either --workdir, or --weights with --output, is expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_trace_compiles_nothing_also_if_all_numbers_are_read_back(run, certified, tmp_path):
    output, report = certified
    again = certify_runs(run, output, PLAN, profile=tmp_path, **OPTIONS)
    assert again == report
    assert_ran("_losses_of", tmp_path / "tiny")
