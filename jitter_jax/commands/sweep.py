"""Curves of trained runs side by side: the work of `bin/sweep`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jitter_jax import experiment as experiments
from jitter_jax.attacks import Threat, perturbed
from jitter_jax.commands.evaluate import (
    batches_with_bar,
    chunk_of,
    evaluate,
    first_examples,
)
from jitter_jax.commands.kept import Kept, Row, fingerprint
from jitter_jax.commands.runs import comparable_configs, load_trained
from jitter_jax.evaluate.figures import Line, lines_figure, scatter_figure
from jitter_jax.evaluate.table import Condition, header, spread, write_csv
from jitter_jax.experiment import Experiment
from jitter_jax.files import checked_folder
from jitter_jax.keys import domain_key, subkey
from jitter_jax.metrics import mse
from jitter_jax.smoothing import Smoothing
from jitter_jax.unroll import Reconstructor

Array = jax.Array

FIGURES = ("epsilon", "acceleration", "iterations", "sigma", "weights")
LABELS = {
    "epsilon": "epsilon",
    "acceleration": "acceleration",
    "iterations": "unrolled steps",
    "sigma": "sigma of the smoothing",
}
SCANS = 5  # whose noisy copies are weighed
RESULTS_FILE = "sweep.json"


def sweep_runs(
    workdirs: Sequence[str | Path],
    output: str | Path,
    *,
    figures: Sequence[str] = FIGURES,
    overrides: Mapping[str, Any],
    epsilons: Sequence[float] = (),
    accelerations: Sequence[float] = (),
    iterations: Sequence[int] = (),
    sigmas: Sequence[float] = (),
    num_examples: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, list[Row]]:
    """Draw the figures of the SMUG paper (8 to 12) of trained runs.

    Writes `<figure>.png` and `<figure>.csv` for each figure, and `sweep.json`, which holds every
    point as soon as it is computed: the same command goes on where it stopped, and a point that two
    figures share is computed once.

    - `epsilon`: under attack, against the size of the threat, of which 0 is clean.
    - `acceleration`: clean and under attack, when k-space is sampled by other masks.
    - `iterations`: clean and under attack, against the number of unrolled steps.
    - `sigma`, of runs that smooth: against the standard deviation of the smoothing, the root mean
      square of `H(y) - x` and `H(y + delta) - x` (accuracy), and of `H(y + delta) - H(y)`
      (robustness), in the normalised unit, both with the same draws of the noise; `delta` is found
      at the run's own sigma.
    - `weights`, of runs with a weighted average: weights of noisy copies in the last unrolled step,
      against the root mean square error of each denoised copy.

    Args:
        workdirs: folders of runs that measure the same signals.
        output: folder for the results.
        figures: which of `FIGURES`; those that no run can give are left out.
        overrides: fields that differ from the runs' configs, by dotted name.
        epsilons: of `epsilon`.
        accelerations: of `acceleration`.
        iterations: of `iterations`.
        sigmas: of `sigma`.
        num_examples: test signals, from the first; all if None.
        seed: of the random draws.
        progress: whether to show progress bars.

    Returns:
        The rows of each figure, as written to its CSV.

    Raises:
        ValueError: an argument is not accepted, or the runs cannot be compared.
    """
    grids: dict[str, Sequence[float]] = {
        "epsilon": epsilons,
        "acceleration": accelerations,
        "iterations": iterations,
        "sigma": sigmas,
    }
    _check_grids(figures, grids)
    configs = comparable_configs(workdirs, overrides)
    output = checked_folder(output)
    kept = Kept(output / RESULTS_FILE)
    runs = [
        _Run(name, workdir, config, num_examples, seed, progress=progress)
        for workdir, (name, config) in zip(workdirs, configs.items(), strict=True)
    ]
    results = {}
    for figure in figures:
        able = [run for run in runs if run.can_give(figure)]
        if not able:
            print(f"\n{figure}: no run to draw, left out")
            continue
        if figure in ("sigma", "weights"):
            rows = [row for run in able for row in _errors(kept, run, figure, grids.get(figure))]
        else:
            rows = [row for run in able for row in _quality(kept, run, figure, grids[figure])]
        draw = _draw_weights if figure == "weights" else partial(_draw_lines, x_name=figure)
        print(f"\n{draw(rows, path=output / f'{figure}.png')}")
        write_csv(output / f"{figure}.csv", rows)
        results[figure] = rows
    return results


def _check_grids(figures: Sequence[str], grids: Mapping[str, Sequence[float]]) -> None:
    """Refuse what would stop a later figure."""
    for figure in figures:
        if figure not in FIGURES:
            raise ValueError(f"figures={figure!r} is not accepted: of {FIGURES} are expected")
        if figure in grids and not grids[figure]:
            raise ValueError(f"the figure {figure!r} has no values to draw it at")
    for value in grids["epsilon"]:
        Threat(value)
    for value in grids["sigma"]:
        Smoothing(value)
    for name in ("acceleration", "iterations"):
        for value in grids[name]:
            if not value >= 1:
                raise ValueError(f"{name}={value} is not accepted: 1 or more is expected")


class _Run:
    """A trained run, with what was compiled for it by the number of iterations."""

    def __init__(
        self,
        name: str,
        workdir: str | Path,
        config: ConfigDict,
        num_examples: int | None,
        seed: int,
        *,
        progress: bool,
    ):
        self.name, self.config = name, experiments.resolve(config)
        self.num_examples, self.seed, self.progress = num_examples, seed, progress
        self.params = load_trained(workdir).params
        self.settings = {
            "run": name,
            "fingerprint": fingerprint(self.config, self.params),
            "num_examples": num_examples,
            "seed": seed,
        }
        self._built: dict[int, tuple[Experiment, int]] = {}

    def can_give(self, figure: str) -> bool:
        if figure == "acceleration":
            return self.config.operator.name in experiments.MRI
        if figure == "sigma":
            return self.config.smoothing.where != "none"
        if figure == "weights":
            # In other unrolls the learned step does not see the iterate itself, or is no denoiser.
            denoises = self.config.unroll.method == "half_quadratic"
            weighted = self.config.smoothing.where == "weighted_step"
            return denoises and weighted and not self.config.unroll.sees_measurement
        return True

    def built(self, num_iterations: int) -> tuple[Experiment, int]:
        """Return the experiment, and how many signals it takes at once."""
        if num_iterations not in self._built:
            trained = self.config.unroll.num_iterations
            # Frees what was compiled for others; most figures are of the trained number.
            self._built = {k: built for k, built in self._built.items() if k == trained}
            experiment = experiments.build(self.config, num_iterations=num_iterations)
            if (smoothing := experiment.reconstructor.smoothing) is not None:
                # Known now, and not to be searched for when it is built again.
                experiment.config.smoothing.chunk = smoothing.chunk or smoothing.num_samples
            chunk = chunk_of(
                experiment,
                self.params,
                ["test"],
                num_examples=self.num_examples,
                num_iterations=num_iterations,
            )
            self._built[num_iterations] = experiment, chunk
        return self._built[num_iterations]


def _quality(kept: Kept, run: _Run, figure: str, values: Sequence[float]) -> list[Row]:
    """Return the rows of a run in a figure of its metrics: one for each value and condition."""
    rows = []
    for value in values:
        conditions = {"clean": "none", "worst case": "worst"}
        if figure == "epsilon":
            conditions = {"worst case": "worst" if value else "none"}
        for condition, attack in conditions.items():
            point = {
                "acceleration": run.config.data.sampling.acceleration,
                "iterations": run.config.unroll.num_iterations,
                "attack": attack,
                "epsilon": run.config.evaluate.threat.epsilon,
                figure: value,
            }
            if attack == "none":
                point["epsilon"] = None
            (measured,) = kept.rows({**run.settings, **point}, partial(_evaluated, run, **point))
            row = {"run": run.name, figure: value, "condition": condition, **measured}
            name, numbers = next(iter(row["metrics"].items()))
            at = f"{LABELS[figure]} {value:g}, {condition}"
            print(f"{run.name}, {at}: {spread(**numbers, metric=name)}", flush=True)
            rows.append(row)
    return rows


def _evaluated(
    run: _Run, *, acceleration: float, iterations: int, attack: str, epsilon: float | None
) -> list[Row]:
    """Return what the first (and only) row says of one point."""
    experiment, chunk = run.built(iterations)
    if acceleration != experiment.config.data.sampling.acceleration:
        config = experiment.config.copy_and_resolve_references()
        config.data.sampling.acceleration = acceleration
        # Other data for the same compiled evaluators.
        other = experiments.build(config)
        experiment = experiment._replace(sources=other.sources, measure=other.measure)
    report, _ = evaluate(
        experiment,
        run.params,
        [Condition("point", "test", attack, epsilon)],
        num_examples=run.num_examples,
        num_iterations=iterations,
        chunk=chunk,
        seed=run.seed,
        progress=run.progress,
    )
    (row,) = report["rows"]
    return [{name: row[name] for name in ("mean_radius", "num_signals", "metrics")}]


def _errors(kept: Kept, run: _Run, figure: str, values: Sequence[float] | None) -> list[Row]:
    """Return the rows of a run in the figures `sigma` and `weights`."""
    settings = {**run.settings, "figure": figure, "values": values}
    compute = partial(_sigma_rows, run, values) if values else partial(_weight_rows, run)
    return kept.rows(settings, compute)


def _rmse(estimate: Array, truth: Array) -> Array:
    return jnp.sqrt(mse(estimate, truth))


def _sigma_rows(run: _Run, sigmas: Sequence[float]) -> list[Row]:
    print(f"{run.name}: {LABELS['sigma']}", flush=True)
    experiment, chunk = run.built(run.config.unroll.num_iterations)
    key = domain_key(run.seed, "sigma")

    def errors_at(sigma: float) -> Callable[..., Any]:
        config = experiment.config.copy_and_resolve_references()
        config.smoothing.sigma = sigma
        reconstructor = experiments.make_reconstructor(config)

        def one(x, y, operator, key, delta):
            clean, attacked = (
                reconstructor.apply(run.params, operator, measured, smoothing_key=key)
                for measured in (y, perturbed(operator, y, delta, experiment.threat.space))
            )
            return {
                "accuracy, clean": _rmse(clean, x),
                "accuracy, attacked": _rmse(attacked, x),
                "robustness": _rmse(attacked, clean),
            }

        return jax.jit(lambda batch, delta: batch.lift(one, key, delta))

    compiled = {sigma: errors_at(sigma) for sigma in sigmas}
    found: dict[float, list[dict[str, np.ndarray]]] = {sigma: [] for sigma in sigmas}
    attack = experiment.evaluators["worst"]
    batches = batches_with_bar(experiment, chunk, run.num_examples, 1, show=run.progress)
    for batch, count in batches("test"):
        delta = attack(run.params, batch, domain_key(run.seed, "attack"), experiment.threat).delta
        for sigma, errors in compiled.items():
            parts = errors(batch, delta).items()
            found[sigma].append({name: np.asarray(part[:count]) for name, part in parts})
    rows = []
    for sigma, parts in found.items():
        for condition in parts[0]:
            values = np.concatenate([part[condition] for part in parts])
            numbers = {"mean": float(values.mean()), "std": float(values.std())}
            rows.append(
                {
                    "run": run.name,
                    "sigma": sigma,
                    "condition": condition,
                    "num_signals": len(values),
                    "metrics": {"rmse": numbers},
                }
            )
    return rows


def _weight_rows(run: _Run) -> list[Row]:
    print(f"{run.name}: weights", flush=True)
    experiment, _ = run.built(run.config.unroll.num_iterations)
    most = min(SCANS, run.num_examples or SCANS, len(experiment.sources["test"]))
    batch = first_examples(experiment, "test", most)
    copies = jax.jit(
        lambda batch: batch.lift(
            partial(_weighed_copies, experiment.reconstructor, run.params),
            domain_key(run.seed, "weights of copies"),
        )
    )
    rows = []
    for scan, (weights, errors) in enumerate(zip(*map(np.asarray, copies(batch)), strict=True)):
        correlation = rank_correlation(weights, errors)
        rows += [
            {
                "run": run.name,
                "scan": scan,
                "weight": float(weight),
                "rmse": float(error),
                "rank_correlation": correlation,
            }
            for weight, error in zip(weights, errors, strict=True)
        ]
    return rows


def _weighed_copies(
    reconstructor: Reconstructor,
    params: Any,
    x: Array,
    y: Array,
    operator: Any,
    key: Array,
) -> tuple[Array, Array]:
    """Return weight and error of noisy copies of what the last step denoises."""
    smoothing, weight, denoise = (
        reconstructor.smoothing,
        reconstructor.weight,
        reconstructor.learned_step,
    )
    assert smoothing is not None and weight is not None and denoise is not None
    iterates = reconstructor.apply(
        params, operator, y, smoothing_key=subkey(key, "smoothing"), return_trajectory=True
    )

    def copy(number: Array) -> tuple[Array, Array]:
        noisy = smoothing.perturb(jax.random.fold_in(key, number), iterates[-2])
        return weight(params, noisy), _rmse(denoise(params, noisy), x)

    return jax.lax.map(copy, jnp.arange(smoothing.num_samples))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Spearman's rank correlation of two arrays `(n,)`, or None where one is constant.

    Equal values share the mean of their ranks.
    """
    ranks = [
        np.mean([values[:, None] > values, values[:, None] >= values], (0, 2)) for values in (a, b)
    ]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _draw_lines(rows: Sequence[Row], *, x_name: str, path: Path) -> str:
    """Draw rows as one plot for each condition, and return their table."""
    metric = next(iter(rows[0]["metrics"]))
    runs, conditions = (
        list(dict.fromkeys(row[name] for row in rows)) for name in ("run", "condition")
    )
    plots: dict[str, list[Line]] = {condition: [] for condition in conditions}
    table: dict[tuple[float, str], list[str]] = {}
    for run in runs:
        for condition, lines in plots.items():
            own = [row for row in rows if (row["run"], row["condition"]) == (run, condition)]
            own.sort(key=lambda row: row[x_name])
            numbers = [row["metrics"][metric] for row in own]
            x, mean, std = (
                [row[x_name] for row in own],
                *([number[part] for number in numbers] for part in ("mean", "std")),
            )
            lines.append(Line(run, x, mean, std))
            for value, number in zip(x, numbers, strict=True):
                table.setdefault((value, condition), []).append(spread(**number, metric=metric))
    log = x_name == "sigma" and all(row["sigma"] > 0 for row in rows)
    lines_figure(
        plots,
        path,
        x_label=LABELS[x_name],
        y_label=header(metric),
        x_scale="log" if log else "linear",
    )
    cells = [[f"{value:g}", condition, *more] for (value, condition), more in sorted(table.items())]
    return _markdown([LABELS[x_name], f"{header(metric)} of", *runs], cells)


def _draw_weights(rows: Sequence[Row], *, path: Path) -> str:
    """Draw rows as one plot for each run, and return the table of the rank correlations."""
    plots: dict[str, dict[str, Any]] = {}
    cells = []
    for run in dict.fromkeys(row["run"] for row in rows):
        scans = {row["scan"]: row["rank_correlation"] for row in rows if row["run"] == run}
        known = [correlation for correlation in scans.values() if correlation is not None]
        mean = f"{np.mean(known):.2f}" if known else "none"
        groups = {}
        for scan in scans:
            own = [row for row in rows if (row["run"], row["scan"]) == (run, scan)]
            groups[f"scan {scan}"] = tuple(
                [row[part] for row in own] for part in ("rmse", "weight")
            )
        plots[f"{run}\nmean rank correlation {mean}"] = groups
        each = ", ".join("none" if c is None else f"{c:.2f}" for c in scans.values())
        cells.append([run, mean, each])
    scatter_figure(plots, path, x_label="RMSE of the denoised copy", y_label="weight")
    return _markdown(["run", "mean rank correlation", "of each scan"], cells)


def _markdown(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
