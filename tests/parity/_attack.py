"""Projected gradient descent against both problems: `sgdj_pgd`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from _mri import mri_operator, mri_problem
from _runs import METHODS, Problem
from _seismic import SEISMIC
from _weights import Arrays, parameters

from jitter_jax import attacks, operators, unroll
from jitter_jax.attacks.search import value_and_ascent
from jitter_jax.attacks.threat import Norm


def attack(arrays: Arrays) -> Arrays:
    """Returns the outputs of the file of attacks, of the problems that it holds."""
    out: Arrays = {}
    if "seis/y" in arrays:
        out |= _attacks(arrays, "seis", SEISMIC, operators.dense(arrays["seis/A"]))
    if "mri/y" in arrays:
        operator = mri_operator(arrays["mri/mask"], arrays["mri/X"].shape[-1])
        out |= _attacks(arrays, "mri", mri_problem(arrays, "mri/w/"), operator)
    return out


def _attacks(
    arrays: Arrays, room: str, problem: Problem, operator: operators.LinearOperator
) -> Arrays:
    params = parameters(arrays, f"{room}/w/")
    at = (params, operator, arrays[f"{room}/X"], arrays[f"{room}/y"])
    settings = dict(problem=problem, num_iterations=int(arrays[f"{room}/cfg/K"]))
    first = _ascent(*at, **settings)
    # The peer differentiates the mean over the batch, ours are per signal.
    out: Arrays = {f"{room}/grad_first": problem.pack_measurement(first) / len(first)}
    norms: dict[str, Norm] = {"l2": "l2", "inf": "linf"}
    for name, norm in norms.items():
        prefix = f"{room}/{name}"
        epsilon, alpha = (arrays[f"{prefix}/{key}"].item() for key in ("epsilon", "alpha"))
        threat = attacks.Threat(epsilon, norm=norm)
        # The number of steps is recorded only as the length of the outputs.
        num_steps = len(arrays.get(f"{prefix}/delta", range(5)))
        delta, deltas, losses = jnp.zeros_like(first), [], []
        for _ in range(num_steps):
            delta, before, after = _step(*at, delta, threat, step_size=alpha / epsilon, **settings)
            deltas.append(problem.pack_measurement(delta))
            losses.append(before)
        losses.append(after)
        out[f"{prefix}/delta"] = np.stack(deltas)
        out[f"{prefix}/loss_at_delta"] = np.stack(losses)
        out[f"{prefix}/loss_list"] = np.array(losses[:-1] if norm == "l2" else [])
    return out


def _objective(params, operator, x, y, problem, num_iterations) -> attacks.Objective:
    reconstructor = problem.reconstructor(METHODS["gd"], num_iterations)
    reconstruct = partial(reconstructor.apply, params, operator)
    error = attacks.reconstruction_error(reconstruct, operator, x, y)
    # The peer's mean is over real numbers, ours over the entries of the signal.
    parts = unroll.to_channels(x).size / x.size
    return lambda delta: error(delta) / parts


@partial(jax.jit, static_argnames=("problem", "num_iterations"))
def _ascent(params, operator, signal, y, *, problem, num_iterations) -> jax.Array:
    """Returns the direction of steepest ascent of each signal's error, without perturbation."""

    def one(x, y):
        objective = _objective(params, operator, x, y, problem, num_iterations)
        _, ascent, _ = value_and_ascent(objective, jnp.zeros_like(y))
        return ascent

    return jax.vmap(one)(problem.unpack_signal(signal), problem.unpack_measurement(y))


@partial(jax.jit, static_argnames=("problem", "num_iterations", "step_size"))
def _step(
    params, operator, signal, y, delta, threat, *, problem, num_iterations, step_size
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One step of the public code's attack: no random start, no restarts, the last iterate."""

    def one(x, y, delta):
        search = attacks.pgd(
            threat.ball(y, operator.support()),
            num_steps=1,
            step_size=step_size,
            first="given",
            keep_best=False,
        )
        objective = _objective(params, operator, x, y, problem, num_iterations)
        delta, info = search(objective, delta, jax.random.key(0))
        return delta, info.history[0, 0], info.history[0, 1]

    delta, before, after = jax.vmap(one)(
        problem.unpack_signal(signal), problem.unpack_measurement(y), delta
    )
    return delta, jnp.mean(before), jnp.mean(after)
