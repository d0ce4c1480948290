"""Train one reconstructor and judge it: the work of `bin/train`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jitter_jax import experiment as experiments
from jitter_jax import train
from jitter_jax.commands.evaluate import evaluate_run, read_test_set
from jitter_jax.data.pipeline import evaluation_batches, training_iterator
from jitter_jax.evaluate.figures import Panel, largest, panels_figure, points_figure
from jitter_jax.experiment import Experiment
from jitter_jax.metrics import mse

# What may differ when a stopped run is continued: it changes no number of the training.
MAY_CHANGE = (
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.keep",
    "evaluate",
)


def train_and_evaluate(config: ConfigDict, workdir: str | Path, *, progress: bool = True) -> dict:
    """Train as the config says, continuing what is in the folder, then evaluate.

    Writes `config.json`, `metrics.jsonl`, `checkpoints/`, `curves.png`, `examples.png`
    and `evaluation.json` to the folder.

    Args:
        config: the experiment.
        workdir: the run's folder; made if need be.
        progress: whether to show progress bars.

    Returns:
        The evaluation, as written to `evaluation.json`.

    Raises:
        ValueError: the config is not accepted, or disagrees with the run in the folder.
        NonFiniteError: the loss or its gradient is not finite; the last checkpoint stays.
        SystemExit: a signal stopped the run, which was saved.
    """
    workdir = Path(workdir)
    may_change: tuple[str, ...] = MAY_CHANGE
    if config.optimizer.schedule == "constant":
        may_change = (*may_change, "train.num_steps")  # no schedule hangs on it
    train.check_config(workdir, config, may_change=may_change)
    experiment = experiments.build(config)
    state, step = start(experiment)
    check_examples(experiment)
    train.save_config(workdir, config)
    with train.stop_on_signals() as stop:
        batches = training_iterator(
            experiment.sources["train"], config.train.batch_size, config.seed
        )
        state = train.fit(
            state,
            step,
            batches,
            workdir=workdir,
            num_steps=config.train.num_steps,
            log_every=config.train.log_every,
            validate=make_validate(experiment),
            validate_every=config.train.validate_every,
            checkpoint_every=config.train.checkpoint_every,
            keep=config.train.keep,
            stop=stop,
            progress=progress,
        )
        batches.close()
    train.curves_figure(workdir / train.METRICS_FILE, workdir / "curves.png")
    params = train.eval_params(state)
    examples_figure(experiment, params, workdir / "examples.png")
    return evaluate_run(experiment, params, workdir / "evaluation.json", progress=progress)


def start(experiment: Experiment) -> tuple[train.TrainState, train.step.Step]:
    """Return the state before the first step, and the compiled step."""
    config = experiment.config
    optimizer = train.make_optimizer(num_steps=config.train.num_steps, **config.optimizer.to_dict())
    decay = config.train.average_decay or None
    key_init, key_run = jax.random.split(jax.random.key(config.seed))
    state = train.init_state(
        init_params(experiment, key_init), optimizer, key_run, average_decay=decay
    )
    step = train.make_step(experiment.loss, optimizer, average_decay=decay)
    return state, jax.jit(step, donate_argnums=0)


def init_params(experiment: Experiment, key: jax.Array) -> Any:
    """Return first parameters for signals like those of the training set."""
    examples = next(evaluation_batches(experiment.sources["train"], 1))
    measurement = experiment.measure(examples, "train").measurement[0]
    return experiment.reconstructor.init(key, experiment.operator, measurement)


def check_examples(experiment: Experiment) -> None:
    """Read one example of every set, so that a file that cannot be used stops the run at once."""
    for name, source in experiment.sources.items():
        experiment.measure(next(evaluation_batches(source, 1)), name)


def make_validate(experiment: Experiment):
    """Return `params -> metrics` on the validation set: clean, without jitter."""
    config = experiment.config

    @jax.jit
    def one_batch(params: Any, examples: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        measured = experiment.measure(examples, "validation")

        def one(x, y):
            estimate = experiment.reconstructor.apply(params, experiment.operator, y)
            named = {name: m.function(estimate, x) for name, m in experiment.metrics.items()}
            return {"loss": mse(estimate, x), **named}

        return jax.vmap(one)(measured.signal, measured.measurement)

    batches = list(evaluation_batches(experiment.sources["validation"], config.train.batch_size))

    def validate(params: Any) -> dict[str, float]:
        parts = [one_batch(params, batch) for batch in batches]
        return {
            name: float(np.concatenate([np.atleast_1d(p[name]) for p in parts]).mean())
            for name in parts[0]
        }

    return validate


def examples_figure(experiment: Experiment, params: Any, path: Path, *, count: int = 3) -> None:
    """Draw measurement, estimate, truth and error of the first test signals."""
    signals, measurements, _ = read_test_set(experiment, "test", None)
    estimates = jax.vmap(lambda y: experiment.reconstructor.apply(params, experiment.operator, y))(
        measurements
    )
    if signals.ndim == 2:
        points_figure([("test set", measurements, np.asarray(estimates))], signals[0], path)
        return
    rows = []
    for x, y, estimate in list(zip(signals, measurements, np.asarray(estimates), strict=True))[
        :count
    ]:
        limit = largest(x)
        rows.append(
            [
                Panel("measurement", y, largest(y)),
                Panel("estimate", estimate, limit),
                Panel("truth", x, limit),
                Panel("error", estimate - x, limit),
            ]
        )
    panels_figure(rows, path)
