"""Runs: their first state, and what is read back from their folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jitter_jax import experiment as experiments
from jitter_jax import train
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


def start(
    experiment: Experiment, *, network: Params = None
) -> tuple[train.TrainState, train.step.Step]:
    """Return the state before the first step, and the compiled step.

    Args:
        experiment: the experiment.
        network: parameters that the learned step starts from; drawn by the run's seed if None.
    """
    config = experiment.config
    optimizer = train.make_optimizer(num_steps=config.train.num_steps, **config.optimizer.to_dict())
    decay = config.train.average_decay or None
    params = init_params(config, experiment.reconstructor)
    if network is not None:
        params = {**params, "network": network}
    key = domain_key(config.seed, "training")
    state = train.init_state(params, optimizer, key, average_decay=decay)
    step = train.make_step(experiment.loss, optimizer, average_decay=decay)
    return state, jax.jit(step, donate_argnums=0)


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
    """Read a run's config, with other values for some fields, by dotted name."""
    config = ConfigDict(train.load_config(workdir))
    with config.ignore_type():
        config.update_from_flattened_dict(dict(overrides or {}))
    return config
