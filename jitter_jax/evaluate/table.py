"""The table of one reconstructor: clean, average case, worst case, out of distribution."""

import csv
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jitter_jax.attacks import Attack, Ball, Threat, random
from jitter_jax.attacks.energy import EnergyShares
from jitter_jax.data.batch import Batch
from jitter_jax.evaluate.evaluator import Evaluated, Evaluator, make_evaluator, run_evaluator
from jitter_jax.metrics import Metric, Per, values_per
from jitter_jax.unroll import Reconstructor

Array = jax.Array


class Condition(NamedTuple):
    """One row of the table.

    Attributes:
        name: label of the row.
        test_set: which signals.
        attack: `"none"`, `"random"` (average case) or `"worst"`.
        epsilon: size of the threat; None takes the one that the threat was made with.
    """

    name: str
    test_set: str
    attack: str
    epsilon: float | None = None


def standard_conditions(
    out_of_distribution: Sequence[str], attacked: Sequence[str] = ()
) -> list[Condition]:
    """Return the rows that every run is judged by.

    Args:
        out_of_distribution: names of test sets besides the first.
        attacked: those of them that are attacked as well.

    Raises:
        ValueError: one of `attacked` is no such set.
    """
    for name in attacked:
        if name not in out_of_distribution:
            raise ValueError(
                f"evaluate.attacked={name!r} is not accepted: of data.out_of_distribution, "
                f"{tuple(out_of_distribution)}, are expected"
            )
    return [
        Condition("clean", "test", "none"),
        Condition("average case", "test", "random"),
        Condition("worst case", "test", "worst"),
        *(Condition(f"OOD {name}", name, "none") for name in out_of_distribution),
        *(Condition(f"{name}, average case", name, "random") for name in attacked),
        *(Condition(f"{name}, worst case", name, "worst") for name in attacked),
    ]


def make_evaluators(
    reconstructor: Reconstructor,
    metrics: dict[str, Metric],
    worst: Callable[[Ball], Attack],
    *,
    num_draws: int,
    on_sphere: bool = False,
    smoothing_draws: int = 1,
    energy_shares: EnergyShares | None = None,
    num_iterations: int | None = None,
) -> dict[str, Evaluator]:
    """Return the evaluations by the name of their attack: none, random and worst.

    Args:
        reconstructor: the reconstruction H.
        metrics: what is measured.
        worst: the search for the worst perturbation.
        num_draws: random perturbations of each signal, averaged, in the average case.
        on_sphere: draw them from the surface of the ball instead of the whole of it.
        smoothing_draws: see `make_evaluator`.
        energy_shares: says where the energy of a perturbation went.
        num_iterations: K of the reconstruction; the reconstructor's own if None.

    Raises:
        ValueError: `num_draws` is below 1.
    """
    make = partial(
        make_evaluator,
        reconstructor,
        metrics,
        energy_shares=energy_shares,
        smoothing_draws=smoothing_draws,
        num_iterations=num_iterations,
    )
    return {
        "none": make(None),
        "random": make(partial(random, on_sphere=on_sphere), num_draws=num_draws),
        "worst": make(worst),
    }


def evaluate_conditions(
    evaluators: Mapping[str, Evaluator],
    params: Any,
    batches: Callable[[str], Iterable[tuple[Batch, int]]],
    conditions: Sequence[Condition],
    threat: Threat,
    *,
    key: Array,
    metrics: Mapping[str, Metric],
    per: Per = "signal",
    keep: int = 0,
) -> tuple[list[dict[str, Any]], dict[str, Evaluated]]:
    """Evaluate every condition.

    Args:
        evaluators: by the name of the attack, from `make_evaluators`.
        params: parameters of the reconstructor.
        batches: gives a test set's batches by its name; see `run_evaluator`.
        conditions: the rows.
        threat: what attacks may do.
        key: PRNG key; signal i of every set draws from it and from its own number.
        metrics: the metrics that the evaluators were made with, in the order of the columns.
        per: whether a row's numbers are of signals or of volumes; see `make_metrics`.
        keep: estimates and perturbations of this many first signals are returned.

    Returns:
        The rows as JSON values, and what came of the signals, by the name of the condition.
    """
    rows, results = [], {}
    for condition in conditions:
        epsilon = float(threat.epsilon if condition.epsilon is None else condition.epsilon)
        result = run_evaluator(
            evaluators[condition.attack],
            params,
            batches(condition.test_set),
            dataclasses.replace(threat, epsilon=epsilon),
            key=key,
            keep=keep,
        )
        results[condition.name] = result
        attacked = condition.attack != "none"
        values = {
            name: values_per(metric, result.statistics[name], result.volume, per)
            for name, metric in metrics.items()
        }
        rows.append(
            {
                "condition": condition.name,
                "test_set": condition.test_set,
                "attack": condition.attack,
                "epsilon": epsilon if attacked else None,
                "mean_radius": float(result.radius.mean()) if attacked else None,
                "nonfinite_gradient_entries": int(result.nonfinite.sum()) if attacked else None,
                "perturbation_energy": {
                    name: float(share.mean()) for name, share in result.energy.items()
                }
                if attacked
                else None,
                "num_signals": len(result.radius),
                "num_volumes": len(np.unique(result.volume)),
                "metrics": {
                    name: {"mean": _finite(of_each.mean()), "std": _deviation(of_each)}
                    for name, of_each in values.items()
                },
            }
        )
    return rows, results


def _deviation(values: np.ndarray) -> float | None:
    # NumPy warns when it subtracts infinities, such as the PSNR of a perfect reconstruction.
    return float(values.std()) if np.isfinite(values).all() else None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None  # JSON has no infinity


def format_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table, mean and standard deviation over the signals."""
    names = list(rows[0]["metrics"])
    lines = [
        "| " + " | ".join(["condition", "epsilon", *map(header, names)]) + " |",
        "| --- |" + " ---: |" * (1 + len(names)),
    ]
    for row in rows:
        epsilon = "" if row["epsilon"] is None else f"{row['epsilon']:g}"
        cells = [spread(**row["metrics"][name], metric=name) for name in names]
        lines.append("| " + " | ".join([row["condition"], epsilon, *cells]) + " |")
    return "\n".join(lines)


def header(metric: str) -> str:
    """Return the heading of a metric's column."""
    return {"psnr": "PSNR (dB)", "ssim": "SSIM"}.get(metric, metric)


def spread(mean: float | None, std: float | None, metric: str) -> str:
    """Return `mean ± std` with the digits that a metric deserves."""
    if mean is None or std is None:
        return "not finite"
    digits = {"psnr": ".2f", "ssim": ".4f"}.get(metric, ".3g")
    return f"{mean:{digits}} ± {std:{digits}}"


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, one line a row, `<metric>_mean` and `<metric>_std` columns."""
    flat = []
    for row in rows:
        nested = ("metrics", "perturbation_energy")
        line = {key: value for key, value in row.items() if key not in nested}
        for name, numbers in row.get("metrics", {}).items():
            line |= {f"{name}_{key}": value for key, value in numbers.items()}
        flat.append(line)
    with path.open("w", newline="") as file:
        # A row may lack a number that others have.
        writer = csv.DictWriter(
            file, fieldnames=list(dict.fromkeys(k for row in flat for k in row))
        )
        writer.writeheader()
        writer.writerows(flat)
