"""How far an attack can move a centre-smoothed reconstruction, and when nothing is said of it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import equal, normal
from scipy import special

from jitter_jax.certify import Budget, CentreCertificate, InfeasibleError, certified_centre
from jitter_jax.operators import dense, identity

BUDGET = Budget(0.2, 0.2, num_samples=200, confidence=0.9, pixel_range=None)
# ln(2 / 0.05) / (2 * 0.05^2): the fewest that a share can be told by at this confidence.
FEWEST = 738
Y = normal(0, 3)


def key(seed=0):
    return jax.random.key(seed)


def certify(f, operator, y, key, **settings):
    given = {"budget": BUDGET, "num_predict": 2000, "num_candidates": 10, "chunk": 2000}
    return certified_centre(f, operator, y, key=key, **(given | settings))


def test_a_constant_does_not_move():
    value = normal(1, 2, 3)
    found = certify(lambda y: value + 0 * y[0], identity(), Y, key())
    equal(found.centre, value)
    assert (found.radius, found.bound, found.abstained) == (0, 0, False)


def test_a_line_has_a_known_radius_and_bound():
    budget = Budget(0.2, 0.2, num_samples=20_000, confidence=0.9, pixel_range=None)
    settings = {"budget": budget, "num_candidates": 30, "num_predict": 20_000, "chunk": 20_000}
    found = certify(lambda y: y, identity(), Y[:1], key(), **settings)
    # Quantiles of |N(0, sigma^2)|: the centre is within a few hundredths of sigma of the mean.
    folded = lambda p: 0.2 * special.ndtri((1 + p) / 2)
    assert not found.abstained
    np.testing.assert_allclose(found.radius, folded(0.5), rtol=0.05)
    farthest = folded(special.ndtr(special.ndtri(0.55) + 1.0))
    np.testing.assert_allclose(found.bound, 3 * farthest, rtol=0.03)


@pytest.mark.parametrize("space", ["signal", "measurement"])
def test_no_attack_moves_the_centre_further_than_the_bound(space):
    repeats = 200
    operator = dense(normal(2, 3, 4))
    f = lambda y: jnp.tanh(operator.adjoint(y) / 2)
    budget = dataclasses.replace(BUDGET, space=space)
    y = 0.1 * Y
    # At the origin tanh stretches most: the direction in which the linear part does.
    matrix = np.asarray(operator.leaves)
    linear = matrix.T @ matrix if space == "signal" else matrix.T
    direction = jnp.asarray(np.linalg.svd(linear)[2][0])
    xi = budget.epsilon * direction
    moved = y + (operator.forward(xi) if space == "signal" else xi)

    certify_at = jax.vmap(lambda u, key: certify(f, operator, u, key, budget=budget))
    pairs = jax.jit(jax.vmap(lambda keys: certify_at(jnp.stack([y, moved]), keys)))
    found = pairs(jax.random.split(key(), (repeats, 2)))  # (repeats, clean and attacked)
    movement = np.linalg.norm(found.centre[:, 0] - found.centre[:, 1], axis=1)
    answered = ~np.asarray(found.abstained.any(axis=1))
    misses = np.mean(answered & (movement > found.bound[:, 0]))
    assert np.mean(answered) > 0.5
    assert np.median(movement) > 0.5 * np.linalg.norm(f(moved) - f(y)) > 0.05
    assert misses <= 1 - budget.confidence  # none in fact: the factor of 3 is wide
    np.testing.assert_array_equal(np.isinf(found.bound), found.abstained)


def test_a_mass_in_two_halves_is_never_said_to_stay():
    # Two points at a distance of 1, each with half of the draws: an attack decides which.
    f = lambda y: jnp.where(y[:1] > 0, 1.0, 0.0)
    attempts = jax.jit(jax.vmap(lambda key: certify(f, identity(), 0 * Y, key, num_predict=FEWEST)))
    found = attempts(jax.random.split(key(), 100))
    # With the fewest draws a share of just under a half is too small, and that is half of the time.
    assert 0.2 < np.mean(found.abstained) < 0.8
    assert bool(jnp.all(jnp.where(found.abstained, found.bound == jnp.inf, found.bound >= 1.0)))


def test_draws_that_are_no_numbers_abstain():
    found = certify(lambda y: jnp.nan * y, identity(), Y, key())
    assert found.abstained and found.bound == math.inf


def test_the_guarantee_says_what_is_guaranteed():
    certificate = CentreCertificate(Y, jnp.ones(()), jnp.asarray(1.25), jnp.asarray(False))
    said = certificate.guarantee(BUDGET)
    for part in ("confidence 0.9 from 200 draws", BUDGET.describe(), "at most 1.25 in l2"):
        assert part in said
    said = certificate._replace(abstained=jnp.asarray(True)).guarantee(BUDGET)
    assert said.startswith("Abstained") and "1.25" not in said


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"num_predict": FEWEST - 1},
            ValueError,
            f"at least {FEWEST} at confidence 0.9, got {FEWEST - 1}: fewer draws always abstain",
        ),
        ({"num_predict": 0}, ValueError, "num_predict must be at least 1, got 0"),
        ({"num_candidates": 0}, ValueError, "must be at least 1, got 0"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1, got 0"),
        # Enough for the median under attack, not for the larger quantile.
        (
            {"budget": Budget(1.15, 1.0, num_samples=18, confidence=0.9, pixel_range=None)},
            InfeasibleError,
            "cannot be certified with num_samples=18 at confidence 0.95",
        ),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        certify(lambda y: y, identity(), Y, key(), **arguments)
