"""Reconstruct, attack and measure many signals, a chunk at a time."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.attacks import Attack, Ball, Threat, perturbed, reconstruction_error
from jitter_jax.metrics import Metric
from jitter_jax.operators import LinearOperator
from jitter_jax.unroll import Reconstructor

Array = jax.Array
Params = Any


class Evaluated(NamedTuple):
    """What came of the signals of one condition; every array has a leading axis of signals.

    Attributes:
        metrics: per metric name, `(signals,)`; the mean over the draws of a random attack.
        estimate: reconstructions of the (last) perturbed measurements.
        delta: the (last) perturbations, in the space of the threat.
        radius: radius of each signal's ball in absolute units, `(signals,)`.
    """

    metrics: dict[str, Any]
    estimate: Any
    delta: Any
    radius: Any


# (params, operator, signals, measurements, keys, threat), NumPy arrays or JAX arrays
Evaluator = Callable[[Params, LinearOperator, Any, Any, Array, Threat], Evaluated]


def make_evaluator(
    reconstructor: Reconstructor,
    metrics: dict[str, Metric],
    attack: Callable[[Ball], Attack] | None,
    *,
    num_draws: int = 1,
    num_iterations: int | None = None,
) -> Evaluator:
    """Return the compiled evaluation of a chunk of signals under one attack.

    It compiles once for all chunks of a size, and for all epsilons.

    Args:
        reconstructor: the reconstruction H; it runs without jitter.
        metrics: what is measured of each estimate.
        attack: makes the search from a ball; None leaves the measurement as it is.
        num_draws: independent attacks on each signal, whose metrics are averaged; for random
            perturbations.
        num_iterations: K of the reconstruction; the reconstructor's own if None.

    Returns:
        `(params, operator, signals, measurements, keys, threat) -> Evaluated`, all but the
        parameters, the operator and the threat with a leading axis of signals.
    """

    def one(params, operator, x, y, key, threat) -> Evaluated:
        def reconstruct(measurement):
            return reconstructor.apply(params, operator, measurement, num_iterations=num_iterations)

        reference = y if threat.space == "measurement" else x
        ball = threat.ball(reference)

        def draw(key):
            delta = jnp.zeros_like(reference)
            if attack is not None:
                objective = reconstruction_error(reconstruct, operator, x, y, space=threat.space)
                delta, _ = attack(ball)(objective, delta, key)
            estimate = reconstruct(perturbed(operator, y, delta, threat.space))
            measured = {name: metric.function(estimate, x) for name, metric in metrics.items()}
            return measured, estimate, delta

        if num_draws == 1:
            measured, estimate, delta = draw(key)
        else:
            # One after the other: as many draws at once as one likes would not fit in memory.
            draws = jax.lax.map(lambda i: draw(jax.random.fold_in(key, i)), jnp.arange(num_draws))
            measured = jax.tree.map(jnp.mean, draws[0])
            estimate, delta = draws[1][-1], draws[2][-1]
        return Evaluated(measured, estimate, delta, ball.radius)

    return jax.jit(jax.vmap(one, in_axes=(None, None, 0, 0, 0, None)))


def run_evaluator(
    evaluator: Evaluator,
    params: Params,
    operator: LinearOperator,
    signals: np.ndarray,
    measurements: np.ndarray,
    keys: Array,
    threat: Threat,
    *,
    chunk: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda chunks: chunks,
) -> Evaluated:
    """Evaluate all signals, `chunk` of them at a time.

    Args:
        evaluator: from `make_evaluator`.
        params: parameters of the reconstructor.
        operator: the operator A of all signals.
        signals: truths, `(signals, ...)`.
        measurements: clean measurements, `(signals, ...)`.
        keys: one PRNG key for each signal.
        threat: what the attack may do.
        chunk: signals at a time, at least 1.
        progress: wraps the iteration over chunks, for a progress bar.

    Returns:
        `Evaluated` of NumPy arrays, in the order of the signals.

    Raises:
        ValueError: `chunk` is below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk} is not accepted: at least 1 is expected")
    parts = []
    for start in progress(range(0, len(signals), chunk)):
        # The last chunk is filled up with its own first signal: one compiled shape serves all.
        rows = np.arange(start, start + chunk)
        rows = np.where(rows < len(signals), rows, start)
        result = evaluator(params, operator, signals[rows], measurements[rows], keys[rows], threat)
        kept = min(chunk, len(signals) - start)
        parts.append(jax.tree.map(lambda a, kept=kept: np.asarray(a[:kept]), result))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def chunk_for_memory(
    reconstructor: Reconstructor,
    params: Params,
    operator: LinearOperator,
    y: Array,
    *,
    budget_bytes: float,
    most: int,
) -> int:
    """Return how many signals an attack can take at once within a memory budget.

    The compiler is asked what temporaries the gradient of one signal's error needs, which is what
    an attack computes in each step.

    Args:
        reconstructor: the reconstruction under attack.
        params: its parameters.
        operator: the operator A.
        y: one measurement.
        budget_bytes: memory for temporaries, positive.
        most: upper limit, such as the number of signals.

    Returns:
        Between 1 and `most`.

    Raises:
        ValueError: `budget_bytes` is not positive.
    """
    if not budget_bytes > 0:
        raise ValueError(f"budget_bytes={budget_bytes} is not accepted: above zero is expected")
    if most == 1:
        return 1

    def error(y):
        estimate = reconstructor.apply(params, operator, y)
        return jnp.sum(jnp.square(jnp.abs(estimate)))

    analysis = jax.jit(jax.grad(error)).lower(y).compile().memory_analysis()
    if analysis is None:  # not every backend tells
        return 1
    return int(np.clip(budget_bytes // max(analysis.temp_size_in_bytes, 1), 1, most))
