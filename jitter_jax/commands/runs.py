"""Runs: their first state, and what is read back from their folders."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jitter_jax import experiment as experiments
from jitter_jax import train
from jitter_jax.config import default_config
from jitter_jax.data.measure import OperatorFactory
from jitter_jax.experiment import Experiment
from jitter_jax.keys import domain_key
from jitter_jax.operators import LinearOperator
from jitter_jax.unroll import Reconstructor

Params = Any


def init_params(config: ConfigDict, reconstructor: Reconstructor) -> Params:
    """Return the first parameters of a run; they hang on its seed alone."""
    x = jnp.zeros(**experiments.signal_type(config))
    operator = experiments.example_operator(config)
    return reconstructor.init(domain_key(config.seed, "weights"), operator, operator.forward(x))


def first_state(experiment: Experiment, *, network: Params = None) -> train.TrainState:
    """Return the state before the first step.

    Args:
        experiment: the experiment.
        network: parameters that the learned step starts from; drawn by the run's seed if None.
    """
    config = experiment.config
    params = init_params(config, experiment.reconstructor)
    if network is not None:
        params = {**params, "network": network}
    return train.init_state(
        params,
        _optimizer(config),
        domain_key(config.seed, "training"),
        average_decay=config.train.average_decay or None,
    )


def step_of(experiment: Experiment, reduce: Callable[[Any], Any] | None = None) -> train.step.Step:
    """Return the step, not compiled; `reduce` averages over devices, as in `train.make_step`."""
    config = experiment.config
    return train.make_step(
        experiment.loss,
        _optimizer(config),
        average_decay=config.train.average_decay or None,
        num_levels=experiments.levels_of(config.scheme),
        reduce=reduce,
    )


def start(
    experiment: Experiment, *, network: Params = None
) -> tuple[train.TrainState, train.step.Step]:
    """Return the state before the first step, and the step compiled for a single device."""
    step = jax.jit(step_of(experiment), donate_argnums=0)
    return first_state(experiment, network=network), step


def _optimizer(config: ConfigDict) -> Any:
    num_steps = config.train.num_steps * (experiments.levels_of(config.scheme) or 1)
    return train.make_optimizer(num_steps=num_steps, **config.optimizer.to_dict())


class Trained(NamedTuple):
    """A trained reconstructor, read back from its run's folder.

    Attributes:
        config: the run's config.
        operator: the operator A of all measurements, or a function that makes that of each.
        reconstructor: the reconstruction H.
        params: the last checkpoint's parameters; their average if the run kept one.
        step: the step they are of.
    """

    config: ConfigDict
    operator: LinearOperator | OperatorFactory
    reconstructor: Reconstructor
    params: Params
    step: int


def load_trained(workdir: str | Path) -> Trained:
    """Read a trained reconstructor back; this needs none of the data it was trained on.

    Raises:
        ConfigError: there is no run in the folder.
        CheckpointError: there is no usable checkpoint, or it is not of the config's network.
        ValueError: the config has not the fields of an experiment.
    """
    config = experiments.resolve(load_config(workdir))
    reconstructor = experiments.make_reconstructor(config)
    like = jax.eval_shape(lambda: init_params(config, reconstructor))
    params, step = train.restore_params(workdir, like)
    operator = experiments.make_operator(config.operator)
    return Trained(config, operator, reconstructor, params, step)


def load_network(workdir: str | Path, config: ConfigDict) -> Params:
    """Read the learned step of a trained reconstructor back, for another run.

    Args:
        workdir: folder of the trained run.
        config: of the other run.

    Raises:
        ValueError: the two have different networks.
        ConfigError, CheckpointError: as for `load_trained`.
    """
    trained = load_trained(workdir)
    if trained.config.network.to_dict() != config.network.to_dict():
        raise ValueError(
            f"the run in {workdir} has another network: {trained.config.network.to_dict()}, and "
            f"{config.network.to_dict()} is expected"
        )
    return trained.params["network"]


def load_config(workdir: str | Path, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Read a run's config, with other values for some fields, by dotted name.

    Fields that runs of earlier versions lack have their defaults.
    """
    config, defaults = ConfigDict(train.load_config(workdir)), default_config()
    for part, name in (("train", "steps_at_once"), ("network", "precision")):
        if name not in config.get(part, (name,)):
            config[part][name] = defaults[part][name]
    if "devices" not in config:
        config.devices = defaults.devices
    with config.ignore_type():
        config.update_from_flattened_dict(dict(overrides or {}))
    return config


def load_experiments(
    workdirs: Sequence[str | Path], overrides: Mapping[str, Any]
) -> dict[str, tuple[Experiment, Params]]:
    """Build the experiments of runs, with their trained parameters, by the names of their folders.

    Args:
        workdirs: folders of runs that measure the same signals.
        overrides: fields that differ from the runs' configs, by dotted name.

    Raises:
        ValueError: two folders have one name, or the runs are not of one problem.
        ConfigError, CheckpointError: as for `load_trained`.
    """
    configs = comparable_configs(workdirs, overrides)
    trained = [load_trained(workdir) for workdir in workdirs]
    return {
        name: (experiments.build(config), of_run.params)
        for (name, config), of_run in zip(configs.items(), trained, strict=True)
    }


def published_experiments(
    weights: Sequence[str | Path], config: ConfigDict, overrides: Mapping[str, Any]
) -> dict[str, tuple[Experiment, Params]]:
    """Build experiments with published weights, by the names of their files.

    Args:
        weights: files for `unroll.load_published`.
        config: what is measured, and how.
        overrides: fields that differ from the config, by dotted name.

    Raises:
        ValueError: two files have one name, or a file or a field is not accepted.
        FileNotFoundError: a file is missing.
    """
    names = [Path(path).stem for path in weights]
    if len(set(names)) < len(names):
        raise ValueError(f"weights must have different names, got {names}")
    made = {}
    for name, path in zip(names, weights, strict=True):
        own = config.copy_and_resolve_references()
        with own.ignore_type():
            own.update_from_flattened_dict({**overrides, "network.weights": str(path)})
        experiment = experiments.build(own)
        made[name] = (experiment, init_params(experiment.config, experiment.reconstructor))
    return made


def comparable_configs(
    workdirs: Sequence[str | Path], overrides: Mapping[str, Any]
) -> dict[str, ConfigDict]:
    """Return the configs of runs, by the names of their folders.

    Args:
        workdirs: folders of the runs.
        overrides: fields that differ from the runs' configs, by dotted name.

    Raises:
        ValueError: two folders have one name, or the runs are not of one problem.
    """
    names = [Path(workdir).name for workdir in workdirs]
    if len(set(names)) < len(names):
        raise ValueError(f"workdirs must have different names, got {names}")
    # A run that was trained on eight devices may be judged on a machine that has one.
    overrides = {"devices.num": 0, **overrides}
    configs = [load_config(workdir, overrides) for workdir in workdirs]
    _check_comparable(names, configs)
    return dict(zip(names, configs, strict=True))


def _check_comparable(names: Sequence[str], configs: Sequence[ConfigDict]) -> None:
    """Refuse runs whose numbers would not be of the same problem.

    Raises:
        ValueError: naming the part of the config that differs.
    """
    for name, config in zip(names[1:], configs[1:], strict=True):
        for part in ("data", "operator", "metrics", "evaluate"):
            if config[part].to_dict() != configs[0][part].to_dict():
                raise ValueError(
                    f"the runs {names[0]} and {name} differ in `{part}` of their configs, so their "
                    "numbers would not be comparable; take them one by one"
                )
