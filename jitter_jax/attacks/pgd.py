"""Projected gradient descent (ascent on the error): the worst case of a threat."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jitter_jax.attacks.objective import Objective
from jitter_jax.attacks.search import Attack, AttackInfo, better, value_and_ascent
from jitter_jax.attacks.threat import Ball

Array = jax.Array
First = Literal["fgsm", "random", "given"]


def pgd(
    ball: Ball,
    *,
    num_steps: int = 20,
    step_size: float | None = None,
    first: First = "fgsm",
    restarts: int = 1,
    keep_best: bool = True,
) -> Attack:
    """Returns the attack that climbs the objective inside the ball.

    `delta <- project(delta + step_size radius s(grad objective(delta)))`

    with `s` the gradient's sign (`linf`) or the gradient divided by its norm (`l2`), and no step
    where the gradient is zero.

    With `keep_best` the result is the largest objective among all points visited and the zero
    perturbation, so an attack is never weaker than none, and with `first="fgsm"` never weaker than
    FGSM; with a given `step_size` and the same key, more steps or more restarts are never weaker
    either.

    Args:
        ball: where to search.
        num_steps: gradient steps a start, at least 1.
        step_size: length of a step as a fraction of the radius, positive; None takes
            `2.5 / num_steps`.
        first: where the first run starts. `"fgsm"`: at the point that FGSM finds from the given
            start, for one gradient more; at random if the gradient there is zero. `"random"`: at a
            uniform draw from the ball, as Madry et al. have it. `"given"`: at the given start. A
            reconstruction error is near a quadratic form with two maxima; a random start may lie on
            the side of the lower one, which no number of steps puts right.
        restarts: number of runs, at least 1, one after the other; all but the first start at
            random.
        keep_best: return the best point; otherwise the last one of the last restart, as the public
            code of SGD jittering does.

    Raises:
        ValueError: an argument is out of range.

    Source: Madry et al. (2018).
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    if first not in get_args(First):
        raise ValueError(f"first must be one of {get_args(First)}, got {first!r}")
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    if step_size is None:
        step_size = 2.5 / num_steps
    if not step_size > 0:
        raise ValueError(f"step_size must be positive, got {step_size}")

    def attack(objective: Objective, start: Array, key: Array) -> tuple[Array, AttackInfo]:
        @jax.named_scope("attack_step")
        def climb(carry, _):
            delta, best = carry
            value, ascent, nonfinite = value_and_ascent(objective, delta)
            best = better(best, (delta, value))
            delta = ball.project(delta + step_size * ball.radius * ball.steepest(ascent))
            return (delta, best), (value, nonfinite)

        def restart(best, index):
            draw = ball.sample(jax.random.fold_in(key, index), start)
            begin = jnp.where(at_random | (index > 0), draw, given)
            (delta, best), (values, nonfinite) = jax.lax.scan(
                climb, (begin, best), length=num_steps
            )
            last = (delta, objective(delta))
            best = better(best, last) if keep_best else last
            return best, (jnp.append(values, last[1]), jnp.sum(nonfinite))

        given, at_random, blind = start, jnp.bool_(first == "random"), jnp.int32(0)
        if first == "fgsm":
            _, ascent, blind = value_and_ascent(objective, start)
            step = ball.steepest(ascent)
            at_random = ~jnp.any(step != 0)
            given = ball.project(start + ball.radius * step)
        zero = jnp.zeros_like(start)
        clean = objective(zero)
        (delta, value), (history, nonfinite) = jax.lax.scan(
            restart, (zero, clean), jnp.arange(restarts)
        )
        return delta, AttackInfo(clean, value, history, blind + jnp.sum(nonfinite))

    return attack
