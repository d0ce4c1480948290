"""What an attack maximises: the error of a reconstruction as a function of the perturbation."""

from collections.abc import Callable

import jax

from jitter_jax.attacks.threat import Space
from jitter_jax.metrics import mse
from jitter_jax.operators import LinearOperator
from jitter_jax.smoothing import monte_carlo

Array = jax.Array
Objective = Callable[[Array], Array]


def perturbed(operator: LinearOperator, y: Array, delta: Array, space: Space) -> Array:
    """Returns the measurement under attack: `y + delta`, or `y + A delta` in signal space."""
    return y + (delta if space == "measurement" else operator.forward(delta))


def expectation(
    objective_of: Callable[[Array], Objective], *, key: Array, num_draws: int
) -> Objective:
    """Returns `delta -> mean_s objective_of(key_s)(delta)`: expectation over transformations.

    An attack on a reconstruction that draws noise climbs the gradient of its expectation. The draws
    are the same in every step of the attack, so what it climbs is one function. What the attack
    achieved is to be measured with other draws.

    Args:
        objective_of: from a PRNG key to the objective in that draw of the noise.
        key: draw `s` has this key, folded with `s`.
        num_draws: at least 1; taken one after the other.

    Raises:
        ValueError: `num_draws` is below 1.

    Source: Athalye et al., "Synthesizing robust adversarial examples" (2018).
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    return lambda delta: monte_carlo(
        lambda key: objective_of(key)(delta), key, num_samples=num_draws, chunk=1
    )


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
