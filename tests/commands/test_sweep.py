"""Sweeps of tiny trained runs: what the rows say, what is kept, what is refused."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import tiny_config, write_run

from jitter_jax import experiment as experiments
from jitter_jax.commands import sweep
from jitter_jax.commands.evaluate import evaluate
from jitter_jax.commands.runs import load_config, load_trained
from jitter_jax.commands.sweep import FIGURES, rank_correlation, sweep_runs
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.evaluate.table import Condition

GRIDS = {
    "epsilons": [0.0, 0.3],
    "accelerations": [2.0, 4.0],
    "iterations": [1, 2],
    "sigmas": [0.01, 1.0],
}
OPTIONS = {"overrides": {}, "num_examples": 3, "progress": False, **GRIDS}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A plain run and one with a weighted average."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_run(folder / name, tiny_config(where))
        for name, where in (("plain", "none"), ("weighted", "weighted_step"))
    ]


@pytest.fixture(scope="module")
def swept(runs, tmp_path_factory):
    """All figures of the weighted run."""
    output = tmp_path_factory.mktemp("sweep")
    return output, sweep_runs(runs[1:], output, **OPTIONS)


def mean_of(rows, run, condition, metric="psnr", **at):
    (row,) = [
        row
        for row in rows
        if (row["run"], row["condition"]) == (run, condition)
        and all(row[name] == value for name, value in at.items())
    ]
    return row["metrics"][metric]["mean"]


def test_every_figure_is_written(swept):
    output, results = swept
    assert tuple(results) == FIGURES
    for name, rows in results.items():
        assert (output / f"{name}.png").stat().st_size > 1000
        with (output / f"{name}.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert [line["run"] for line in lines] == [row["run"] for row in rows]
    assert [len(rows) for rows in results.values()] == [2, 4, 4, 6, 6]


def test_figures_agree_where_they_meet(swept):
    """Clean is epsilon 0, the trained acceleration and the trained number of steps."""
    _, results = swept
    epsilon, acceleration, iterations = (results[name] for name in FIGURES[:3])
    clean = mean_of(epsilon, "weighted", "worst case", epsilon=0.0)
    assert mean_of(epsilon, "weighted", "worst case", epsilon=0.3) < clean
    assert mean_of(acceleration, "weighted", "clean", acceleration=2.0) == clean
    assert mean_of(acceleration, "weighted", "clean", acceleration=4.0) < clean
    assert mean_of(iterations, "weighted", "clean", iterations=1) == clean
    assert mean_of(iterations, "weighted", "clean", iterations=2) != clean


def test_other_masks_are_those_of_a_run_made_with_them(runs, swept):
    _, results = swept
    config = load_config(runs[1], {"data.sampling.acceleration": 4.0})
    report, _ = evaluate(
        experiments.build(config),
        load_trained(runs[1]).params,
        [Condition("clean", "test", "none")],
        num_examples=3,
        chunk=3,
        progress=False,
    )
    (row,) = report["rows"]
    expected = row["metrics"]["psnr"]["mean"]
    found = mean_of(results["acceleration"], "weighted", "clean", acceleration=4.0)
    assert found == pytest.approx(expected, abs=1e-4)


def test_sigma_is_that_of_the_smoothing(swept):
    """Only runs that smooth; with little noise the clean error is that of the clean row."""
    _, results = swept
    rows = results["sigma"]
    assert {row["run"] for row in rows} == {"weighted"}
    for sigma in (0.01, 1.0):
        clean, attacked, robustness = (
            mean_of(rows, "weighted", condition, "rmse", sigma=sigma)
            for condition in ("accuracy, clean", "accuracy, attacked", "robustness")
        )
        assert 0 < robustness <= clean + attacked
        assert abs(attacked - clean) <= robustness + 1e-6
    little, much = (
        mean_of(rows, "weighted", "accuracy, clean", "rmse", sigma=s) for s in GRIDS["sigmas"]
    )
    assert much > 2 * little
    attacked = mean_of(rows, "weighted", "accuracy, attacked", "rmse", sigma=0.01)
    assert attacked > little


def test_weights_are_those_of_the_encoder(runs, swept):
    """Of one step, the noisy copies are of the zero-filled image, and so are about the weights."""
    _, results = swept
    rows = results["weights"]
    assert {row["scan"] for row in rows} == {0, 1, 2} and len(rows) == 6  # of the signals asked for
    trained = load_trained(runs[1])
    experiment = experiments.build(tiny_config("weighted_step"))
    batch = experiment.measure(next(evaluation_batches(experiment.sources["test"], 4)), "test")
    for row in rows:
        scan = row["scan"]
        x = batch.operator_of(scan).adjoint(batch.measurement[scan])
        weight = trained.reconstructor.weight(trained.params, x)
        denoised = trained.reconstructor.learned_step(trained.params, x)
        error = jnp.sqrt(jnp.mean(jnp.abs(denoised - batch.signal[scan]) ** 2))
        assert row["weight"] == pytest.approx(float(weight), rel=0.05)
        assert row["rmse"] == pytest.approx(float(error), rel=0.2)
        assert abs(row["rank_correlation"]) == pytest.approx(1)  # of two copies


def test_rank_correlation():
    a = np.array([0.1, 3.0, -2.0, 7.0])
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, np.ones(4)) is None
    # Ties share a rank: 1 - 6 * 0.5 / (4 * 15) would be without the correction.
    b = np.array([0.0, 1.0, 0.0, 2.0])
    ranks = np.array([1.5, 3, 1.5, 4])
    expected = np.corrcoef([2, 3, 1, 4], ranks)[0, 1]
    assert rank_correlation(a, b) == pytest.approx(expected)


def test_goes_on_where_it_stopped(runs, swept, monkeypatch):
    """What is kept is not computed again; what is new is, and so is a point that was lost."""
    output, results = swept
    calls = []

    def evaluated(run, **point):
        calls.append(point)
        numbers = {"mean": 9.0, "std": 1.0}
        metrics = {"psnr": numbers, "ssim": numbers}
        return [{"mean_radius": None, "num_signals": 3, "metrics": metrics}]

    monkeypatch.setattr(sweep, "_evaluated", evaluated)
    again = sweep_runs(runs[1:], output, **OPTIONS)
    assert again == results and not calls
    # Another run comes beside it, and another value; one point was lost.
    file = output / "sweep.json"
    parts = json.loads(file.read_text())
    lost = next(part for part in parts if part["settings"].get("attack") == "worst")
    file.write_text(json.dumps([part for part in parts if part is not lost]))
    options = {**OPTIONS, "figures": ["epsilon"], "epsilons": [0.0, 0.3, 0.4]}
    rows = sweep_runs(runs, output, **options)["epsilon"]
    assert [row["run"] for row in rows] == ["plain"] * 3 + ["weighted"] * 3
    assert [point["epsilon"] for point in calls] == [None, 0.3, 0.4, 0.3, 0.4]
    assert [point["attack"] for point in calls] == ["none", *["worst"] * 4]
    assert rows[3] == results["epsilon"][0]
    # Other settings are other points.
    for change in ({"seed": 1}, {"num_examples": 2}, {"overrides": {"data.noise_std": 0.02}}):
        sweep_runs(runs[:1], output, **{**options, "epsilons": [0.0], **change})
    assert len(calls) == 8
    # What changes no number changes no point.
    for change in ({"evaluate.memory_gb": 1.0}, {"evaluate.num_draws": 2}):
        sweep_runs(runs[:1], output, **{**options, "epsilons": [0.0], "overrides": change})
    assert len(calls) == 8


def test_figures_without_runs_are_left_out(runs, tmp_path, capsys):
    results = sweep_runs(runs[:1], tmp_path, figures=["sigma", "weights"], **OPTIONS)
    assert results == {}
    assert "sigma: no run to draw" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figures": ["epsilon", "magic"]}, "magic"),
        ({"epsilons": [-0.1]}, "-0.1"),
        ({"sigmas": [-1.0]}, "-1.0"),
        ({"accelerations": [0.5]}, "acceleration=0.5"),
        ({"iterations": [0]}, "iterations=0"),
        ({"iterations": []}, "'iterations' has no values"),
        ({"num_examples": 0}, "num_examples=0"),
    ],
)
def test_bad_input(runs, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        sweep_runs(runs[:1], tmp_path / "out", **{**OPTIONS, **change})
    assert not (tmp_path / "out").exists()
