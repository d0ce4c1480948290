"""How the step size `eta` of an unrolled network is parametrised."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class StepSize(NamedTuple):
    """A learned or fixed step size.

    Attributes:
        init: first value of the learned parameter, or None when there is nothing to learn.
        value: maps the parameter (None when fixed) to the step size.
    """

    init: float | None
    value: Callable[[Any], Array]


def fixed(step_size: float) -> StepSize:
    """Returns the constant step size `eta = step_size`, positive.

    Raises:
        ValueError: `step_size` is not positive.
    """
    if not step_size > 0:
        raise ValueError(f"step_size must be positive, got {step_size}")
    return StepSize(None, lambda _: jnp.float32(step_size))


def exponential(init: float = -1.0) -> StepSize:
    """Returns the step size published for MRI: `eta = exp(p)` of a learned `p`, 0.368 at first."""
    return StepSize(init, jnp.exp)


def sigmoid(init: float = -1.0, scale: float = 0.1) -> StepSize:
    """Returns the step size published for seismic data: `eta = scale / (1 + exp(-p))`.

    `p` is learned; `eta` is 0.0269 at first. The bound `scale` keeps the data step stable, which
    needs `eta < 2 / ||A||^2`.

    Raises:
        ValueError: `scale` is not positive.
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    return StepSize(init, lambda parameter: scale * jax.nn.sigmoid(parameter))
