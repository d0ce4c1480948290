"""Train one reconstructor and judge it: the work of `bin/train`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jitter_jax import experiment as experiments
from jitter_jax import train
from jitter_jax.commands.evaluate import evaluate_run, first_examples, list_skipped
from jitter_jax.commands.runs import init_params, load_config, load_network, start
from jitter_jax.config import default_config
from jitter_jax.data.pipeline import evaluation_batches, training_iterator
from jitter_jax.data.sources import PICTURE_KINDS
from jitter_jax.evaluate.figures import (
    Panel,
    largest,
    panels_figure,
    points_figure,
    visible,
    visible_title,
)
from jitter_jax.experiment import Experiment
from jitter_jax.metrics import mse, values_per

# What may differ when a stopped run is continued: it changes no number of the training.
MAY_CHANGE = (
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.keep",
    "evaluate",
    "data.folder",
    "pretrain.workdir",
)
EVALUATION_FILE = "evaluation.json"


def train_and_evaluate(
    config: ConfigDict, workdir: str | Path, *, progress: bool = True
) -> dict[str, Any]:
    """Train as the config says, continuing what is in the folder, then evaluate.

    With `config.pretrain.num_steps` a first stage trains the learned step alone, as a run of its
    own in `pretrain/` or `config.pretrain.workdir`, and the second starts from its weights.

    Writes `config.json`, `metrics.jsonl`, `checkpoints/`, `curves.png`, `examples.png` and
    `evaluation.json` to the folder, and nothing before the whole config was accepted.

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
    experiment, state = train_only(config, workdir, progress=progress)
    params = train.eval_params(state)
    report = evaluate_run(
        experiment, params, int(state.step), workdir / EVALUATION_FILE, progress=progress
    )
    list_skipped(experiment)
    train.curves_figure(workdir / train.METRICS_FILE, workdir / "curves.png")
    examples_figure(experiment, params, workdir / "examples.png")
    return report


def train_only(
    config: ConfigDict, workdir: Path, *, progress: bool = True
) -> tuple[Experiment, train.TrainState]:
    """Train as the config says, in both stages if it has two; see `train_and_evaluate`."""
    config = experiments.resolve(config)
    frozen = config.scheme.unrolled_stability.frozen
    taken = frozen and config.scheme.name == "unrolled_stability"
    frozen_params = {"network": load_network(frozen, config)} if taken else None
    experiment = experiments.build(config, frozen_params=frozen_params)
    config = experiment.config
    may_change: tuple[str, ...] = MAY_CHANGE
    if config.optimizer.schedule == "constant":
        may_change = (*may_change, "train.num_steps")  # no schedule hangs on it
    train.check_config(workdir, config, may_change=may_change)
    options = {
        name: config.train[name]
        for name in ("num_steps", "log_every", "validate_every", "checkpoint_every", "keep")
    }
    train.check_loop_options(**options)
    network = None
    if config.pretrain.num_steps and not train.has_checkpoint(workdir):
        # Refuses now what would stop the second stage after the first.
        jax.eval_shape(lambda: init_params(config, experiment.reconstructor))
        network = pretrained_network(config, workdir, progress=progress)
    state, step = start(experiment, network=network)
    batches = training_iterator(experiment.sources["train"], config.train.batch_size, config.seed)
    train.save_config(workdir, config)
    (workdir / EVALUATION_FILE).unlink(missing_ok=True)  # it is of an earlier step
    with batches, train.stop_on_signals() as stop:
        state = train.fit(
            state,
            step,
            batches,
            workdir=workdir,
            validate=make_validate(experiment),
            stop=stop,
            progress=progress,
            **options,
        )
    return experiment, state


def pretrained_network(config: ConfigDict, workdir: Path, *, progress: bool = True) -> Any:
    """Train the learned step alone, going on where a stopped first stage was, and return it.

    Args:
        config: of the whole run.
        workdir: of the whole run.
        progress: whether to show progress bars.

    Raises:
        ValueError: `config.pretrain.workdir` holds another kind of run, or one of another config,
            or is `workdir`.
    """
    folder = Path(config.pretrain.workdir or workdir / "pretrain")
    if folder.resolve() == workdir.resolve():
        raise train.ConfigError(
            f"pretrain.workdir={str(folder)!r} is not accepted: it is the folder of the whole run"
        )
    if train.has_checkpoint(folder):
        found = load_config(folder).scheme.name
        if found != "denoising":
            raise train.ConfigError(
                f"pretrain.workdir={str(folder)!r} is not accepted: it holds a run of the scheme "
                f"{found!r}, and one of 'denoising' is expected"
            )
    _, state = train_only(pretraining(config), folder, progress=progress)
    return train.eval_params(state)["network"]


def pretraining(config: ConfigDict) -> ConfigDict:
    """Return the config of the first stage: the bare learned step, by the scheme `denoising`.

    It is the same for all schemes and kinds of smoothing of an unroll, which so can share one first
    stage.
    """
    stage, fresh = config.copy_and_resolve_references(), default_config()
    stage.train.num_steps = config.pretrain.num_steps
    stage.smoothing, stage.pretrain, stage.scheme = fresh.smoothing, fresh.pretrain, fresh.scheme
    stage.scheme.name = "denoising"
    stage.scheme.denoising = config.scheme.denoising
    return stage


def make_validate(experiment: Experiment) -> Callable[[Any], dict[str, float]]:
    """Return `params -> metrics` on the validation set: clean, without jitter."""

    @jax.jit
    def one_batch(params: Any, examples: Mapping[str, np.ndarray]) -> dict[str, Any]:
        def one(x, y, operator, key, volume, volume_peak, scale):
            estimate = experiment.reconstructor.apply(params, operator, y, smoothing_key=key)
            statistics = {
                name: metric.statistics(estimate, x, volume_peak, scale)[None]
                for name, metric in experiment.metrics.items()
            }
            return {"loss": mse(estimate, x), "volume": volume, "statistics": statistics}

        batch = experiment.measure(examples, "validation")
        return batch.lift(one, jax.random.key(0), *batch.volumes(), batch.scale)

    size = experiment.config.train.batch_size

    def validate(params: Any) -> dict[str, float]:
        parts = [
            jax.tree.map(np.asarray, one_batch(params, examples))
            for examples in evaluation_batches(experiment.sources["validation"], size)
        ]
        joined = jax.tree.map(lambda *values: np.concatenate(values), *parts)
        found = {"loss": float(np.mean(joined["loss"]))}
        for name, metric in experiment.metrics.items():
            statistics = joined["statistics"][name]
            per = experiment.config.metrics.per
            found[name] = float(values_per(metric, statistics, joined["volume"], per).mean())
        return found

    return validate


def examples_figure(experiment: Experiment, params: Any, path: Path) -> None:
    """Draw measurement, estimate, truth and error of the first test signals."""
    points = experiment.config.data.kind == "points"
    batch = first_examples(experiment, "test", 50 if points else 3)

    def one(x, y, operator, key):
        del x
        estimate = experiment.reconstructor.apply(params, operator, y, smoothing_key=key)
        return estimate, visible(operator, y)

    estimates, seen = jax.jit(lambda batch: batch.lift(one, jax.random.key(0)))(batch)
    signals, seen, estimates = (np.asarray(a) for a in (batch.signal, seen, estimates))
    positive = experiment.config.data.kind in PICTURE_KINDS
    if points:
        points_figure([("test set", seen, estimates)], signals[0], path)
        return
    rows = [
        [
            Panel(visible_title(y, batch.measurement[0]), y, largest(y), positive),
            Panel("estimate", estimate, largest(x), positive),
            Panel("truth", x, largest(x), positive),
            Panel("error", estimate - x, largest(x)),
        ]
        for x, y, estimate in zip(signals, seen, estimates, strict=True)
    ]
    panels_figure(rows, path)
