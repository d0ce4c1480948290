"""Random perturbations: the average case of a threat."""

import jax
import jax.numpy as jnp

from jitter_jax.attacks.objective import Objective
from jitter_jax.attacks.search import Attack, AttackInfo
from jitter_jax.attacks.threat import Ball

Array = jax.Array


def random(ball: Ball, *, on_sphere: bool = False) -> Attack:
    """Returns the attack that draws one perturbation uniformly and looks at nothing.

    Args:
        ball: where to draw.
        on_sphere: draw from the surface of the ball instead of the whole of it.
    """

    def attack(objective: Objective, start: Array, key: Array) -> tuple[Array, AttackInfo]:
        delta = ball.sample(key, start, on_sphere=on_sphere)
        clean, value = objective(jnp.zeros_like(start)), objective(delta)
        return delta, AttackInfo(clean, value, jnp.stack([clean, value]), jnp.int32(0))

    return attack
