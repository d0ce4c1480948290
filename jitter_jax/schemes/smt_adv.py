"""Smoothed adversarial training: the worst case of a reconstruction averaged over noise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jitter_jax import metrics
from jitter_jax.attacks.objective import perturbed, reconstruction_error
from jitter_jax.attacks.pgd import pgd
from jitter_jax.attacks.search import Attack
from jitter_jax.attacks.threat import Ball, Threat
from jitter_jax.keys import subkey
from jitter_jax.schemes.adversarial import adversarial
from jitter_jax.schemes.lift import Loss, batched
from jitter_jax.smoothing import Smoothing
from jitter_jax.unroll import Reconstructor, end_to_end

Array = jax.Array


def smt_adv(
    reconstructor: Reconstructor,
    threat: Threat,
    attack: Callable[[Ball], Attack],
    smoothing: Smoothing,
) -> Loss:
    """Returns the loss `E max_xi mean |x - E_delta H(y + A xi + A delta)|^2`, `delta ~ N(0, s^2)`.

    It is adversarial training of the end-to-end smoothed reconstruction; noise and perturbation are
    on the signal or on the measurement, as the threat has it. The draws are the same in every step
    of the attack, and others in the loss. One deploys `H`, whose parameters these are, or
    its smoothed reconstruction.

    Args:
        reconstructor: the reconstruction `H`, not smoothed.
        threat: the perturbations allowed.
        attack: makes the search from a ball, as for `adversarial`.
        smoothing: the noise.

    Returns:
        `loss(params, batch, key) -> (scalar, aux)`.

    Raises:
        ValueError: the reconstructor is smoothed already, or noise on the signal is to be cut.

    Source: "Certified adversarial defense methods for inverse problems", algorithm 1, whose steps
    are taken along the normalised gradient with respect to `xi`: with the raw gradient, as printed,
    an attack stays far inside of its ball.
    """
    return adversarial(_smoothed(reconstructor, threat, smoothing), threat, attack)


def smt_adv_fresh(
    reconstructor: Reconstructor,
    threat: Threat,
    smoothing: Smoothing,
    *,
    num_steps: int,
    step_size: float | None = None,
) -> Loss:
    """Returns the loss of `smt_adv` with new draws in every step of the attack.

    The search is projected gradient descent from a random start, and its last point is taken: the
    objectives of different draws cannot be compared.

    Args:
        reconstructor: the reconstruction `H`, not smoothed.
        threat: the perturbations allowed.
        smoothing: the noise.
        num_steps: gradient steps, at least 1.
        step_size: length of a step as a fraction of the radius; None takes `2.5 / num_steps`.

    Raises:
        ValueError: as for `smt_adv`, or an option of the search is out of range.
    """
    smoothed = _smoothed(reconstructor, threat, smoothing)
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    step_size = 2.5 / num_steps if step_size is None else step_size
    one_step = lambda ball: pgd(
        ball, num_steps=1, step_size=step_size, first="given", keep_best=False
    )
    one_step(Ball(jnp.float32(0), "l2"))  # refuses bad options now

    def example_loss(params, x, y, operator, key):
        def reconstruct_of(key: Array) -> Callable[[Array], Array]:
            return lambda seen: smoothed.apply(params, operator, seen, smoothing_key=key)

        ball = threat.ball_at(operator, x, y)

        def climb(delta: Array, step_key: Array) -> tuple[Array, None]:
            objective = reconstruction_error(
                reconstruct_of(step_key), operator, x, y, space=threat.space
            )
            return one_step(ball)(objective, delta, step_key)[0], None

        reference = y if threat.space == "measurement" else x
        start = ball.sample(subkey(key, "start"), reference)
        step_keys = jax.random.split(subkey(key, "attacked smoothing"), num_steps)
        delta, _ = jax.lax.scan(climb, start, step_keys)
        attacked = perturbed(operator, y, jax.lax.stop_gradient(delta), threat.space)
        return metrics.mse(reconstruct_of(subkey(key, "smoothing"))(attacked), x)

    return batched(example_loss)


def _smoothed(reconstructor: Reconstructor, threat: Threat, smoothing: Smoothing) -> Reconstructor:
    return end_to_end(reconstructor, smoothing, threat.space)
