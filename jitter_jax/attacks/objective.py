"""What an attack maximises: the error of a reconstruction as a function of the perturbation."""

from collections.abc import Callable

import jax

from jitter_jax.attacks.threat import Space
from jitter_jax.metrics import mse
from jitter_jax.operators import LinearOperator

Array = jax.Array
Objective = Callable[[Array], Array]


def perturbed(operator: LinearOperator, y: Array, delta: Array, space: Space) -> Array:
    """Returns the measurement under attack: `y + delta`, or `y + A delta` in signal space."""
    return y + (delta if space == "measurement" else operator.forward(delta))


def reconstruction_error(
    reconstruct: Callable[[Array], Array],
    operator: LinearOperator,
    x: Array,
    y: Array,
    *,
    space: Space = "measurement",
) -> Objective:
    """Returns `delta -> mean |H(y + delta) - x|^2` of one signal.

    Args:
        reconstruct: the deterministic reconstruction `H` of a measurement.
        operator: the operator `A`, which carries a perturbation of the signal to the measurement.
        x: the truth, which stays where it is.
        y: the clean measurement.
        space: where `delta` lives; `"signal"` gives `mean |H(y + A delta) - x|^2`.
    """

    def objective(delta: Array) -> Array:
        return mse(reconstruct(perturbed(operator, y, delta, space)), x)

    return objective
