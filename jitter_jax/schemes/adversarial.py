"""Adversarial training: the error under the worst perturbation an attack finds."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jitter_jax import metrics
from jitter_jax.attacks.objective import perturbed, reconstruction_error
from jitter_jax.attacks.search import Attack
from jitter_jax.attacks.threat import Ball, Threat
from jitter_jax.keys import subkey
from jitter_jax.schemes.lift import Loss, batched
from jitter_jax.unroll import Reconstructor


def adversarial(
    reconstructor: Reconstructor,
    threat: Threat,
    attack: Callable[[Ball], Attack],
) -> Loss:
    """Returns the loss `E max_delta mean |x - H(y + delta)|^2` over the perturbations of a threat.

    The maximum is what `attack` finds against the current weights; the derivative holds the
    perturbation fixed. The truth stays the clean one. A smoothed reconstructor is attacked in one
    draw of its noise, and judged in another.

    Args:
        reconstructor: the reconstruction `H`.
        threat: the perturbations allowed.
        attack: makes the search from a ball, such as `lambda ball: pgd(ball, num_steps=10)` or
            `fgsm`.

    Returns:
        `loss(params, batch, key) -> (scalar, aux)`.

    Source: Guan and Davenport (2024), eq. 5; Madry et al. (2018).
    """

    def example_loss(params, x, y, operator, key):
        def reconstruct(measurement, domain="attacked smoothing"):
            smoothing_key = subkey(key, domain)
            return reconstructor.apply(params, operator, measurement, smoothing_key=smoothing_key)

        reference = y if threat.space == "measurement" else x
        objective = reconstruction_error(reconstruct, operator, x, y, space=threat.space)
        search = attack(threat.ball_at(operator, x, y))
        delta, _ = search(objective, jnp.zeros_like(reference), key)
        attacked = perturbed(operator, y, jax.lax.stop_gradient(delta), threat.space)
        return metrics.mse(reconstruct(attacked, "smoothing"), x)

    return batched(example_loss)
