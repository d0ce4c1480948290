"""Evaluate one trained reconstructor, and write down what every number means."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jitter_jax.data.batch import Batch
from jitter_jax.data.part import Part
from jitter_jax.data.pipeline import evaluation_batches, filled_up
from jitter_jax.data.sources import IMAGE_KINDS
from jitter_jax.devices import is_first_process
from jitter_jax.evaluate.evaluator import Evaluated, signals_at_once
from jitter_jax.evaluate.table import (
    Condition,
    evaluate_conditions,
    format_rows,
    standard_conditions,
)
from jitter_jax.experiment import Experiment
from jitter_jax.files import write_text
from jitter_jax.keys import domain_key

KEPT = 64  # estimates that are kept for figures


def evaluate_run(
    experiment: Experiment, params: Any, step: int, path: Path, *, progress: bool = True
) -> dict[str, Any]:
    """Evaluate under the config's own threat, print the table and write the JSON.

    Args:
        experiment: the experiment.
        params: trained parameters.
        step: the step they are of.
        path: where the JSON goes.
        progress: whether to show a progress bar.

    Returns:
        The report that was written.
    """
    conditions = run_conditions(experiment)
    report, _ = evaluate(experiment, params, conditions, progress=progress)
    report = {"step": step, **report}
    if is_first_process():
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
    chunk: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[dict[str, Any], dict[str, Evaluated]]:
    """Evaluate the conditions under `config.evaluate`.

    Args:
        experiment: the experiment.
        params: trained parameters.
        conditions: the rows.
        num_examples: signals of each set, from its first; all if None.
        num_iterations: K, which `experiment` was built with; that of the config if None.
        chunk: signals at once; what the memory budget allows if None.
        seed: of the random draws.
        progress: whether to show a progress bar.

    Returns:
        The report, with the definition of every number, and the results by condition.

    Raises:
        ValueError: `num_examples` is below 1, or the memory budget is not positive.
    """
    if chunk is None:
        chunk = chunk_of(
            experiment,
            params,
            [condition.test_set for condition in conditions],
            num_examples=num_examples,
            num_iterations=num_iterations,
        )
    rows, results = evaluate_conditions(
        experiment.evaluators,
        experiment.devices.whole(params),
        batches_with_bar(experiment, chunk, num_examples, len(conditions), show=progress),
        conditions,
        experiment.threat,
        key=domain_key(seed, "attack"),
        metrics=experiment.metrics,
        per=experiment.config.metrics.per,
        keep=KEPT,
    )
    return {"rows": rows, "definitions": definitions(experiment, num_iterations, seed)}, results


def chunk_of(
    experiment: Experiment,
    params: Any,
    test_sets: Iterable[str],
    *,
    num_examples: int | None = None,
    num_iterations: int | None = None,
) -> int:
    """Return how many signals are evaluated at once, on all devices together.

    Args:
        experiment: the experiment.
        params: trained parameters.
        test_sets: the sets that will be evaluated; the first stands for all.
        num_examples: signals of each set; all if None.
        num_iterations: K; that of the config if None.

    Raises:
        ValueError: `num_examples` is below 1, or the memory budget is not positive.
    """
    if num_examples is not None and num_examples < 1:
        raise ValueError(f"num_examples={num_examples} is not accepted: at least 1 is expected")
    names = list(test_sets)
    most = max(len(experiment.sources[name]) for name in names)
    devices = experiment.devices
    on_each = signals_at_once(
        experiment.reconstructor,
        params,
        first_examples(experiment, names[0], 1),
        budget_bytes=experiment.config.evaluate.memory_gb * 1e9,
        most=devices.at_once(min(most, num_examples or most)) // devices.count,
        num_iterations=num_iterations,
    )
    return devices.count * on_each


def run_conditions(experiment: Experiment) -> list[Condition]:
    """Return the rows that the config of a run asks for."""
    config = experiment.config
    return standard_conditions(config.data.out_of_distribution, config.evaluate.attacked)


def list_skipped(experiment: Experiment) -> None:
    """Print the data files that were left out."""
    for path, reason in experiment.skipped:
        print(f"skipped {path}: {reason}")


def batches_with_bar(
    experiment: Experiment, chunk: int, limit: int | None, num_conditions: int, *, show: bool
) -> Callable[[str], Iterator[tuple[Batch, int]]]:
    """Return the function that gives a set's measured batches, all of one size.

    The last batch is filled up with its first example: one compiled shape serves all. A batch is
    spread over the experiment's devices.

    Args:
        experiment: the experiment.
        chunk: signals in a batch; as many more as its devices need to share it evenly.
        limit: at most this many signals of a set.
        num_conditions: how often the function will be called, for the progress bar.
        show: whether to show the bar.
    """
    from tqdm import tqdm

    chunk = experiment.devices.at_once(chunk)
    row = 0

    def batches(name: str) -> Iterator[tuple[Batch, int]]:
        nonlocal row
        row += 1
        source = experiment.sources[name]
        source = Part(source, 0, min(len(source), limit or len(source)))
        parts = tqdm(
            evaluation_batches(source, chunk),
            total=-(-len(source) // chunk),
            desc=f"evaluating {row} of {num_conditions}",
            disable=not (show and is_first_process()),
            leave=False,
        )
        for examples in parts:
            count = len(examples["index"])
            filled = experiment.devices.split(filled_up(examples, chunk))
            yield experiment.measure(filled, name), count

    return batches


def first_examples(experiment: Experiment, name: str, count: int) -> Batch:
    """Return the first examples of a set, measured; fewer if it has fewer."""
    return experiment.measure(next(evaluation_batches(experiment.sources[name], count)), name)


def definitions(experiment: Experiment, num_iterations: int | None, seed: int) -> dict[str, Any]:
    """Return what every number of a report means, as JSON values."""
    config = experiment.config
    draws = config.evaluate.num_draws
    place = "on the surface of" if config.evaluate.on_sphere else "in"
    return {
        "metrics": {name: metric.definition for name, metric in experiment.metrics.items()},
        "spread": f"standard deviation over the {config.metrics.per}s of the set",
        "threat": config.evaluate.threat.to_dict(),
        "worst case": attack_definition(config.evaluate.attack),
        "average case": {
            "draws": draws,
            "distribution": f"uniform {place} the ball",
            "metrics": "mean over the draws",
        },
        "reconstruction": {
            "method": config.unroll.method,
            "num_iterations": num_iterations or config.unroll.num_iterations,
            "jitter": "none",
            "smoothing": smoothing_definition(config),
        },
        "normalisation": config.data.normalisation,
        "noise_std": config.data.noise_std,
        **_images_definition(experiment),
        "data_seed": config.data.seed,
        "seed": seed,
        "scheme": config.scheme.name,
    }


def _images_definition(experiment: Experiment) -> dict[str, Any]:
    """Return unit, mask and accelerations of images, and the files that were left out."""
    data = experiment.config.data
    if data.kind not in IMAGE_KINDS:
        return {}
    return {
        "unit": data.images.unit,
        "sampling": data.sampling.to_dict(),
        "shifts": data.shifts.to_dict(),
        "acceleration of the first example": {
            name: 1 / float(np.mean(source[0]["mask"]))
            for name, source in experiment.sources.items()
        },
        "skipped": [{"file": str(path), "reason": reason} for path, reason in experiment.skipped],
    }


def smoothing_definition(config: ConfigDict) -> Any:
    """Return what a reconstruction is averaged over, as JSON values."""
    if config.smoothing.where == "none":
        return "none"
    return {
        **config.smoothing.to_dict(),
        "attack": f"mean of the objective over {config.evaluate.smoothing_draws} draws of the "
        "average, the same in all steps; the estimate is of another draw",
    }


def attack_definition(config: ConfigDict) -> dict[str, Any]:
    """Return what an attack does, as JSON values, with nothing implied."""
    common = {"name": config.name, "objective": "mean |H(y + delta) - x|^2"}
    if config.name == "fgsm":
        return {**common, "rule": "radius * s(gradient) from the zero perturbation"}
    plain = config.to_dict()
    plain["step_size"] = plain["step_size"] or 2.5 / plain["num_steps"]
    return {**plain, **common, "rule": "step_size * radius * s(gradient), then projection"}


def write_json(path: Path, report: Any) -> None:
    """Write strict JSON, whole or not at all."""
    write_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n")
