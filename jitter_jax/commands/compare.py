"""Train several schemes from several seeds and compare them: the work of `bin/compare`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jitter_jax.commands.evaluate import write_json
from jitter_jax.commands.train import train_and_evaluate
from jitter_jax.evaluate.table import header, spread
from jitter_jax.experiment import build, resolve
from jitter_jax.metrics import HIGHER_IS_BETTER
from jitter_jax.train import check_config

# {scheme: {condition: {metric: one value a seed}}}
Values = dict[str, dict[str, dict[str, list[float | None]]]]


def compare(
    config: ConfigDict,
    workdir: str | Path,
    *,
    schemes: Sequence[str],
    num_seeds: int,
    progress: bool = True,
) -> dict[str, Any]:
    """Train and evaluate every scheme from seeds 0, 1, ..., and compare them seed by seed.

    A seed draws the data, the measurement noise, the first weights, the order of the examples and
    the jitter, so schemes with the same seed differ by the scheme alone. Runs that are complete are
    read back, a run that was stopped goes on. Writes `summary.json` and `summary.md`.

    Args:
        config: the experiment; its scheme and seeds are replaced.
        workdir: folder of the runs, one subfolder each.
        schemes: names of schemes, `name[@method][+where]`: a method of the unroll (`mse@proximal`
            is the reference of `spgd_jitter`) and a place of smoothing (`mse+end_to_end` is RS-E2E,
            `unrolled_stability+step` SMUG); differences are taken to the first. Where there is a
            first stage, those of a seed and a method share it.
        num_seeds: at least 1.
        progress: whether to show progress bars.

    Returns:
        The summary that was written.

    Raises:
        ValueError: a scheme is unknown, or `num_seeds` is below 1.
    """
    if num_seeds < 1:
        raise ValueError(f"seeds={num_seeds} is not accepted: at least 1 is expected")
    for scheme in schemes:
        build(config_of(config, scheme, 0, workdir))  # refuses now what would stop a later run
    values: Values = {}
    for seed in range(num_seeds):
        for scheme in schemes:
            folder = Path(workdir) / f"{scheme.replace('@', '-').replace('+', '-')}-{seed}"
            run = config_of(config, scheme, seed, workdir)
            report = _finished(run, folder, progress=progress)
            _collect(values, scheme, report)
    summary = summarise(values, schemes)
    write_json(Path(workdir) / "summary.json", summary)
    text = format_summary(summary, schemes)
    (Path(workdir) / "summary.md").write_text(text + "\n")
    print(f"\n{text}")
    return summary


def config_of(config: ConfigDict, scheme: str, seed: int, workdir: str | Path) -> ConfigDict:
    """Return the config of one run.

    Args:
        config: the experiment.
        scheme: `name[@method][+where]`, see `compare`.
        seed: of data and training.
        workdir: folder of all runs.
    """
    config = config.copy_and_resolve_references()
    config.seed = config.data.seed = seed
    scheme, _, where = scheme.partition("+")
    config.scheme.name, _, method = scheme.partition("@")
    config.unroll.method = method or config.unroll.method
    config.smoothing.where = where or config.smoothing.where
    if config.pretrain.num_steps:
        method = resolve(config).unroll.method
        config.pretrain.workdir = str(Path(workdir) / f"pretrain-{method}-{seed}")
    return config


def _finished(config: ConfigDict, workdir: Path, *, progress: bool) -> dict[str, Any]:
    path = workdir / "evaluation.json"
    if path.exists():
        check_config(workdir, resolve(config), may_change=("pretrain.workdir",))
        report = json.loads(path.read_text())
        if report["step"] == config.train.num_steps:
            return report
    print(f"\n{workdir}")
    return train_and_evaluate(config, workdir, progress=progress)


def _collect(values: Values, scheme: str, report: dict[str, Any]) -> None:
    for row in report["rows"]:
        for metric, numbers in row["metrics"].items():
            by_metric = values.setdefault(scheme, {}).setdefault(row["condition"], {})
            by_metric.setdefault(metric, []).append(numbers["mean"])


def summarise(values: Values, schemes: Sequence[str]) -> dict[str, Any]:
    """Return mean and spread over the seeds, and the paired difference to the first scheme.

    Args:
        values: one value a seed.
        schemes: the first is the reference.

    Returns:
        `{scheme: {condition: {metric: {mean, std, values, difference, standard_error, better}}}}`.
        `std` and `standard_error` have `seeds - 1` in the denominator, and are None for one seed;
        `better` counts the seeds in which the scheme beats the reference. A number is None where
        one of its values was not finite.
    """

    def numbers(scheme: str, condition: str, metric: str) -> dict[str, Any]:
        own = _array(values[scheme][condition][metric])
        gap = own - _array(values[schemes[0]][condition][metric])
        several = len(own) > 1
        better = gap > 0 if metric in HIGHER_IS_BETTER else gap < 0
        return {
            "mean": _number(own.mean()),
            "std": _number(own.std(ddof=1)) if several else None,
            "values": [_number(v) for v in own],
            "difference": _number(gap.mean()),
            "standard_error": _number(gap.std(ddof=1) / np.sqrt(len(gap))) if several else None,
            "better": int(better.sum()),
        }

    return {
        scheme: {
            condition: {metric: numbers(scheme, condition, metric) for metric in metrics}
            for condition, metrics in values[scheme].items()
        }
        for scheme in schemes
    }


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def format_summary(summary: dict[str, Any], schemes: Sequence[str]) -> str:
    """Return two Markdown tables a metric: mean ± std over seeds, and differences to the first."""
    conditions = list(summary[schemes[0]])
    parts = []
    for metric in summary[schemes[0]][conditions[0]]:
        cells = {s: [summary[s][c][metric] for c in conditions] for s in schemes}
        num_seeds = len(cells[schemes[0]][0]["values"])
        parts.append(f"{header(metric)}, mean ± standard deviation over {num_seeds} seeds\n")
        rows = {s: [_cell(n["mean"], n["std"], metric) for n in cells[s]] for s in schemes}
        parts.append(_markdown(conditions, rows))
        parts.append(
            f"\n{header(metric)}, difference to {schemes[0]} with the same seed, "
            "mean ± standard error (seeds in which it is better)\n"
        )
        rows = {
            s: [
                f"{_cell(n['difference'], n['standard_error'], metric)} ({n['better']})"
                for n in cells[s]
            ]
            for s in schemes[1:]
        }
        parts.append(_markdown(conditions, rows) + "\n")
    return "\n".join(parts)


def _cell(mean: float | None, std: float | None, metric: str) -> str:
    return spread(mean, std if std is not None else 0.0, metric)


def _markdown(columns: Sequence[str], rows: dict[str, list[str]]) -> str:
    lines = ["| scheme | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines)
