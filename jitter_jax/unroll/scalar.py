"""How a number of an unrolled network, such as its step size, is parametrised."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class Scalar(NamedTuple):
    """A learned or fixed number, or one for each iteration.

    Attributes:
        init: first value of the learned parameter, a scalar or `(K,)`, or None when there is
            nothing to learn.
        value: maps the parameter (None when fixed) to the number.
    """

    init: float | np.ndarray | None
    value: Callable[[Any], Array]


def fixed(value: float) -> Scalar:
    """Returns the constant `value`, positive.

    Raises:
        ValueError: `value` is not positive.
    """
    if not value > 0:
        raise ValueError(f"value must be positive, got {value}")
    return Scalar(None, lambda _: jnp.float32(value))


def exponential(init: float = -1.0) -> Scalar:
    """Returns `exp(p)` of a learned `p`: 0.368 at first, the step size published for MRI."""
    return Scalar(init, jnp.exp)


def sigmoid(init: float = -1.0, scale: float = 0.1) -> Scalar:
    """Returns `scale / (1 + exp(-p))` of a learned `p`, the step size published for seismic data.

    It is 0.0269 at first. As a step size, the bound `scale` keeps the data step stable, which needs
    `eta < 2 / ||A||^2`.

    Raises:
        ValueError: `scale` is not positive.
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    return Scalar(init, lambda parameter: scale * jax.nn.sigmoid(parameter))


def free(init: float | np.ndarray) -> Scalar:
    """Returns the learned parameter itself, of any sign.

    Args:
        init: its first value, a number or one for each iteration, `(K,)`.
    """
    return Scalar(init, lambda parameter: parameter)
