"""Evaluation a chunk at a time, and the table that comes of it."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, close, counted, equal, near, normal

from jitter_jax.attacks import Threat, fgsm, pgd, random
from jitter_jax.data.batch import Batch
from jitter_jax.evaluate.evaluator import make_evaluator, run_evaluator, signals_at_once
from jitter_jax.evaluate.table import (
    Condition,
    evaluate_conditions,
    format_rows,
    make_evaluators,
    spread,
    standard_conditions,
    write_csv,
)
from jitter_jax.keys import subkey
from jitter_jax.metrics import make_metrics
from jitter_jax.operators import convolution
from jitter_jax.smoothing import Smoothing
from jitter_jax.unroll import Reconstructor, gradient_descent

COUNT = 7
SHAPE = (6, 2)
METRICS = make_metrics(["mse", "psnr"])
OPERATOR = convolution(np.array([0.5, 1.0, -0.3], np.float32))
PARAMS = {"scale": jnp.float32(0.4)}


def reconstruct(params, operator, y, *, num_iterations=None, smoothing_key=None, **options):
    step = lambda x: jnp.tanh(params["scale"] * x)
    return gradient_descent(
        step, operator, y, step_size=0.3, num_iterations=num_iterations or 3, **options
    )


RECONSTRUCTOR = Reconstructor(lambda key, operator, y: PARAMS, reconstruct)
SIGNALS = np.asarray(normal(0, COUNT, *SHAPE))
MEASUREMENTS = np.asarray(normal(1, COUNT, *SHAPE))
THREAT = Threat(0.3, unit="relative")


def make_batch(rows, signals=SIGNALS, measurements=MEASUREMENTS):
    rows = np.asarray(rows)
    return Batch(
        jnp.asarray(signals[rows]),
        jnp.asarray(measurements[rows]),
        OPERATOR,
        jnp.ones(len(rows)),
        jnp.asarray(rows, jnp.int32),
    )


def batches(size, count=COUNT, **arrays):
    """Batches of one size, the last filled up with its first signal."""
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        kept = min(size, count - start)
        yield make_batch(np.where(rows < count, rows, start), **arrays), kept


def run(evaluator, size, threat=THREAT, keep=COUNT):
    key = jax.random.key(0)
    return run_evaluator(evaluator, PARAMS, batches(size), threat, key=key, keep=keep)


ATTACKS = {"none": None, "random": random, "worst": lambda ball: pgd(ball, num_steps=3)}


@pytest.mark.parametrize("name", ATTACKS)
def test_chunks_change_nothing(name):
    evaluator = make_evaluator(RECONSTRUCTOR, METRICS, ATTACKS[name])
    whole = run(evaluator, COUNT)
    assert isinstance(whole.estimate, np.ndarray) and whole.estimate.shape == SIGNALS.shape
    assert whole.metrics["mse"].shape == whole.radius.shape == (COUNT,)
    for chunk in (3, 20):  # a last chunk of one signal; more room than signals
        close(run(evaluator, chunk), whole, loosen=10)  # an attack repeats rounding errors


def test_estimates_metrics_and_radii_are_those_of_the_perturbed_measurements():
    result = run(make_evaluator(RECONSTRUCTOR, METRICS, fgsm), 4)
    rows = zip(SIGNALS, MEASUREMENTS, result.delta, strict=True)
    for i, (x, y, delta) in enumerate(rows):
        estimate = reconstruct(PARAMS, OPERATOR, y + delta)
        near(result.estimate[i], estimate, TOLERANCE["float32"])
        near(result.metrics["mse"][i], np.mean((estimate - x) ** 2), TOLERANCE["float32"])
        near(result.radius[i], 0.3 * np.linalg.norm(y), TOLERANCE["float32"])
        near(np.linalg.norm(delta), result.radius[i], TOLERANCE["float32"])


def test_signal_space_measures_the_perturbed_signal():
    evaluator = make_evaluator(RECONSTRUCTOR, METRICS, fgsm)
    result = run(evaluator, COUNT, Threat(0.2, "signal", "linf", "relative"))
    x, y, delta = SIGNALS[0], MEASUREMENTS[0], result.delta[0]
    near(result.radius[0], 0.2 * np.abs(x).max(), TOLERANCE["float32"])
    estimate = reconstruct(PARAMS, OPERATOR, y + OPERATOR.forward(delta))
    near(result.estimate[0], estimate, TOLERANCE["float32"])


def test_only_the_first_estimates_are_kept():
    evaluator = make_evaluator(RECONSTRUCTOR, METRICS, fgsm)
    whole = run(evaluator, 3)
    for keep in (0, 2, 4, 100):
        result = run(evaluator, 3, keep=keep)
        equal(result.estimate, whole.estimate[:keep])
        equal(result.delta, whole.delta[:keep])
        equal(result.metrics, whole.metrics)


def test_no_signals():
    evaluator = make_evaluator(RECONSTRUCTOR, METRICS, None)
    with pytest.raises(ValueError, match="no signals"):
        run_evaluator(evaluator, PARAMS, [], THREAT, key=jax.random.key(0), keep=1)


def test_every_signal_can_have_its_own_operator():
    wavelets = normal(3, COUNT, 3)
    batch = dataclasses.replace(
        make_batch(range(COUNT)), operator=jax.vmap(convolution)(wavelets), operator_axes=0
    )
    evaluator = make_evaluator(RECONSTRUCTOR, METRICS, None)
    result = run_evaluator(
        evaluator, PARAMS, [(batch, COUNT)], THREAT, key=jax.random.key(0), keep=COUNT
    )
    for wavelet, y, estimate in zip(wavelets, MEASUREMENTS, result.estimate, strict=True):
        near(estimate, reconstruct(PARAMS, convolution(wavelet), y), TOLERANCE["float32"])


def test_gradients_that_are_not_finite_are_counted():
    broken = lambda params, operator, y, **_: y + jnp.sqrt(jnp.abs(y - y) * y[0, 0])
    evaluator = make_evaluator(Reconstructor(lambda *_: (), broken), METRICS, fgsm)
    assert (run(evaluator, COUNT).nonfinite > 0).all()
    assert (run(make_evaluator(RECONSTRUCTOR, METRICS, fgsm), COUNT).nonfinite == 0).all()


def test_one_compilation_for_all_chunks_and_sizes():
    apply, traces = counted(reconstruct)
    evaluator = make_evaluator(Reconstructor(RECONSTRUCTOR.init, apply), METRICS, None)
    for epsilon in (0.0, 0.5):
        run(evaluator, 3, Threat(epsilon))
    assert len(traces) == 1


def test_number_of_iterations_reaches_the_reconstructor():
    evaluator = make_evaluator(RECONSTRUCTOR, METRICS, None, num_iterations=5)
    expected = reconstruct(PARAMS, OPERATOR, MEASUREMENTS[0], num_iterations=5)
    near(run(evaluator, COUNT).estimate[0], expected, TOLERANCE["float32"])


def test_draws_are_averaged():
    several = run(make_evaluator(RECONSTRUCTOR, METRICS, random, num_draws=3), COUNT)
    key = jax.random.fold_in(jax.random.key(0), 2)  # of signal number 2
    losses = []
    for i in range(3):
        delta = THREAT.ball(MEASUREMENTS[2]).sample(jax.random.fold_in(key, i), MEASUREMENTS[2])
        estimate = reconstruct(PARAMS, OPERATOR, MEASUREMENTS[2] + delta)
        losses.append(np.mean((estimate - SIGNALS[2]) ** 2))
    near(several.metrics["mse"][2], np.mean(losses), TOLERANCE["float32"])
    assert np.ptp(losses) > 0
    near(several.delta[2], delta, TOLERANCE["float32"])
    near(several.estimate[2], estimate, TOLERANCE["float32"])


@pytest.mark.parametrize("draws", [1, 4])
def test_an_attack_sees_other_draws_of_the_noise_than_the_judge(draws):
    """`H(y) = y + s` with random s: to lengthen it, the attack follows the sign of the mean s."""
    offset = lambda key: jax.random.normal(key)
    shifted = Reconstructor(
        lambda *_: (), lambda p, A, y, *, smoothing_key, **_: y + offset(smoothing_key)
    )
    shifted = shifted._replace(smoothing=Smoothing(1.0))
    evaluator = make_evaluator(shifted, METRICS, fgsm, smoothing_draws=draws)
    nothing = np.zeros_like(SIGNALS)
    batch = make_batch(range(COUNT), signals=nothing, measurements=nothing)
    threat = Threat(0.3, "measurement", "linf", "absolute")
    result = evaluator((), batch, jax.random.key(0), threat)
    differ = 0
    for i in range(COUNT):
        key = lambda i=i: jax.random.fold_in(jax.random.key(0), i)
        attacked = subkey(key(), "attacked smoothing")
        seen = [float(offset(jax.random.fold_in(attacked, s))) for s in range(draws)]
        judged = float(offset(subkey(key(), "smoothing")))
        direction = np.sign(np.mean(seen))
        near(result.delta[i], np.full(SHAPE, 0.3 * direction), TOLERANCE["float32"])
        near(result.estimate[i], np.full(SHAPE, 0.3 * direction + judged), TOLERANCE["float32"])
        differ += direction != np.sign(judged)
    assert differ > 0


def test_chunk_for_memory_stays_within_its_bounds():
    def chunk(budget_bytes, most):
        return signals_at_once(
            RECONSTRUCTOR, PARAMS, make_batch([0]), budget_bytes=budget_bytes, most=most
        )

    assert chunk(1.0, 50) == 1
    assert chunk(1e15, 50) == 50
    assert chunk(1e15, 1) == 1
    half, whole = chunk(3e4, 10**9), chunk(6e4, 10**9)
    assert 1 < half < whole < 10**9 and abs(whole - 2 * half) <= 1
    for budget in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="budget_bytes must be positive"):
            chunk(budget, 50)


@pytest.fixture(scope="module")
def table():
    evaluators = make_evaluators(RECONSTRUCTOR, METRICS, ATTACKS["worst"], num_draws=2)
    counts = {"test": COUNT, "other": 3}
    conditions = [*standard_conditions(["other"]), Condition("none left", "test", "worst", 0.0)]
    return evaluate_conditions(
        evaluators,
        PARAMS,
        lambda name: batches(4, counts[name]),
        conditions,
        THREAT,
        key=jax.random.key(0),
        metrics=METRICS,
    )


def test_rows_of_the_table(table):
    rows, results = table
    by_name = {row["condition"]: row for row in rows}
    assert list(by_name) == ["clean", "average case", "worst case", "OOD other", "none left"]
    assert [row["num_signals"] for row in rows] == [7, 7, 7, 3, 7]
    assert [row["epsilon"] for row in rows] == [None, 0.3, 0.3, None, 0.0]
    assert by_name["clean"]["mean_radius"] is None
    near(by_name["worst case"]["mean_radius"], np.mean(results["worst case"].radius), 1e-6)
    for name, result in results.items():
        for metric, values in result.metrics.items():
            numbers = by_name[name]["metrics"][metric]
            near(numbers["mean"], np.mean(values), 1e-6)
            near(numbers["std"], np.std(values), 1e-6)
    mean = lambda name: by_name[name]["metrics"]["mse"]["mean"]
    assert mean("worst case") > max(mean("average case"), mean("clean"))
    assert mean("none left") == pytest.approx(mean("clean"), rel=TOLERANCE["float32"])


def test_rows_are_json_and_csv(table, tmp_path):
    rows, _ = table
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    write_csv(tmp_path / "table.csv", rows)
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["condition"] for line in lines] == [row["condition"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert float(line["psnr_mean"]) == row["metrics"]["psnr"]["mean"]
        assert float(line["mse_std"]) == row["metrics"]["mse"]["std"]
        assert line["epsilon"] == ("" if row["epsilon"] is None else str(row["epsilon"]))


def test_format_of_rows():
    metrics = {
        "psnr": {"mean": 31.256, "std": 1.0},
        "ssim": {"mean": 0.91234, "std": 0.01},
        "mse": {"mean": 0.00123456, "std": None},
    }
    rows = [
        {"condition": "clean", "epsilon": None, "metrics": metrics},
        {"condition": "worst case", "epsilon": 0.05, "metrics": metrics},
    ]
    numbers = "31.26 ± 1.00 | 0.9123 ± 0.0100 | not finite |"
    assert format_rows(rows).splitlines() == [
        "| condition | epsilon | PSNR (dB) | SSIM | mse |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| clean |  | {numbers}",
        f"| worst case | 0.05 | {numbers}",
    ]
    assert spread(0.00123456, 2.0, metric="mse") == "0.00123 ± 2"


def test_perfect_reconstruction_is_not_finite_and_still_json():
    perfect = Reconstructor(lambda key, operator, y: (), lambda params, operator, y, **_: y)
    evaluators = make_evaluators(perfect, METRICS, fgsm, num_draws=1)
    rows, _ = evaluate_conditions(
        evaluators,
        (),
        lambda name: batches(COUNT, measurements=SIGNALS),
        [Condition("clean", "test", "none")],
        THREAT,
        key=jax.random.key(0),
        metrics=METRICS,
    )
    assert rows[0]["metrics"]["psnr"] == {"mean": None, "std": None}
    assert rows[0]["metrics"]["mse"] == {"mean": 0.0, "std": 0.0}
    json.dumps(rows, allow_nan=False)


def test_number_of_draws_is_checked():
    with pytest.raises(ValueError, match="num_draws=0 is not accepted"):
        make_evaluators(RECONSTRUCTOR, METRICS, fgsm, num_draws=0)
    with pytest.raises(ValueError, match="smoothing_draws=0 is not accepted"):
        make_evaluators(RECONSTRUCTOR, METRICS, fgsm, num_draws=1, smoothing_draws=0)
