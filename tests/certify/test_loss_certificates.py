"""A bound on the median loss of one signal: which draw it is, what it says, what it refuses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, equal, near, normal

from jitter_jax.certify import (
    Budget,
    InfeasibleError,
    LossCertificate,
    certified_discrepancy,
    certified_error,
    lower_rank,
    median_rank,
    statistics,
    upper_rank,
)
from jitter_jax.metrics import mse, psnr
from jitter_jax.operators import dense

SAMPLES = 200
MATRIX = normal(0, 3, 4)
OPERATOR = dense(MATRIX)
X = normal(1, 4)
Y = OPERATOR.forward(X)


def key(seed=0):
    return jax.random.key(seed)


def f(y):
    return jnp.tanh(OPERATOR.adjoint(y) / 3)


def largest_error(estimate, truth):
    return jnp.max(jnp.abs(estimate - truth))


def budget_of(**settings):
    given = {"epsilon": 0.2, "sigma": 0.2, "num_samples": SAMPLES, "pixel_range": None}
    return Budget(**(given | settings))


@pytest.mark.parametrize("space", ["signal", "measurement"])
@pytest.mark.parametrize("loss", [mse, largest_error])
def test_the_bound_is_an_order_statistic_and_the_estimate_its_draw(loss, space):
    budget = budget_of(space=space)
    settings = {"budget": budget, "key": key(), "loss": loss, "chunk": 64}
    estimates = statistics(f, OPERATOR, Y, **budget.noise, num_samples=SAMPLES, key=key())
    for reference, found in [
        (f(Y), certified_discrepancy(f, OPERATOR, Y, **settings)),
        (X, certified_error(f, OPERATOR, Y, X, **settings)),
    ]:
        losses = np.asarray(jax.vmap(loss, (0, None))(estimates, reference))
        order, rank = np.argsort(losses), upper_rank(SAMPLES, 1.0, 0.99)
        assert 100 < rank < SAMPLES
        close(found.bound, jnp.asarray(losses[order[rank - 1]]))
        close(found.median, jnp.asarray(losses[order[median_rank(SAMPLES) - 1]]))
        # Draw number k itself is not the draw whose loss has rank k.
        assert found.number == order[rank - 1] != rank - 1
        close(found.estimate, estimates[order[rank - 1]])
        close(found.median_estimate, estimates[order[median_rank(SAMPLES) - 1]])
        near(loss(found.estimate, reference), found.bound, 1e-5)
        ends = lower_rank(SAMPLES, 0.0, 0.995), upper_rank(SAMPLES, 0.0, 0.995)
        close(found.low, jnp.asarray(losses[order[ends[0] - 1]]))
        close(found.high, jnp.asarray(losses[order[ends[1] - 1]]))
        assert found.low < found.median < found.high < found.bound
        equal(found.reference, reference)


def test_the_median_has_no_interval_where_the_draws_are_too_few():
    # 7 draws bound the median from above at 0.99, 8 from both sides.
    few, enough = (
        certified_error(
            f, OPERATOR, Y, X, budget=budget_of(epsilon=0.0, num_samples=samples), key=key()
        )
        for samples in (7, 8)
    )
    assert few.low == -math.inf and few.high == math.inf and math.isfinite(few.bound)
    assert -math.inf < enough.low < enough.median < enough.high < math.inf


def test_a_certificate_of_no_attack_is_the_smallest():
    bounds = [
        float(
            certified_error(f, OPERATOR, Y, X, budget=budget_of(epsilon=epsilon), key=key()).bound
        )
        for epsilon in (0.0, 0.1, 0.3)
    ]
    assert bounds[0] < bounds[1] < bounds[2]


def test_what_is_not_a_number_counts_as_the_worst():
    def broken(y):
        return jnp.where(y[0] > Y[0], jnp.nan, 1.0) * y

    found = certified_error(broken, OPERATOR, Y, Y, budget=budget_of(), key=key())
    assert found.bound == math.inf and found.psnr() == -math.inf
    # A quarter of the draws, which the rank for no attack leaves out.
    rarely = lambda y: jnp.where(y[0] > Y[0] + 0.3, jnp.nan, 1.0) * y
    found = certified_error(rarely, OPERATOR, Y, Y, budget=budget_of(epsilon=0.0), key=key())
    assert math.isfinite(found.bound) and math.isfinite(found.high)


def test_the_certified_psnr_is_that_of_the_estimate():
    found = certified_error(f, OPERATOR, Y, X, budget=budget_of(), key=key())
    for peak in (1.0, 255.0):
        near(found.psnr(peak=peak), psnr(found.estimate, X, peak=peak), 1e-5)
        assert found.psnr(peak=peak) < psnr(found.median_estimate, X, peak=peak)
    # A larger error is fewer decibels: the bound of one is the bound of the other.
    near(10 ** (-found.psnr() / 10), found.bound, 1e-5)


@pytest.mark.parametrize(
    ("budget", "parts"),
    [
        (
            Budget(10.0, 20.0, num_samples=500, confidence=0.9, pixel_range=(0, 255)),
            ["of the signal", "norm of at most 10 (pixels from 0 to 255)", "deviation 20"],
        ),
        (
            Budget(0.5, 0.25, num_samples=1000, pixel_range=None, space="measurement"),
            ["of the measurement", "norm of at most 0.5,", "deviation 0.25"],
        ),
    ],
)
def test_the_guarantee_says_what_is_guaranteed(budget, parts):
    zero = jnp.zeros(())
    certificate = LossCertificate(jnp.asarray(0.0123456789), zero, zero, zero, X, X, zero, X)
    said = certificate.guarantee(budget)
    rank = upper_rank(budget.num_samples, budget.ratio, budget.confidence)
    for part in [
        f"confidence {budget.confidence:g}",
        f"{budget.num_samples} draws (rank {rank})",
        "fixed reference is at most 0.0123457.",
        *parts,
    ]:
        assert part in said, (part, said)


def test_what_cannot_be_certified_is_refused():
    for certify in (certified_discrepancy, lambda *a, **k: certified_error(*a, X, **k)):
        with pytest.raises(InfeasibleError, match=r"num_samples=50 at confidence 0\.99"):
            certify(f, OPERATOR, Y, budget=budget_of(epsilon=0.28, num_samples=50), key=key())
        with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
            certify(f, OPERATOR, Y, budget=budget_of(), key=key(), chunk=0)


def test_certificates_lift_over_images_and_keys():
    budget = budget_of(num_samples=40)
    images = normal(2, 3, 4)
    keys = jax.random.split(key(1), 3)

    def bound(x, key):
        y = OPERATOR.forward(x)
        return certified_error(f, OPERATOR, y, x, budget=budget, key=key)

    found = jax.jit(jax.vmap(bound))(images, keys)
    assert found.bound.shape == (3,) and found.estimate.shape == (3, 4)
    close(jax.tree.map(lambda a: a[1], found), bound(images[1], jax.random.clone(keys[1])))
