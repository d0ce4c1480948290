"""The library's side of a case, in a process of its own."""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jitter_jax import attacks
from jitter_jax import experiment as experiments
from jitter_jax.attacks.search import value_and_ascent
from jitter_jax.bench.cases import EPSILON, STEP_SIZE, Case, Plain, Work
from jitter_jax.commands.runs import start
from jitter_jax.data.pipeline import evaluation_batches


def make_work(case: Case, problem: str, config: Plain) -> Work:
    """Build and compile what a case runs."""
    del problem  # its config tells all
    experiment = experiments.build(ConfigDict(config))
    state, step = start(experiment)
    raw = next(evaluation_batches(experiment.sources["train"], config["train"]["batch_size"]))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    if case.kind == "train":  # the step of `bin/train`, from the input pipeline's batch
        train, costs = _compile(step, state, raw)

        def run():
            nonlocal state  # which the step donates
            state, metrics = jax.block_until_ready(train(state, raw))
            if not metrics["finite"]:
                raise ValueError("the training step gave a loss or a gradient that is not finite")

        return Work(run, parameters, **costs)
    measured = experiment.measure(raw, "train")
    # Not at zero, where the projection has nothing to do.
    arguments = (state.params, measured, 0.04 * jnp.roll(measured.measurement, 1, axis=1))
    one = _pgd_step(experiment) if case.kind == "pgd" else _inference(experiment)
    batched = jax.jit(
        lambda params, batch, delta: batch.lift(partial(one, params), jax.random.key(0), delta)
    )
    compiled, costs = _compile(batched, *arguments)
    return Work(lambda: jax.block_until_ready(compiled(*arguments)), parameters, **costs)


def _pgd_step(experiment: Any):
    """What `attacks.pgd` does in one of its steps."""
    apply = experiment.reconstructor.apply
    threat = attacks.Threat(EPSILON, unit="relative")

    def one(params, x, y, operator, key, delta):
        del key
        reconstruct = lambda y: apply(params, operator, y)
        objective = attacks.reconstruction_error(reconstruct, operator, x, y)
        ball = threat.ball_at(operator, x, y)
        value, ascent = value_and_ascent(objective, delta)[:2]
        return ball.project(delta + STEP_SIZE * ball.radius * ball.steepest(ascent)), value

    return one


def _inference(experiment: Any):
    return lambda params, x, y, operator, key, delta: experiment.reconstructor.apply(
        params, operator, y
    )


def _compile(function: Any, *arguments: Any) -> tuple[Any, Plain]:
    begin = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    temp_bytes = compiled.memory_analysis().temp_size_in_bytes
    return compiled, {"compile_s": seconds, "temp_bytes": temp_bytes}
