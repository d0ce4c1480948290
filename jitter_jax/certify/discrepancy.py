"""Certified discrepancy and certified error: a bound on the median loss under any attack."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jitter_jax.certify.budget import Budget
from jitter_jax.certify.draws import Reconstruction, draw, median_rank, statistics
from jitter_jax.certify.order_statistics import lower_rank, upper_rank
from jitter_jax.devices import Devices
from jitter_jax.metrics import mse
from jitter_jax.operators import LinearOperator

Array = jax.Array


class LossCertificate(NamedTuple):
    """A bound on a median loss under every attack of a budget.

    With the budget's confidence, over the draws that made it, for all `||xi|| <= epsilon` at once

        median_delta loss(f(y + A xi + A delta), reference) <= bound

    (`y + xi + delta` in measurement space). It speaks of the smoothed reconstruction, whose input
    has noise added, and of this one signal.

    Attributes:
        bound: the loss at the budget's rank, scalar; infinite where a loss of that rank is not a
            number.
        median: plug-in median of the loss without attack, scalar. It carries no confidence.
        low: lower end of a two-sided confidence interval of that median, at the budget's
            confidence; `-inf` where the draws are too few.
        high: upper end; `inf` where the draws are too few.
        estimate: the reconstruction under the draw that gave `bound`.
        median_estimate: the reconstruction under the draw that gave `median`.
        number: number of the draw that gave `bound`, scalar int.
        reference: what losses are taken to.
    """

    bound: Array
    median: Array
    low: Array
    high: Array
    estimate: Array
    median_estimate: Array
    number: Array
    reference: Array

    def psnr(self, *, peak: ArrayLike = 1.0) -> Array:
        """Returns the certified PSNR in decibels, where the loss is the mean squared error.

        With the certificate's confidence, the median PSNR under attack is at least this.

        Args:
            peak: full scale, positive, in the unit of the signal.
        """
        return 20 * jnp.log10(peak) - 10 * jnp.log10(self.bound)

    def guarantee(self, budget: Budget) -> str:
        """Returns what is guaranteed, for which threat, at which confidence, by how many draws.

        Args:
            budget: the one that the certificate was made with.
        """
        return (
            f"With confidence {budget.confidence:g} from {budget.num_samples} draws (rank "
            f"{budget.rank()}): {budget.describe()}, the median loss of this signal's "
            f"reconstruction to the fixed reference is at most {float(self.bound):.6g}."
        )


def certified_discrepancy(
    f: Reconstruction,
    operator: LinearOperator,
    y: Array,
    *,
    budget: Budget,
    key: Array,
    loss: Callable[[Array, Array], Array] = mse,
    chunk: int = 32,
    devices: Devices | None = None,
) -> LossCertificate:
    """Returns a bound on how far any attack moves the reconstruction from `z = f(y)`.

    `median_delta loss(f(y + A xi + A delta), z) <= X_(k)` for all `||xi|| <= epsilon`, with the
    reference `z` fixed. An observed `y` that was attacked already lies within `epsilon` of the
    clean measurement, so the bound holds for the clean one too.

    The published corollary lets the reference `f(y + A xi)` move with the attack. Its lemma needs
    a function that does not change, and there are `f` for which the published bound is wrong.

    Args:
        f: a deterministic function of the measurement, such as `freeze` makes.
        operator: the operator `A`.
        y: the measurement that was observed.
        budget: the threat, noise and confidence.
        key: PRNG key.
        loss: `(estimate, reference) -> scalar`.
        chunk: draws computed at once.
        devices: over which the draws of a chunk are spread; their number divides `chunk`.

    Raises:
        ValueError: `chunk` is below 1, or the devices do not divide it.

    Source: "Certified adversarial defense methods for inverse problems", corollary 3.2 and
    algorithm 3, made sound.
    """
    return _certify(f, operator, y, f(y), budget, key, loss, chunk, devices)


def certified_error(
    f: Reconstruction,
    operator: LinearOperator,
    y: Array,
    x: Array,
    *,
    budget: Budget,
    key: Array,
    loss: Callable[[Array, Array], Array] = mse,
    chunk: int = 32,
    devices: Devices | None = None,
) -> LossCertificate:
    """Returns a bound on the error to a known truth under any attack.

    `median_delta loss(f(y + A xi + A delta), x) <= X_(k)` for all `||xi|| <= epsilon`: the sound
    certificate of a test signal, whose PSNR is `LossCertificate.psnr`. It holds for one signal; for
    all of a test set at once give the budget the confidence of `confidence_each`.

    Args:
        f: a deterministic function of the measurement, such as `freeze` makes.
        operator: the operator `A`.
        y: the clean measurement; the noise in it is part of what is certified.
        x: the true signal.
        budget: the threat, noise and confidence.
        key: PRNG key.
        loss: `(estimate, truth) -> scalar`.
        chunk: draws computed at once.
        devices: over which the draws of a chunk are spread; their number divides `chunk`.

    Raises:
        ValueError: `chunk` is below 1, or the devices do not divide it.
    """
    return _certify(f, operator, y, x, budget, key, loss, chunk, devices)


def _certify(f, operator, y, reference, budget, key, loss, chunk, devices) -> LossCertificate:
    losses = statistics(
        f,
        operator,
        y,
        **budget.noise,
        num_samples=budget.num_samples,
        key=key,
        statistic=lambda estimate: loss(estimate, reference),
        chunk=chunk,
        devices=devices,
    )
    # A loss that is not a number bounds nothing: it counts as the worst.
    losses = jnp.where(jnp.isnan(losses), jnp.inf, losses)
    order = jnp.argsort(losses)
    samples = budget.num_samples
    number, middle = order[budget.rank() - 1], order[median_rank(samples) - 1]
    either_side = (1 + budget.confidence) / 2

    def end(rank: int | None, none: float) -> Array:
        return jnp.full((), none, losses.dtype) if rank is None else losses[order[rank - 1]]

    again = lambda number: draw(f, operator, y, **budget.noise, key=key, number=number)
    return LossCertificate(
        bound=losses[number],
        median=losses[middle],
        low=end(lower_rank(samples, 0.0, either_side), -math.inf),
        high=end(upper_rank(samples, 0.0, either_side), math.inf),
        estimate=again(number),
        median_estimate=again(middle),
        number=number,
        reference=reference,
    )
