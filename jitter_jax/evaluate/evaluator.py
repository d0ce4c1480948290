"""Reconstruct, attack and measure many signals, a chunk at a time."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.attacks import (
    Attack,
    Ball,
    Threat,
    expectation,
    perturbed,
    reconstruction_error,
)
from jitter_jax.attacks.energy import EnergyShares
from jitter_jax.data.batch import Batch
from jitter_jax.devices import SPLIT, WHOLE, Devices, fetch
from jitter_jax.keys import subkey
from jitter_jax.metrics import Metric
from jitter_jax.operators import LinearOperator
from jitter_jax.smoothing import chunk_for_memory
from jitter_jax.unroll import Reconstructor

Array = jax.Array
Params = Any


class Evaluated(NamedTuple):
    """What came of the signals of one condition; every array has a leading axis of signals.

    Attributes:
        metrics: per metric name, `(signals,)`; the mean over the draws of a random attack.
        statistics: what metrics are made of, per name `(signals, draws, k)`; see `Metric`.
        volume: number of the volume that each signal is a slice of, `(signals,)`.
        radius: radius of each signal's ball in absolute units, `(signals,)`.
        nonfinite: entries of attack gradients that were not finite, `(signals,)`.
        energy: fractions of the energy of the measurement's perturbation, by place, each
            `(signals,)`; the mean over the draws.
        estimate: reconstructions of the (last) perturbed measurements; of the first signals only.
        delta: the (last) perturbations, in the space of the threat; of the first signals only.
    """

    metrics: dict[str, Any]
    statistics: dict[str, Any]
    volume: Any
    radius: Any
    nonfinite: Any
    energy: dict[str, Any]
    estimate: Any
    delta: Any


# (params, batch, key, threat) -> Evaluated
Evaluator = Callable[[Params, Batch, Array, Threat], Evaluated]


def make_evaluator(
    reconstructor: Reconstructor,
    metrics: dict[str, Metric],
    attack: Callable[[Ball], Attack] | None,
    *,
    energy_shares: EnergyShares | None = None,
    num_draws: int = 1,
    smoothing_draws: int = 1,
    num_iterations: int | None = None,
) -> Evaluator:
    """Return the compiled evaluation of a batch under one attack.

    It compiles once for all batches of a size, and for all epsilons. A signal's draws come from the
    key and its own number.

    Args:
        reconstructor: the reconstruction H; it runs without jitter.
        metrics: what is measured of each estimate.
        attack: makes the search from a ball; None leaves the measurement as it is.
        energy_shares: says where the energy of a perturbation went, such as `kspace_energy`.
        num_draws: independent attacks on each signal, whose metrics are averaged; for random
            perturbations.
        smoothing_draws: of a reconstructor that averages over noise, draws of that average that an
            attack's objective is the mean of; the estimate is then of another draw.
        num_iterations: K of the reconstruction; the reconstructor's own if None.

    Raises:
        ValueError: `num_draws` or `smoothing_draws` is below 1.
    """
    for name, count in (("num_draws", num_draws), ("smoothing_draws", smoothing_draws)):
        if count < 1:
            raise ValueError(f"{name}={count} is not accepted: at least 1 is expected")

    def one(params, threat, x, y, operator, key, volume, volume_peak, scale) -> Evaluated:
        reconstruct = partial(_reconstruct, reconstructor, num_iterations, params, operator)

        def objective_of(key):
            draw = partial(reconstruct, key=key)
            return reconstruction_error(draw, operator, x, y, space=threat.space)

        ball = threat.ball_at(operator, x, y)

        def draw(key) -> Evaluated:
            delta = jnp.zeros_like(y if threat.space == "measurement" else x)
            nonfinite = jnp.int32(0)
            if attack is not None:
                attacked_key = subkey(key, "attacked smoothing")
                if reconstructor.smoothing is None:
                    objective = objective_of(attacked_key)
                else:
                    objective = expectation(
                        objective_of, key=attacked_key, num_draws=smoothing_draws
                    )
                delta, info = attack(ball)(objective, delta, key)
                nonfinite = info.nonfinite
            attacked = perturbed(operator, y, delta, threat.space)
            estimate = reconstruct(attacked, subkey(key, "smoothing"))
            statistics = {
                name: metric.statistics(estimate, x, volume_peak, scale)
                for name, metric in metrics.items()
            }
            values = {name: metrics[name].value(part) for name, part in statistics.items()}
            added = perturbed(operator, jnp.zeros_like(y), delta, threat.space)
            energy = {} if energy_shares is None else energy_shares(operator, added)
            return Evaluated(
                values, statistics, volume, ball.radius, nonfinite, energy, estimate, delta
            )

        if num_draws == 1:
            single = draw(key)
            return single._replace(
                statistics=jax.tree.map(lambda part: part[None], single.statistics)
            )
        # One after the other: as many draws at once as one likes would not fit in memory.
        draws = jax.lax.map(lambda i: draw(jax.random.fold_in(key, i)), jnp.arange(num_draws))
        last = jax.tree.map(lambda values: values[-1], draws)
        mean = lambda tree: jax.tree.map(jnp.mean, tree)
        return last._replace(
            metrics=mean(draws.metrics), energy=mean(draws.energy), statistics=draws.statistics
        )

    def evaluate(params: Params, batch: Batch, key: Array, threat: Threat) -> Evaluated:
        return batch.lift(partial(one, params, threat), key, *batch.volumes(), batch.scale)

    return jax.jit(evaluate)


def spread_evaluator(evaluator: Evaluator, devices: Devices) -> Evaluator:
    """Return an evaluator that spreads the signals of a batch over devices.

    A signal's attack and its numbers do not depend on where it lies.

    Args:
        evaluator: from `make_evaluator`.
        devices: where; their number divides the batches.
    """
    if devices.count == 1:
        return evaluator

    def evaluate(params: Params, batch: Batch, key: Array, threat: Threat) -> Evaluated:
        specs = (WHOLE, _specs(batch), WHOLE, WHOLE)
        return devices.spread(evaluator, specs)(params, batch, key, threat)

    return jax.jit(evaluate)


def _specs(batch: Batch) -> Batch:
    """Return what parts of a batch have a leading axis to be split."""
    operator = jax.tree.map(
        lambda axis: WHOLE if axis is None else SPLIT,
        batch.operator_axes,
        is_leaf=lambda axis: axis is None,
    )
    fields = ("signal", "measurement", "scale", "index", "volume", "volume_peak")
    arrays: dict[str, Any] = {n: SPLIT for n in fields if getattr(batch, n) is not None}
    return dataclasses.replace(batch, operator=operator, **arrays)


def _reconstruct(
    reconstructor: Reconstructor,
    num_iterations: int | None,
    params: Params,
    operator: LinearOperator,
    measurement: Array,
    key: Array,
) -> Array:
    return reconstructor.apply(
        params, operator, measurement, smoothing_key=key, num_iterations=num_iterations
    )


def run_evaluator(
    evaluator: Evaluator,
    params: Params,
    batches: Iterable[tuple[Batch, int]],
    threat: Threat,
    *,
    key: Array,
    keep: int,
) -> Evaluated:
    """Evaluate batch after batch.

    Args:
        evaluator: from `make_evaluator`.
        params: parameters of the reconstructor.
        batches: each with the number of its examples that count; those after them fill it up.
        threat: what the attack may do.
        key: PRNG key of the attack.
        keep: estimates and perturbations of this many first signals are returned.

    Returns:
        `Evaluated` of NumPy arrays, in the order of the signals.

    Raises:
        ValueError: there are no batches.
    """
    parts = []
    room = keep
    for batch, count in batches:
        whole = fetch(evaluator(params, batch, key, threat))
        result = jax.tree.map(lambda values, count=count: values[:count], whole)
        parts.append(result._replace(estimate=result.estimate[:room], delta=result.delta[:room]))
        room = max(room - count, 0)
    if not parts:
        raise ValueError("there are no signals to evaluate")
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def signals_at_once(
    reconstructor: Reconstructor,
    params: Params,
    batch: Batch,
    *,
    budget_bytes: float,
    most: int,
    num_iterations: int | None = None,
) -> int:
    """Return how many signals an attack can take at once within a memory budget.

    The gradient of one signal's energy in its measurement stands for a step of an attack.

    Args:
        reconstructor: the reconstruction under attack.
        params: its parameters.
        batch: one measured example.
        budget_bytes: memory for temporaries, positive.
        most: upper limit, such as the number of signals.
        num_iterations: K of the reconstruction; the reconstructor's own if None.

    Returns:
        Between 1 and `most`.

    Raises:
        ValueError: `budget_bytes` is not positive.
    """

    def one(x, y, operator, key):
        del x
        return _reconstruct(reconstructor, num_iterations, params, operator, y, key)

    def estimates(measurement: Array) -> Array:
        return dataclasses.replace(batch, measurement=measurement).lift(one, jax.random.key(0))

    return chunk_for_memory(
        estimates, batch.measurement, budget_bytes=budget_bytes, num_samples=most
    )
