"""Evaluate one trained reconstructor, and write down what every number means."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jitter_jax.attacks import Threat
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.evaluate.evaluator import Evaluated, chunk_for_memory
from jitter_jax.evaluate.table import (
    Condition,
    MeasuredSet,
    evaluate_conditions,
    format_rows,
    make_evaluators,
    standard_conditions,
)
from jitter_jax.experiment import Experiment, make_attack


def evaluate_run(
    experiment: Experiment, params: Any, path: Path, *, progress: bool = True
) -> dict[str, Any]:
    """Evaluate under the config's own threat, print the table and write the JSON.

    Args:
        experiment: the experiment.
        params: trained parameters.
        path: where the JSON goes.
        progress: whether to show a progress bar.

    Returns:
        The report that was written.
    """
    conditions = standard_conditions(experiment.config.data.out_of_distribution)
    report, _ = evaluate(experiment, params, conditions, progress=progress)
    write_json(path, report)
    print(format_rows(report["rows"]))
    return report


def evaluate(
    experiment: Experiment,
    params: Any,
    conditions: Sequence[Condition],
    *,
    num_examples: int | None = None,
    num_iterations: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[dict[str, Any], dict[str, Evaluated]]:
    """Evaluate the conditions under `config.evaluate`.

    Args:
        experiment: the experiment; `experiment.config.evaluate` holds the threat, the attack, the
            draws of the average case and the memory budget.
        params: trained parameters.
        conditions: the rows.
        num_examples: signals of each set, from its first; all if None.
        num_iterations: K of the reconstruction; that of the config if None.
        seed: of the random draws.
        progress: whether to show a progress bar.

    Returns:
        The report, with the definition of every number, and the results by condition.
    """
    config = experiment.config.evaluate
    threat = Threat(**config.threat.to_dict())
    test_sets = {
        name: read_test_set(experiment, name, num_examples)
        for name in dict.fromkeys(condition.test_set for condition in conditions)
    }
    test = test_sets["test"]
    chunk = chunk_for_memory(
        experiment.reconstructor,
        params,
        experiment.operator,
        test.measurements[0],
        budget_bytes=config.memory_gb * 1e9,
        most=len(test.signals),
    )
    evaluators = make_evaluators(
        experiment.reconstructor,
        experiment.metrics,
        make_attack(config.attack, where="evaluate"),
        num_draws=config.num_draws,
        on_sphere=config.on_sphere,
        num_iterations=num_iterations,
    )
    rows, results = evaluate_conditions(
        evaluators,
        params,
        experiment.operator,
        test_sets,
        conditions,
        threat,
        jax.random.key(seed),
        chunk=chunk,
        progress=progress_bar(progress, len(conditions)),
    )
    unrolls = experiment.config.unroll.num_iterations
    definitions = {
        "metrics": {name: metric.definition for name, metric in experiment.metrics.items()},
        "spread": "standard deviation over the signals of the set",
        "threat": config.threat.to_dict(),
        "worst case": config.attack.to_dict() | {"objective": "mean |H(y + delta) - x|^2"},
        "average case": {
            "draws": config.num_draws,
            "distribution": f"uniform {'on the surface of' if config.on_sphere else 'in'} the ball",
            "metrics": "mean over the draws",
        },
        "num_iterations": unrolls if num_iterations is None else num_iterations,
        "normalisation": experiment.config.data.normalisation,
        "seed": seed,
        "scheme": experiment.config.scheme.name,
    }
    return {"rows": rows, "definitions": definitions}, results


def read_test_set(experiment: Experiment, name: str, num_examples: int | None) -> MeasuredSet:
    """Measure the first signals of a set."""
    source = experiment.sources[name]
    count = len(source) if num_examples is None else min(num_examples, len(source))
    if count < 1:
        raise ValueError(f"num_examples={num_examples} is not accepted: at least 1 is expected")
    signals, measurements, numbers = [], [], []
    for examples in evaluation_batches(source, min(count, 64)):
        measured = experiment.measure(examples, name)
        signals.append(np.asarray(measured.signal))
        measurements.append(np.asarray(measured.measurement))
        numbers.append(examples["index"])
        if sum(map(len, signals)) >= count:
            break
    return MeasuredSet(
        *(np.concatenate(parts)[:count] for parts in (signals, measurements, numbers))
    )


def progress_bar(show: bool, num_conditions: int) -> Callable:
    """Return a wrapper that shows how far the evaluation of the conditions has come."""
    from tqdm import tqdm

    state = {"row": 0}

    def wrap(chunks):
        state["row"] += 1
        description = f"evaluating {state['row']} of {num_conditions}"
        return tqdm(chunks, desc=description, disable=not show, leave=False)

    return wrap


def write_json(path: Path, report: Any) -> None:
    """Write strict JSON by way of a temporary file, so that a reader never sees half of it."""
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    temporary.replace(path)
