"""The fast gradient (sign) method: one steepest step to the surface of the ball."""

import jax
import jax.numpy as jnp

from jitter_jax.attacks.objective import Objective
from jitter_jax.attacks.search import Attack, AttackInfo, value_and_ascent
from jitter_jax.attacks.threat import Ball

Array = jax.Array


def fgsm(ball: Ball) -> Attack:
    """Returns the one-step attack `delta = radius * s(grad objective(start))`.

    `s` is the sign for `linf` (FGSM) and division by the norm for `l2` (FGM). The step is returned
    whether or not it raised the objective. `start` must lie in the ball; zeros are usual.

    Args:
        ball: where to search.

    Source: Goodfellow, Shlens and Szegedy (2015).
    """

    def attack(objective: Objective, start: Array, key: Array) -> tuple[Array, AttackInfo]:
        del key
        value, ascent, nonfinite = value_and_ascent(objective, start)
        delta = ball.project(start + ball.radius * ball.steepest(ascent))
        clean, final = objective(jnp.zeros_like(start)), objective(delta)
        return delta, AttackInfo(clean, final, jnp.stack([value, final]), nonfinite)

    return attack
