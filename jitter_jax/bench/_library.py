"""The library's side of a case, in a process of its own."""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jitter_jax import attacks, certify
from jitter_jax import experiment as experiments
from jitter_jax.attacks.search import value_and_ascent
from jitter_jax.bench.cases import EPSILON, STEP_SIZE, Case, Plain, Work
from jitter_jax.commands.runs import start
from jitter_jax.data.batch import Batch
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.metrics import mse


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
    if case.certifies:
        return _certificate(case, experiment, state.params, measured, parameters)
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


def _certificate(
    case: Case, experiment: Any, params: Any, measured: Batch, parameters: int
) -> Work:
    """Certify the batch in one program, or draw by draw, as a loop in Python would."""
    num_samples, chunk = (experiment.config.smoothing[name] for name in ("num_samples", "chunk"))
    # The work does not hang on what is certified.
    budget = certify.Budget(0.0, 0.1, num_samples=num_samples, confidence=0.5, pixel_range=None)

    def certified(params, x, y, operator, key):
        del x
        f = lambda y: experiment.reconstructor.apply(params, operator, y)
        certificate = certify.certified_discrepancy(
            f, operator, y, budget=budget, key=key, chunk=chunk
        )
        return certificate.bound

    def one_draw(params, x, y, operator, key, number, reference):
        del x
        f = lambda y: experiment.reconstructor.apply(params, operator, y)
        drawn = certify.draw(f, operator, y, sigma=budget.sigma, key=key, number=number)
        return mse(drawn, reference)

    key = jax.random.key(0)
    if case.kind == "certificate":
        batched = jax.jit(lambda params, batch: batch.lift(partial(certified, params), key))
        compiled, costs = _compile(batched, params, measured)
        run = lambda: jax.block_until_ready(compiled(params, measured))
        return Work(run, parameters, **costs)
    reconstruct = jax.jit(
        lambda params, batch: batch.lift(
            lambda x, y, operator, key: experiment.reconstructor.apply(params, operator, y), key
        )
    )
    draw = jax.jit(lambda params, batch, *more: batch.lift(partial(one_draw, params), key, *more))
    numbers = jnp.zeros(len(measured.signal), jnp.int32)
    draw, costs = _compile(draw, params, measured, numbers, reconstruct(params, measured))

    def loop():
        reference = reconstruct(params, measured)
        losses = [
            np.asarray(draw(params, measured, numbers + s, reference)) for s in range(num_samples)
        ]
        return np.sort(losses, axis=0)[budget.rank() - 1]

    return Work(loop, parameters, **costs)


def _compile(function: Any, *arguments: Any) -> tuple[Any, Plain]:
    begin = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    temp_bytes = compiled.memory_analysis().temp_size_in_bytes
    return compiled, {"compile_s": seconds, "temp_bytes": temp_bytes}
