"""What all attacks share: their form, what they report, and keeping the best point seen."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jitter_jax.attacks.objective import Objective

Array = jax.Array


class AttackInfo(NamedTuple):
    """What an attack reports beside the perturbation.

    Attributes:
        clean: objective at the zero perturbation, scalar.
        value: objective at the perturbation returned, scalar.
        history: objective at the points visited, in their order; `(restarts, num_steps + 1)` for
            projected gradient descent.
        nonfinite: number of entries of the gradients that were not finite and counted as zero,
            scalar int32. Where it is not 0 the attack was partly blind.
    """

    clean: Array
    value: Array
    history: Array
    nonfinite: Array


# (objective, start, key) -> (delta, info). `start` gives the shape and dtype of the perturbation.
Attack = Callable[[Objective, Array, Array], tuple[Array, AttackInfo]]


def value_and_ascent(objective: Objective, delta: Array) -> tuple[Array, Array, Array]:
    """Returns the objective, the direction of its steepest ascent, and its entries not finite.

    For complex `delta` JAX's gradient is the conjugate of that direction. Entries of the gradient
    that are not finite count as zero.
    """
    value, gradient = jax.value_and_grad(objective)(delta)
    finite = jnp.isfinite(gradient)
    # A step along not-a-number would leave the ball; a norm has such a derivative at zero.
    gradient = jnp.where(finite, gradient, 0)
    ascent = gradient.conj() if jnp.iscomplexobj(gradient) else gradient
    return value, ascent, jnp.sum(~finite, dtype=jnp.int32)


def better(best: tuple[Array, Array], candidate: tuple[Array, Array]) -> tuple[Array, Array]:
    """Returns whichever `(delta, value)` has the larger value; the first in a tie.

    A value that is not a number counts as the largest: a perturbation that breaks the
    reconstruction is the strongest there is.
    """
    take = (candidate[1] > best[1]) | (jnp.isnan(candidate[1]) & ~jnp.isnan(best[1]))
    return jax.tree.map(lambda a, b: jnp.where(take, a, b), candidate, best)
