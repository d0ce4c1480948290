"""Two images between which no attack moves the median image, pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, equal, normal

from jitter_jax.certify import (
    Budget,
    InfeasibleError,
    PixelCertificate,
    certified_pixels,
    confidence_each,
    median_rank,
    statistics,
)
from jitter_jax.operators import dense

SAMPLES = 100
SHAPE = (5, 2)  # of the reconstruction; each column is a channel
OPERATOR = dense(normal(0, 4, 5))
Y = normal(1, 4, 2)
BYTES = 2 * SAMPLES * 4  # what one coordinate takes: its draws in float32, and sorted


def key(seed=0):
    return jax.random.key(seed)


def f(y):
    return jnp.tanh(OPERATOR.adjoint(y) / 3)


def complex_f(y):
    return jax.lax.complex(f(y), f(2 * y)[::-1])


def both_parts(y):
    estimate = complex_f(y)
    return jnp.stack([estimate.real, estimate.imag])


def budget_of(**settings):
    given = {"epsilon": 0.1, "sigma": 0.2, "num_samples": SAMPLES, "pixel_range": None}
    return Budget(**(given | settings))


@pytest.mark.parametrize("space", ["signal", "measurement"])
@pytest.mark.parametrize("simultaneous", [False, True])
def test_the_images_are_order_statistics_of_each_pixel(simultaneous, space):
    budget = budget_of(space=space)
    found = certified_pixels(
        f, OPERATOR, Y, budget=budget, key=key(), simultaneous=simultaneous, chunk=SAMPLES
    )
    draws = statistics(
        f, OPERATOR, Y, **budget.noise, num_samples=SAMPLES, key=key(), chunk=SAMPLES
    )
    ordered = jnp.sort(draws, axis=0)
    sides = 2 * 10 if simultaneous else 2
    rank = budget.rank(confidence=confidence_each(0.99, sides))
    assert SAMPLES / 2 < rank < SAMPLES
    expected = (ordered[SAMPLES - rank], ordered[median_rank(SAMPLES) - 1], ordered[rank - 1])
    close(found, PixelCertificate(*expected))
    assert found.lower.shape == SHAPE
    assert bool(jnp.all((found.lower < found.median) & (found.median < found.upper)))


def test_all_pixels_at_once_need_wider_images():
    each, all_at_once = (
        certified_pixels(f, OPERATOR, Y, budget=budget_of(), key=key(), simultaneous=simultaneous)
        for simultaneous in (False, True)
    )
    assert bool(jnp.all(all_at_once.lower < each.lower))
    assert bool(jnp.all(all_at_once.upper > each.upper))
    equal(all_at_once.median, each.median)


@pytest.mark.parametrize("g", [f, complex_f])
@pytest.mark.parametrize("coordinates", [0.1, 3, 8])
def test_passes_change_nothing(g, coordinates):
    # Ten coordinates, or twenty, in passes of one, three (the last is not full) and eight.
    settings = {"budget": budget_of(), "key": key(), "chunk": SAMPLES}
    memory_gb = (coordinates + 0.5) * BYTES / 1e9
    close(
        certified_pixels(g, OPERATOR, Y, memory_gb=memory_gb, **settings),
        certified_pixels(g, OPERATOR, Y, **settings),
    )


def test_parts_of_a_complex_image_are_coordinates():
    settings = {"budget": budget_of(), "key": key(), "simultaneous": True}
    found = certified_pixels(complex_f, OPERATOR, Y, **settings)
    parts = certified_pixels(both_parts, OPERATOR, Y, **settings)
    for image, expected in zip(found, parts, strict=True):
        assert image.dtype == jnp.complex64 and image.shape == SHAPE
        close(jnp.stack([image.real, image.imag]), expected)


def test_a_linear_map_moves_its_median_as_far_as_epsilon_allows():
    samples, sigma, epsilon = 20_000, 0.5, 0.3
    matrix = normal(2, 3, 4)
    budget = Budget(epsilon, sigma, num_samples=samples, pixel_range=None)
    y = normal(3, 3)
    found = certified_pixels(lambda u: u, dense(matrix), y, budget=budget, key=key(), chunk=samples)
    furthest = epsilon * np.linalg.norm(matrix, axis=1)
    # Ranks are 2 to 3 standard errors beyond the quantile, and draws are off by as many: of a
    # median these are 1.25 sigma / sqrt(samples), which is 3 % of epsilon times these 6.
    margin = 0.1 * furthest
    np.testing.assert_array_less(np.abs(found.median - y), margin)
    np.testing.assert_array_less(np.abs(found.upper - y - furthest), margin)
    np.testing.assert_array_less(np.abs(y - found.lower - furthest), margin)


def test_what_is_not_a_number_counts_as_the_largest():
    # Half of the draws of the first coordinate, none of the second.
    broken = lambda y: jnp.where(y[0] > jnp.array([Y[0, 0], 100.0]), jnp.nan, y[0])
    found = certified_pixels(broken, OPERATOR, Y, budget=budget_of(), key=key())
    np.testing.assert_array_equal(np.isnan(found.upper), [True, False])
    assert bool(jnp.all(jnp.isfinite(found.lower)))


@pytest.mark.parametrize(
    ("simultaneous", "which"), [(False, "each pixel by itself"), (True, "all pixels at once")]
)
def test_the_guarantee_says_what_is_guaranteed(simultaneous, which):
    budget = budget_of(confidence=0.95)
    said = PixelCertificate(Y, Y, Y).guarantee(budget, simultaneous=simultaneous)
    assert f"confidence 0.95 for {which}, from 100 draws" in said
    assert budget.describe() in said and "between the images lower and upper" in said


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"memory_gb": 0.0}, ValueError, "memory_gb must be positive, got 0.0"),
        ({"memory_gb": float("nan")}, ValueError, "memory_gb must be positive, got nan"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1, got 0"),
        # 7 draws bound a median from above, but not from both sides.
        ({"budget": budget_of(epsilon=0.0, num_samples=7)}, InfeasibleError, "num_samples=8 would"),
        # 8 do that for one pixel, but not for ten at once.
        (
            {"budget": budget_of(epsilon=0.0, num_samples=8), "simultaneous": True},
            InfeasibleError,
            "num_samples=11 would",
        ),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        certified_pixels(f, OPERATOR, Y, **({"budget": budget_of(), "key": key()} | arguments))
