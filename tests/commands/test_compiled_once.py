"""Programs that take long to compile are compiled once, and steps need no second state."""

import logging
import re

import jax
import jax.numpy as jnp

from configs import points
from jitter_jax import experiment as experiments
from jitter_jax.commands.attack import conditions_of
from jitter_jax.commands.evaluate import evaluate
from jitter_jax.commands.runs import init_params, start
from jitter_jax.data.pipeline import evaluation_batches


def small_experiment():
    config = points.get_config()
    config.unroll.num_iterations = 2
    config.evaluate.attack.num_steps = 2
    config.data.num_test = 7
    return experiments.build(config)


def test_evaluation_compiles_once_for_all_batches_epsilons_and_sets(caplog):
    """Batches of four signals: the second of each set, of three, is filled up."""
    experiment = small_experiment()
    params = init_params(experiment.config, experiment.reconstructor)
    conditions = conditions_of(experiment, epsilons=[0.0, 0.2])
    assert len(conditions) >= 8 and experiment.config.data.out_of_distribution
    with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
        report, _ = evaluate(experiment, params, conditions, chunk=4, progress=False)
    assert [row["num_signals"] for row in report["rows"]] == [7] * len(conditions)
    compiled = re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)
    attacks = {condition.attack for condition in conditions}
    assert compiled.count("evaluate") == len(attacks) == 3


def test_training_step_works_in_the_memory_of_its_state():
    experiment = small_experiment()
    state, step = start(experiment)
    size = experiment.config.train.batch_size
    batch = next(iter(evaluation_batches(experiment.sources["train"], size)))
    leaves = [x for x in jax.tree.leaves(state) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    memory = step.lower(state, batch).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= sum(x.nbytes for x in leaves)
    state, _ = step(state, batch)
    assert all(x.is_deleted() for x in leaves)
    state, _ = step(state, batch)
    assert int(state.step) == 2
