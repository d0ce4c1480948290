"""Attack trained reconstructors: the work of `bin/attack`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jitter_jax import experiment as experiments
from jitter_jax.attacks import Threat, perturbed
from jitter_jax.commands.evaluate import evaluate, read_test_set, write_json
from jitter_jax.commands.train import init_params
from jitter_jax.evaluate.evaluator import Evaluated
from jitter_jax.evaluate.figures import Panel, largest, panels_figure, points_figure
from jitter_jax.evaluate.table import Condition, format_rows, standard_conditions, write_csv
from jitter_jax.experiment import Experiment
from jitter_jax.train import load_config, restore_params


class Run(NamedTuple):
    """A trained reconstructor, read back from its folder.

    Attributes:
        name: the folder's own name, and the scheme it was trained by.
        experiment: rebuilt from the folder's config.
        params: the last checkpoint's parameters; their average if the run kept one.
        step: the step they are of.
    """

    name: str
    experiment: Experiment
    params: Any
    step: int


def load_run(workdir: str | Path, overrides: dict[str, Any] | None = None) -> Run:
    """Read a run back.

    Args:
        workdir: the run's folder.
        overrides: fields of the config, by dotted name, that take other values than in training.

    Raises:
        ConfigError: there is no run in the folder.
        CheckpointError: there is no usable checkpoint, or it is not of the config's network.
    """
    import jax

    config = ConfigDict(load_config(workdir))
    for name, value in (overrides or {}).items():
        with config.ignore_type():
            config.update_from_flattened_dict({name: value})
    experiment = experiments.build(config)
    like = jax.eval_shape(lambda key: init_params(experiment, key), jax.random.key(0))
    params, step = restore_params(workdir, like)
    return Run(f"{Path(workdir).name} ({config.scheme.name})", experiment, params, step)


def attack_runs(
    workdirs: Sequence[str | Path],
    output: str | Path,
    *,
    overrides: dict[str, Any],
    epsilons: Sequence[float] = (),
    num_examples: int | None = None,
    num_iterations: int | None = None,
    seed: int = 0,
    progress: bool = True,
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

    Returns:
        The report, as written to `attack.json`.

    Raises:
        ValueError: an argument is not accepted.
    """
    for epsilon in epsilons:
        Threat(epsilon)  # refuses what is not a size
    runs = [load_run(workdir, overrides) for workdir in workdirs]
    if len({run.name for run in runs}) < len(runs):
        raise ValueError(f"workdirs must have different names, got {[str(w) for w in workdirs]}")
    report: dict[str, Any] = {"runs": []}
    results, all_rows = [], []
    for run in runs:
        conditions = standard_conditions(run.experiment.config.data.out_of_distribution)
        conditions += [
            Condition(f"{name} at {epsilon:g}", "test", attack, epsilon)
            for name, attack in (("average case", "random"), ("worst case", "worst"))
            for epsilon in epsilons
        ]
        part, result = evaluate(
            run.experiment,
            run.params,
            conditions,
            num_examples=num_examples,
            num_iterations=num_iterations,
            seed=seed,
            progress=progress,
        )
        print(f"\n{run.name}, step {run.step}\n{format_rows(part['rows'])}")
        report["runs"].append({"name": run.name, "step": run.step, **part})
        results.append(result)
        all_rows += [{"run": run.name, **row} for row in part["rows"]]
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "attack.json", report)
    write_csv(output / "attack.csv", all_rows)
    attack_figure(runs, results, output / "attack.png", num_examples=num_examples)
    return report


def attack_figure(
    runs: Sequence[Run],
    results: Sequence[dict[str, Evaluated]],
    path: Path,
    *,
    num_examples: int | None,
) -> None:
    """Draw what an attack does to the first test signal: one row a run."""
    rows, panels = [], []
    for run, result in zip(runs, results, strict=True):
        signals, measurements, _ = read_test_set(run.experiment, "test", num_examples)
        clean, worst = result["clean"], result["worst case"]
        if signals.ndim == 2:
            panels.append((f"{run.name}\nclean", measurements, clean.estimate))
            attacked = measurements + worst.delta
            panels.append((f"{run.name}\nworst case", attacked, worst.estimate))
            continue
        x, limit = signals[0], largest(signals[0])
        space = run.experiment.config.evaluate.threat.space
        shift = perturbed(
            run.experiment.operator, np.zeros_like(measurements[0]), worst.delta[0], space
        )
        rows.append(
            [
                Panel("measurement", measurements[0], largest(measurements[0])),
                Panel("truth", x, limit),
                Panel(_titled("clean estimate", clean), clean.estimate[0], limit),
                Panel(_titled("attacked estimate", worst), worst.estimate[0], limit),
                Panel(
                    "what the attack changed (x5)", 5 * (worst.estimate - clean.estimate)[0], limit
                ),
                Panel("perturbation (x20)", 20 * np.asarray(shift), largest(measurements[0])),
            ]
        )
    if panels:
        points_figure(panels, signals[0], path)
    else:
        panels_figure(rows, path, row_labels=[run.name for run in runs])


def _titled(text: str, result: Evaluated) -> str:
    psnr = result.metrics.get("psnr")
    return text if psnr is None else f"{text}, {psnr[0]:.1f} dB"
