"""Attack trained reconstructors: the work of `bin/attack`."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jitter_jax import experiment as experiments
from jitter_jax import profiling
from jitter_jax.attacks import Threat, perturbed
from jitter_jax.commands.evaluate import (
    KEPT,
    chunk_of,
    evaluate,
    first_examples,
    list_skipped,
    run_conditions,
    write_json,
)
from jitter_jax.commands.runs import comparable_configs, load_trained
from jitter_jax.data.sources import PICTURE_KINDS
from jitter_jax.devices import is_first_process
from jitter_jax.evaluate.evaluator import Evaluated
from jitter_jax.evaluate.figures import (
    Panel,
    largest,
    panels_figure,
    points_figure,
    visible,
    visible_title,
)
from jitter_jax.evaluate.table import Condition, format_rows, write_csv
from jitter_jax.experiment import Experiment
from jitter_jax.files import checked_folder

Results = dict[str, Evaluated]


def attack_runs(
    workdirs: Sequence[str | Path],
    output: str | Path,
    *,
    overrides: Mapping[str, Any],
    epsilons: Sequence[float] = (),
    num_examples: int | None = None,
    num_iterations: int | None = None,
    seed: int = 0,
    progress: bool = True,
    profile: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate runs under one threat, side by side.

    Writes `attack.json`, `attack.csv` and `attack.png`.

    Args:
        workdirs: folders of runs that measure the same signals.
        output: folder for the results.
        overrides: fields that differ from the runs' configs, by dotted name.
        epsilons: more sizes of the threat, for a curve.
        num_examples: signals of each set, from its first; all if None.
        num_iterations: K of the reconstructions; that of each run if None.
        seed: of the random draws.
        progress: whether to show progress bars.
        profile: folder for a trace of each run's attack on the first batch, repeated when
            everything is compiled.

    Returns:
        The report, as written to `attack.json`.

    Raises:
        ValueError: an argument is not accepted, or the runs cannot be compared.
    """
    for epsilon in epsilons:
        Threat(epsilon)  # refuses what is not a size
    configs = comparable_configs(workdirs, overrides)
    runs = {
        name: experiments.build(c, num_iterations=num_iterations) for name, c in configs.items()
    }
    trained = [load_trained(workdir) for workdir in workdirs]
    output = checked_folder(output)
    profile = None if profile is None else checked_folder(profile, "profile")
    report: dict[str, Any] = {"runs": []}
    results: dict[str, Results] = {}
    for (name, experiment), (*_, params, step) in zip(runs.items(), trained, strict=True):
        conditions = conditions_of(experiment, epsilons)
        chunk = chunk_of(
            experiment,
            params,
            [condition.test_set for condition in conditions],
            num_examples=num_examples,
            num_iterations=num_iterations,
        )
        evaluated = partial(
            evaluate, experiment, params, num_iterations=num_iterations, chunk=chunk, seed=seed
        )
        part, results[name] = evaluated(conditions, num_examples=num_examples, progress=progress)
        scheme = experiment.config.scheme.name
        if is_first_process():
            print(f"\n{name}: {scheme}, step {step}\n{format_rows(part['rows'])}")
            list_skipped(experiment)
        report["runs"].append({"name": name, "scheme": scheme, "step": step, **part})
        if profile is not None:
            worst = Condition("worst case", "test", "worst")
            count = min(chunk, num_examples or chunk, len(experiment.sources["test"]))
            with profiling.trace(profile / name):
                evaluated([worst], num_examples=count, progress=False)
            if is_first_process():
                print(f"attack on {count} signals traced in {profile / name}")
    if not is_first_process():
        return report
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "attack.json", report)
    rows = [{"run": run["name"], **row} for run in report["runs"] for row in run["rows"]]
    write_csv(output / "attack.csv", rows)
    attack_figure(runs, results, output / "attack.png")
    return report


def conditions_of(experiment: Experiment, epsilons: Sequence[float]) -> list[Condition]:
    """Return the standard rows, and one of each attack for each further epsilon."""
    curve = [
        Condition(f"{name} at {epsilon:g}", "test", attack, epsilon)
        for name, attack in (("average case", "random"), ("worst case", "worst"))
        for epsilon in epsilons
    ]
    return run_conditions(experiment) + curve


def attack_figure(
    runs: Mapping[str, Experiment], results: Mapping[str, Results], path: Path
) -> None:
    """Draw what an attack does to the first test signal (to all points): one row a run.

    The last two pictures are of the first out-of-distribution set, which nothing attacks.
    """
    rows, clouds = [], []
    for name, experiment in runs.items():
        clean, worst = results[name]["clean"], results[name]["worst case"]
        label = f"{name} ({experiment.config.scheme.name})"
        batch = first_examples(experiment, "test", min(KEPT, len(clean.estimate)))
        signals, measurements = np.asarray(batch.signal), np.asarray(batch.measurement)
        if experiment.config.data.kind == "points":
            clouds.append((f"{label}\nclean", measurements, clean.estimate))
            clouds.append((f"{label}\nworst case", measurements + worst.delta, worst.estimate))
            continue
        x, limit, operator = signals[0], largest(signals[0]), batch.operator_of(0)
        space = experiment.threat.space
        positive = experiment.config.data.kind in PICTURE_KINDS
        y = batch.measurement[0]
        added = perturbed(operator, jnp.zeros_like(y), worst.delta[0], space)
        seen, shift = (np.asarray(visible(operator, part)) for part in (y, added))
        change = worst.estimate[0] - clean.estimate[0]
        panels = [
            Panel(visible_title(seen, y), seen, largest(seen), positive),
            Panel("truth", x, limit, positive),
            Panel(_titled("clean estimate", clean), clean.estimate[0], limit, positive),
            Panel(_titled("attacked estimate", worst), worst.estimate[0], limit, positive),
            Panel("what the attack changed", change, limit),
            Panel("perturbation (x10)", 10 * shift, largest(seen)),
        ]
        for shifted in experiment.config.data.out_of_distribution[:1]:
            other = np.asarray(first_examples(experiment, shifted, 1).signal[0])
            result = results[name][f"OOD {shifted}"]
            limit = largest(other)
            panels += [
                Panel(f"truth, {shifted}", other, limit, positive),
                Panel(_titled("estimate", result), result.estimate[0], limit, positive),
            ]
        rows.append(panels)
    if clouds:
        points_figure(clouds, signals[0], path)
    else:
        labels = [f"{name} ({e.config.scheme.name})" for name, e in runs.items()]
        panels_figure(rows, path, row_labels=labels)


def _titled(text: str, result: Evaluated) -> str:
    psnr = result.metrics.get("psnr")
    return text if psnr is None else f"{text}, {psnr[0]:.1f} dB"
