"""Train one reconstructor and judge it: the work of `bin/train`."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jitter_jax import experiment as experiments
from jitter_jax import profiling, train
from jitter_jax.commands.evaluate import evaluate_run, first_examples, list_skipped
from jitter_jax.commands.runs import (
    first_state,
    init_params,
    load_config,
    load_network,
    step_of,
)
from jitter_jax.config import default_config
from jitter_jax.data.pipeline import evaluation_batches, filled_up, training_iterator
from jitter_jax.data.sources import PICTURE_KINDS
from jitter_jax.devices import SPLIT, WHOLE, Devices, choose_devices, fetch, is_first_process
from jitter_jax.evaluate.figures import (
    Panel,
    largest,
    panels_figure,
    points_figure,
    visible,
    visible_title,
)
from jitter_jax.experiment import Experiment
from jitter_jax.files import checked_folder
from jitter_jax.metrics import mse, values_per

# What may differ when a stopped run is continued: it changes no number of the training, but by
# rounding where sums are taken in another order.
MAY_CHANGE = (
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.keep",
    "train.steps_at_once",
    "devices",
    "evaluate",
    "data.folder",
    "pretrain.workdir",
)
EVALUATION_FILE = "evaluation.json"


def train_and_evaluate(
    config: ConfigDict,
    workdir: str | Path,
    *,
    progress: bool = True,
    profile: str | Path | None = None,
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
        profile: folder for a trace of a few steps of training, taken when they are compiled.

    Returns:
        The evaluation, as written to `evaluation.json`.

    Raises:
        ValueError: the config is not accepted, or disagrees with the run in the folder.
        NonFiniteError: the loss or its gradient is not finite; the last checkpoint stays.
        SystemExit: a signal stopped the run, which was saved.
    """
    workdir = Path(workdir)
    experiment, state = train_only(config, workdir, progress=progress, profile=profile)
    params = fetch(train.eval_params(state))
    report = evaluate_run(
        experiment, params, int(state.step), workdir / EVALUATION_FILE, progress=progress
    )
    if is_first_process():
        list_skipped(experiment)
        train.curves_figure(workdir / train.METRICS_FILE, workdir / "curves.png")
        examples_figure(experiment, params, workdir / "examples.png")
    return report


def train_only(
    config: ConfigDict,
    workdir: Path,
    *,
    progress: bool = True,
    profile: str | Path | None = None,
) -> tuple[Experiment, train.TrainState]:
    """Train as the config says, in both stages if it has two; see `train_and_evaluate`."""
    profile = None if profile is None else checked_folder(profile, "profile")
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
        for name in (
            *("num_steps", "log_every", "validate_every", "checkpoint_every"),
            *("keep", "steps_at_once"),
        )
    }
    train.check_loop_options(**options)
    devices = training_devices(config)
    parallel = train.parallel_step(
        partial(step_of, experiment),
        devices,
        parallel=config.devices.parallel,
        num_steps=config.train.steps_at_once,
    )
    network = None
    if config.pretrain.num_steps and not train.has_checkpoint(workdir):
        # Refuses now what would stop the second stage after the first.
        jax.eval_shape(lambda: init_params(config, experiment.reconstructor))
        network = pretrained_network(config, workdir, progress=progress)
    batches = training_iterator(
        experiment.sources["train"],
        config.train.batch_size,
        config.seed,
        shard=(jax.process_index(), jax.process_count()),
    )
    state = parallel.put_state(first_state(experiment, network=network))
    if is_first_process():
        train.save_config(workdir, config)
        (workdir / EVALUATION_FILE).unlink(missing_ok=True)  # it is of an earlier step
    traced = None if profile is None else profiling.TracedSteps(parallel.step, profile)
    with batches, traced or nullcontext(), train.stop_on_signals() as stop:
        state = train.fit(
            state,
            traced or parallel.step,
            train.Feed(batches, parallel.put_batches, steps_at_once=config.train.steps_at_once),
            workdir=workdir,
            validate=make_validate(experiment, devices),
            stop=stop,
            progress=progress,
            **options,
        )
    if traced is not None and is_first_process():
        print(f"{traced.traced * config.train.steps_at_once} steps traced in {profile}")
    return experiment, state


def training_devices(config: ConfigDict) -> Devices:
    """Return the devices that batches are spread over, and print how many if there is a choice.

    Raises:
        ValueError: `devices.num` is not accepted with this batch, or with the jitter.
    """
    num = config.devices.num
    of_batch = config.scheme.jitter.kind == "repo" and config.scheme.name.endswith("gd_jitter")
    if of_batch and num == 0:
        num = jax.process_count()
    devices = choose_devices(num, config.train.batch_size, name="train.batch_size")
    if of_batch and devices.count > 1:
        raise ValueError(
            "scheme.jitter.kind='repo' is not accepted on several devices: it scales by the "
            "largest entry of the batch, and each device has a part of it; a single process and "
            "devices.num=1 are expected"
        )
    if jax.device_count() > 1 and is_first_process():
        each = config.train.batch_size // devices.count
        print(
            f"{devices.count} of {jax.device_count()} devices, {each} examples of a batch on each"
        )
    return devices


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
    return fetch(train.eval_params(state)["network"])


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


def make_validate(experiment: Experiment, devices: Devices) -> Callable[[Any], dict[str, float]]:
    """Return `params -> metrics` on the validation set: clean, without jitter."""

    def one_batch(params: Any, examples: Mapping[str, Any]) -> dict[str, Any]:
        def one(x, y, operator, key, volume, volume_peak, scale):
            estimate = experiment.reconstructor.apply(params, operator, y, smoothing_key=key)
            statistics = {
                name: metric.statistics(estimate, x, volume_peak, scale)[None]
                for name, metric in experiment.metrics.items()
            }
            return {"loss": mse(estimate, x), "volume": volume, "statistics": statistics}

        batch = experiment.measure(examples, "validation")
        return batch.lift(one, jax.random.key(0), *batch.volumes(), batch.scale)

    mapped = jax.jit(devices.spread(one_batch, (WHOLE, SPLIT)))
    source = experiment.sources["validation"]
    size = devices.at_once(min(experiment.config.train.batch_size, len(source)))

    def validate(params: Any) -> dict[str, float]:
        params = devices.whole(params)
        parts = []
        for examples in evaluation_batches(source, size):
            count = len(examples["index"])
            of_batch = fetch(mapped(params, devices.split(filled_up(examples, size))))
            parts.append(jax.tree.map(lambda values, count=count: values[:count], of_batch))
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
