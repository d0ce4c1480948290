"""Centre smoothing: how far any attack can move a smoothed reconstruction, in l2."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jitter_jax.certify.budget import Budget
from jitter_jax.certify.draws import Reconstruction, median_rank, statistics
from jitter_jax.devices import Devices
from jitter_jax.keys import subkey
from jitter_jax.metrics import risk
from jitter_jax.operators import LinearOperator

Array = jax.Array
_SLACK = 0.05  # the authors' Delta: how far from 1/2 the mass of a ball may be
# A radius of 2 for a centre that is one of the draws, and 1 for the triangle inequality.
_FACTOR = 3


class CentreCertificate(NamedTuple):
    """A reconstruction by centre smoothing, and how far an attack can move it.

    For any one `xi` with `||xi|| <= epsilon`, the centre computed in the same way at `y + A xi`
    (`y + xi` in measurement space) with draws of its own, unless that abstains, satisfies

        ||centre(y + A xi) - centre(y)||_2 <= bound

    with the budget's confidence over the draws of both, less `0.45^candidates` for the chance that
    no candidate was near. Just above the fewest draws that can certify anything it abstains often.

    Attributes:
        centre: the smoothed reconstruction: the candidate nearest to half of the draws.
        radius: median distance of draws to the centre, scalar.
        bound: l2 norm of the largest movement, scalar; infinite where abstained.
        abstained: bool scalar, True if the ball of that radius could not be shown to hold about
            half of all draws; the centre then is no reconstruction to rely on.
    """

    centre: Array
    radius: Array
    bound: Array
    abstained: Array

    def guarantee(self, budget: Budget) -> str:
        """Returns what is guaranteed, for which threat, at which confidence, by how many draws.

        Args:
            budget: the one that the certificate was made with.
        """
        if bool(self.abstained):
            return "Abstained: no ball around the centre was shown to hold half of the draws."
        return (
            f"With confidence {budget.confidence:g} from {budget.num_samples} draws: "
            f"{budget.describe()}, the centre-smoothed reconstruction, where it does not abstain, "
            f"moves by at most {float(self.bound):.6g} in l2."
        )


def certified_centre(
    f: Reconstruction,
    operator: LinearOperator,
    y: Array,
    *,
    budget: Budget,
    key: Array,
    num_candidates: int = 30,
    num_predict: int = 10_000,
    chunk: int = 32,
    devices: Devices | None = None,
) -> CentreCertificate:
    """Returns the centre-smoothed reconstruction and a bound on its movement under attack.

    The centre is the candidate, itself a draw, whose median distance to `n` further draws is the
    smallest, and that distance is the radius. It abstains unless, among `n` fresh draws, the share
    within the radius shows `max(d, 1/2 - (share - d)) <= 0.05`, with
    `d = sqrt(ln(2 / alpha) / (2 n))`. The bound is 3 times the order statistic that bounds the
    quantile `Phi(Phi^-1(1/2 + 0.05) + epsilon/sigma)` of the distances to the centre with
    confidence `1 - alpha`; `alpha = (1 - c) / 2` both times.

    Args:
        f: a deterministic function of the measurement, such as `freeze` makes.
        operator: the operator `A`.
        y: the measurement that was observed.
        budget: the threat, noise and confidence; its `num_samples` are for the bound.
        key: PRNG key.
        num_candidates: at least 1.
        num_predict: `n`, drawn twice: to choose the centre, and to test it.
        chunk: draws computed at once.
        devices: over which the draws of a chunk are spread; their number divides `chunk`.

    Raises:
        ValueError: a count is below 1, `num_predict` is so small that all would abstain, or the
            budget's samples are too few for the larger quantile.

    Source: Kumar and Goldstein, "Center smoothing: certified robustness for networks with
    structured outputs" (2021), algorithms 1 and 2, with the exact binomial rank in place of the
    Hoeffding term of the second.
    """
    alpha = (1 - budget.confidence) / 2
    if num_predict < 1:
        raise ValueError(f"num_predict must be at least 1, got {num_predict}")
    error = math.sqrt(math.log(2 / alpha) / (2 * num_predict))
    if error > _SLACK:
        needed = math.ceil(math.log(2 / alpha) / (2 * _SLACK**2))
        raise ValueError(
            f"num_predict must be at least {needed} at confidence {budget.confidence}, "
            f"got {num_predict}: fewer draws always abstain"
        )
    rank = budget.rank(confidence=1 - alpha, quantile=0.5 + _SLACK)

    def drawn(purpose: str, num_samples: int, statistic: Callable[[Array], Array]) -> Array:
        return statistics(
            f,
            operator,
            y,
            **budget.noise,
            num_samples=num_samples,
            key=subkey(key, purpose),
            statistic=statistic,
            chunk=chunk,
            devices=devices,
        )

    candidates = drawn("candidates", num_candidates, lambda estimate: estimate)
    to_candidates = drawn(
        "prediction",
        num_predict,
        lambda estimate: jax.vmap(lambda centre: _distance(estimate, centre))(candidates),
    )
    medians = jnp.sort(to_candidates, axis=0)[median_rank(num_predict) - 1]
    best = jnp.argmin(medians)
    centre, radius = candidates[best], medians[best]

    to_centre = lambda estimate: _distance(estimate, centre)
    share = jnp.mean(drawn("test", num_predict, to_centre) <= radius)
    abstained = ~(jnp.maximum(error, 0.5 - (share - error)) <= _SLACK)
    farthest = jnp.sort(drawn("certificate", budget.num_samples, to_centre))[rank - 1]
    return CentreCertificate(
        centre, radius, jnp.where(abstained, jnp.inf, _FACTOR * farthest), abstained
    )


def _distance(a: Array, b: Array) -> Array:
    return jnp.sqrt(risk(a, b))
