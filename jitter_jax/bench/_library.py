"""The library's side of a case, in a process of its own."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jitter_jax import attacks, unroll
from jitter_jax import experiment as experiments
from jitter_jax.attacks.search import value_and_ascent
from jitter_jax.bench import _certificate
from jitter_jax.bench._jax_device import compile_ahead
from jitter_jax.bench.cases import CASES, EPSILON, STEP_SIZE, Case, Plain, Work
from jitter_jax.commands.runs import start, step_of
from jitter_jax.data.batch import Batch
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.devices import first_devices
from jitter_jax.experiment import Experiment
from jitter_jax.train import parallel_step


class Prepared(NamedTuple):
    """What a case runs, before it is compiled.

    Attributes:
        function: a pure function of arrays.
        arguments: its arguments.
        parameters: number of learned parameters.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    parameters: int


class Problem(NamedTuple):
    """An experiment before its first step.

    Attributes:
        experiment: its parts.
        state: of training.
        step: of training, pure.
        raw: a batch from the input pipeline, spread over the devices.
    """

    experiment: Experiment
    state: Any
    step: Callable[..., Any]
    raw: Any

    @property
    def parameters(self) -> int:
        """Number of learned parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    def measured(self) -> Batch:
        """Return the batch's measurements."""
        return self.experiment.measure(self.raw, "train")


def build(config: Plain, *, devices: int = 1) -> Problem:
    """Build the experiment of a case's config.

    Raises:
        ValueError: there are fewer devices, or they do not divide the batch.
    """
    available = jax.devices()
    if devices > len(available) or config["train"]["batch_size"] % devices:
        raise ValueError(
            f"devices={devices} is not accepted with batch={config['train']['batch_size']} on "
            f"{len(available)} devices: as many or fewer that divide the batch are expected"
        )
    experiment = experiments.build(ConfigDict(config))
    state, step = start(experiment)
    raw = next(evaluation_batches(experiment.sources["train"], config["train"]["batch_size"]))
    if devices == 1:
        return Problem(experiment, state, step, jax.device_put(raw))
    # Cases that train nothing are left to the compiler's own partitioning.
    parallel = parallel_step(partial(step_of, experiment), first_devices(devices))
    state, raw = parallel.put_state(state), parallel.put_batches([raw])
    return Problem(experiment, state, parallel.step, raw)


def prepare(case: Case, problem: Problem) -> Prepared:
    """Return what a case runs, but for a loop's."""
    experiment, state, step, raw = problem
    if case.kind == "train":  # the step of `bin/train`
        return Prepared(step, (state, raw), problem.parameters)
    measured, key = problem.measured(), jax.random.key(0)
    if case.kind == "certificate":
        certified = _certificate.certify_one(experiment)
        certify_all = lambda params, batch: batch.lift(partial(certified, params), key)
        return Prepared(jax.jit(certify_all), (state.params, measured), problem.parameters)
    one = {"pgd": _pgd_step, "attack": _attack, "inference": _inference}[case.kind](experiment)
    function = lambda params, batch, delta: batch.lift(partial(one, params), key, delta)
    # Not at zero, where the projection has nothing to do.
    delta = 0.04 * jnp.roll(measured.measurement, 1, axis=1)
    return Prepared(jax.jit(function), (state.params, measured, delta), problem.parameters)


def make_work(name: str, job: Plain) -> Work:
    """Build and compile one of the cases of a job."""
    case = CASES[name]
    problem = build(job["cases"][name], devices=job["sizes"]["devices"] or 1)
    if case.kind == "loop":
        return _certificate.loop(problem.experiment, problem.state.params, problem.measured())
    prepared = prepare(case, problem)
    compiled, costs = compile_ahead(prepared.function, *prepared.arguments)
    if case.kind != "train":
        run = lambda: jax.block_until_ready(compiled(*prepared.arguments))
        return Work(run, prepared.parameters, **costs)
    state, raw = prepared.arguments

    def train():
        nonlocal state  # which the step donates
        state, metrics = jax.block_until_ready(compiled(state, raw))
        if not metrics["finite"]:
            raise ValueError("the training step gave a loss or a gradient that is not finite")

    return Work(train, prepared.parameters, **costs)


def _pgd_step(experiment: Experiment):
    """What `attacks.pgd` does in one of its steps."""

    def one(params, x, y, operator, key, delta):
        del key
        objective, ball = _threatened(experiment.reconstructor, params, x, y, operator)
        value, ascent = value_and_ascent(objective, delta)[:2]
        return ball.project(delta + STEP_SIZE * ball.radius * ball.steepest(ascent)), value

    return one


def _attack(experiment: Experiment):
    num_steps = experiment.config.scheme.adversarial.attack.num_steps

    def one(params, x, y, operator, key, delta):
        objective, ball = _threatened(experiment.reconstructor, params, x, y, operator)
        attack = attacks.pgd(ball, num_steps=num_steps, step_size=STEP_SIZE, first="given")
        delta, info = attack(objective, delta, key)
        return delta, info.value

    return one


def _threatened(reconstructor: unroll.Reconstructor, params: Any, x: Any, y: Any, operator: Any):
    reconstruct = lambda y: reconstructor.apply(params, operator, y)
    objective = attacks.reconstruction_error(reconstruct, operator, x, y)
    return objective, attacks.Threat(EPSILON, unit="relative").ball_at(operator, x, y)


def _inference(experiment: Experiment):
    return lambda params, x, y, operator, key, delta: experiment.reconstructor.apply(
        params, operator, y
    )
