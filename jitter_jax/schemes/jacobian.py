"""Jacobian regularisation: the error, and the largest factor by which a change grows."""

import math
from typing import get_args

from jitter_jax import metrics
from jitter_jax.analysis import jacobian_norm
from jitter_jax.attacks.threat import Space
from jitter_jax.keys import subkey
from jitter_jax.schemes.lift import Loss, batched
from jitter_jax.unroll import Reconstructor


def jacobian(
    reconstructor: Reconstructor,
    weight: float,
    *,
    space: Space = "signal",
    num_iterations: int = 3,
) -> Loss:
    """Returns the loss `E [mean |x - H(y)|^2 + beta ||J_H(y) A||_2]`.

    The spectral norm is estimated from below by power iteration from a random start, see
    `analysis.jacobian_norm`. The paper takes the largest norm of the data set, here it is the mean
    over the batch. A smoothed reconstructor is taken in one draw of its noise.

    Args:
        reconstructor: the reconstruction `H`.
        weight: `beta`, finite and non-negative.
        space: `"signal"` takes the Jacobian `J_H A` to the signal, `"measurement"` `J_H` to the
            measurement.
        num_iterations: of the power iteration, at least 1.

    Returns:
        `loss(params, batch, key) -> (scalar, aux)`.

    Raises:
        ValueError: an argument is out of range, or `space` is unknown.

    Source: "Certified adversarial defense methods for inverse problems", eq. 4. The public code's
    penalty has no derivative with respect to the parameters, so that it trains like MSE.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight must be finite and non-negative, got {weight}")
    if space not in get_args(Space):
        raise ValueError(f"space must be one of {get_args(Space)}, got {space!r}")
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")

    def example_loss(params, x, y, operator, key):
        smoothing_key = subkey(key, "smoothing")

        def reconstruct(seen):
            return reconstructor.apply(params, operator, seen, smoothing_key=smoothing_key)

        norm = jacobian_norm(
            reconstruct,
            operator,
            y,
            space=space,
            num_iterations=num_iterations,
            key=subkey(key, "power iteration"),
        )
        return metrics.mse(reconstruct(y), x) + weight * norm

    return batched(example_loss)
