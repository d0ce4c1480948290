"""The bound of SMUG's theorem 1: its numbers, and what real reconstructions do beside it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal

from jitter_jax.analysis import smoothed_lipschitz, smug_bound
from jitter_jax.attacks import Ball, pgd
from jitter_jax.operators import (
    cartesian_mri,
    identity,
    normalise_maps,
    operator_norm,
    sense,
)
from jitter_jax.smoothing import Smoothing, smooth
from jitter_jax.unroll import by_conjugate_gradients, half_quadratic, in_closed_form

SHAPE = (6, 5, 1)
MASK = np.random.default_rng(0).random(SHAPE[:2]) < 0.5


def test_is_the_geometric_sum():
    bound = smug_bound(
        max_norm=2.0,
        sigma=3.0,
        num_iterations=5,
        operator_norm=1.5,
        regularisation=0.4,
        smallest_singular_value=0.5,
    )
    alpha = 1 / (0.4 + 0.25)
    r = 0.4 * alpha * 4 / (math.sqrt(2 * math.pi) * 3)
    assert bound.ratio == pytest.approx(r)
    assert bound.constant == pytest.approx(alpha * 1.5 * (1 - r**5) / (1 - r) + 1.5 * r**5)
    assert bound.smallest_sigma == pytest.approx(0.4 * alpha * 4 / math.sqrt(2 * math.pi))
    assert not bound.vacuous
    # There, both bounds are one.
    radius = bound.radius
    assert bound.constant * radius == pytest.approx(alpha * (1.5 * radius + 2 * 0.4 * 2.0))


def test_limits_of_the_paper():
    """For large sigma, for many iterations, and where the ratio is 1."""
    options = dict(max_norm=1.0, operator_norm=1.0)
    assert smug_bound(sigma=1e9, num_iterations=3, **options).constant == pytest.approx(1)
    limit = smug_bound(sigma=1.6, num_iterations=200, **options)
    assert limit.constant == pytest.approx(1 / (1 - limit.ratio))
    edge = smug_bound(sigma=2 / math.sqrt(2 * math.pi), num_iterations=7, **options)
    assert edge.ratio == pytest.approx(1) and edge.constant == pytest.approx(8)
    # Undersampling: lambda decides about the constant, not about the ratio.
    other = smug_bound(sigma=1.6, num_iterations=200, regularisation=0.1, **options)
    assert other.ratio == pytest.approx(limit.ratio)
    assert other.constant == pytest.approx(10 * limit.constant)


def test_vacuous_at_the_published_sigma():
    bound = smug_bound(max_norm=100.0, sigma=0.01, num_iterations=8, operator_norm=1.0)
    assert bound.vacuous and bound.ratio > 1000
    assert bound.smallest_sigma == pytest.approx(79.79, abs=0.01)
    assert bound.radius < 1e-25
    endless = smug_bound(max_norm=100.0, sigma=0.01, num_iterations=200, operator_norm=1.0)
    assert endless.constant == math.inf and endless.radius == 0
    assert not smug_bound(max_norm=100.0, sigma=80.0, num_iterations=8, operator_norm=1.0).vacuous


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_sign_attains_the_lipschitz_constant(dtype):
    """So the constant is neither too small nor larger than it must be, for complex entries too."""
    smoothing = Smoothing(0.7, num_samples=200_000)
    function = lambda x: (3 * jnp.sign(x.real)).astype(dtype)
    g = jax.jit(smooth(function, smoothing))
    step, key = 0.1, jax.random.key(0)
    ends = (g(jnp.full((1,), sign * step, dtype), key) for sign in (1, -1))
    slope = float(jnp.abs(next(ends) - next(ends))[0]) / (2 * step)
    assert slope == pytest.approx(smoothed_lipschitz(3.0, 0.7), rel=0.03)


def reconstruction(operator, denoise, smoothing, *, regularisation, num_iterations, solve):
    """Always with the same noise, of which the mean over many samples is taken."""
    return lambda y: half_quadratic(
        smooth(denoise, smoothing),
        operator,
        y,
        regularisation=regularisation,
        num_iterations=num_iterations,
        solve=solve,
        step_key=jax.random.key(1),
    )


def exact(operator, b, regularisation, start):
    """The data step of the identity."""
    return b / (1 + regularisation)


def test_the_bound_is_attained():
    """By the sign along one direction, and a measurement of everything."""
    direction = normal(0, 2, 2, 1, dtype="complex64")
    direction /= jnp.linalg.norm(direction)
    denoise = lambda x: 2 * jnp.sign(jnp.vdot(direction, x).real) * direction
    options = dict(regularisation=0.7, num_iterations=3)
    bound = smug_bound(
        max_norm=2.0, sigma=1.5, operator_norm=1.0, smallest_singular_value=1.0, **options
    )
    run = jax.jit(
        reconstruction(
            identity(), denoise, Smoothing(1.5, num_samples=100_000), solve=exact, **options
        )
    )
    size = 0.3
    change = run(size / 2 * direction) - run(-size / 2 * direction)
    assert bound.ratio > 0.4  # so that the denoiser counts
    assert float(jnp.linalg.norm(change)) == pytest.approx(bound.constant * size, rel=0.04)


@pytest.mark.parametrize("coils", [1, 3])
def test_holds_for_undersampled_mri(coils):
    """Random and worst-case perturbations of a network that ends in tanh."""
    if coils == 1:
        operator, solve = cartesian_mri(MASK), in_closed_form
    else:
        maps = normalise_maps(normal(2, *SHAPE[:2], coils, dtype="complex64"))
        operator, solve = sense(MASK, maps), by_conjugate_gradients(12)
    height, width, _ = SHAPE
    kernel = normal(3, height, height, dtype="complex64") / np.sqrt(height)
    top = 0.1  # of each real number

    def denoise(x):
        mixed = 3 * jnp.einsum("ij,jwc->iwc", kernel, x) + x
        return top * jax.lax.complex(jnp.tanh(mixed.real), jnp.tanh(mixed.imag))

    max_norm = top * math.sqrt(2 * height * width)
    norm = float(operator_norm(operator, SHAPE, key=jax.random.key(0), dtype="complex64"))
    assert norm == pytest.approx(1, abs=1e-3) or coils > 1
    options = dict(regularisation=1.0, num_iterations=4)
    sigma = (
        2 * smug_bound(max_norm=max_norm, sigma=1.0, operator_norm=norm, **options).smallest_sigma
    )
    bound = smug_bound(max_norm=max_norm, sigma=sigma, operator_norm=norm, **options)
    assert bound.ratio == pytest.approx(0.5)
    smoothing = Smoothing(sigma, num_samples=200)
    run = reconstruction(operator, denoise, smoothing, solve=solve, **options)
    y = operator.forward(normal(4, *SHAPE, dtype="complex64"))
    ball = Ball(jnp.float32(0.5), "l2", operator.support())

    @jax.jit
    def amplified(key):
        """By how much a random and the worst perturbation grow."""
        clean = run(y)
        grown = lambda delta: jnp.sum(jnp.abs(run(y + delta) - clean) ** 2)
        random = ball.sample(key, y, on_sphere=True)
        worst, _ = pgd(ball, num_steps=20, first="random")(grown, jnp.zeros_like(y), key)
        return [jnp.sqrt(grown(delta)) / jnp.linalg.norm(delta) for delta in (random, worst)]

    random, worst = map(float, amplified(jax.random.key(5)))
    assert 0.1 * bound.constant < random < worst <= bound.constant
    assert worst > 0.25 * bound.constant


BAD = {
    "max_norm": [-1.0, math.inf],
    "sigma": [0.0, -1.0, math.nan],
    "num_iterations": [0],
    "operator_norm": [-1.0],
    "regularisation": [0.0],
    "smallest_singular_value": [-0.1],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    good = dict(max_norm=1.0, sigma=1.0, num_iterations=2, operator_norm=1.0)
    for value in BAD[name]:
        with pytest.raises(ValueError, match=f"{name} must be"):
            smug_bound(**{**good, name: value})
