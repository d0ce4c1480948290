"""Noise on the signal: what it adds to a measurement, and smoothing a reconstruction with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, Pointwise, near, normal

from jitter_jax.noise import measured_noise, normal_like
from jitter_jax.operators import cartesian_mri, dense, identity, inpainting
from jitter_jax.smoothing import Smoothing
from jitter_jax.unroll import Reconstructor, end_to_end, gradient_descent, scalar, unrolled

SHAPE = (6, 5, 1)
MASK = np.random.default_rng(0).uniform(size=SHAPE[:2]) < 0.6
MASKED = {
    "inpainting": (inpainting(MASK), jnp.zeros(SHAPE)),
    "MRI": (cartesian_mri(MASK), jnp.zeros(SHAPE, jnp.complex64)),
}
every_space = pytest.mark.parametrize("space", ["signal", "measurement"])


def key(seed=5):
    return jax.random.key(seed)


@every_space
@pytest.mark.parametrize("name", MASKED)
def test_only_what_is_measured_has_noise(name, space):
    operator, y = MASKED[name]
    draw = np.asarray(measured_noise(key(), operator, y, space))
    assert draw.shape == y.shape and draw.dtype == y.dtype
    assert not np.any(draw[~MASK]) and np.all(draw[MASK] != 0)


@every_space
@pytest.mark.parametrize("name", MASKED)
def test_has_standard_deviation_one_in_every_part(name, space):
    """Both operators keep the norm of what they measure, so `A w` is as loud as `w`."""
    operator, y = MASKED[name]
    keys = jax.random.split(key(), 400)
    draw = jax.jit(jax.vmap(lambda key: measured_noise(key, operator, y, space)))
    draws = np.asarray(draw(keys))[:, MASK]
    parts = [draws.real, draws.imag] if np.iscomplexobj(draws) else [draws]
    for part in parts:
        # Five standard errors of the mean square.
        np.testing.assert_allclose(np.mean(part**2), 1, atol=5 * np.sqrt(2 / part.size))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_is_the_measurement_of_noise_on_the_signal(dtype):
    """`A w`, with as many draws as the signal has entries, not the measurement."""
    a = normal(0, 3, 7, dtype=dtype)
    y = jnp.zeros(3, dtype)
    draw = measured_noise(key(), dense(a), y, "signal")
    w = normal_like(key(), jnp.zeros(7, dtype))
    near(draw, np.asarray(a) @ np.asarray(w), TOLERANCE["float32"])
    direct = measured_noise(key(), dense(a), y, "measurement")
    near(direct, normal_like(key(), y), TOLERANCE["float32"])


def test_refuses_another_space():
    with pytest.raises(ValueError, match="space must be 'signal' or 'measurement', got 'start'"):
        measured_noise(key(), identity(), jnp.zeros(3), "start")


BARE = unrolled(gradient_descent, Pointwise, {"step_size": scalar.fixed(0.4)}, num_iterations=2)
SMOOTHING = Smoothing(0.3, 4, chunk=3)
CLEAN = {
    name: operator.forward(normal(1, *SHAPE, dtype=zero.dtype))
    for name, (operator, zero) in MASKED.items()
}


@pytest.mark.parametrize("name", MASKED)
def test_smoothing_is_the_mean_over_measured_noise(name):
    operator, _ = MASKED[name]
    y = CLEAN[name]
    params = BARE.init(key(0), operator, y)
    smoothed = end_to_end(BARE, SMOOTHING, "signal")
    found = jax.jit(lambda y: smoothed.apply(params, operator, y, smoothing_key=key()))(y)
    apply = jax.jit(lambda seen: BARE.apply(params, operator, seen))
    samples = []
    for s in range(SMOOTHING.num_samples):
        # w is zero nowhere, and A w outside of the mask.
        w = normal_like(jax.random.fold_in(key(), s), jnp.zeros_like(y))
        seen = y + SMOOTHING.sigma * operator.forward(w)
        assert not np.any(np.asarray(seen)[~MASK])
        samples.append(np.asarray(apply(seen)))
    near(found, np.mean(samples, axis=0), TOLERANCE["float32"])
    assert np.abs(samples[0] - samples[1]).max() > 0.01
    measurement = end_to_end(BARE, SMOOTHING, "measurement")
    other = jax.jit(lambda y: measurement.apply(params, operator, y, smoothing_key=key()))(y)
    # Of inpainting, noise on the signal is noise on the measurement: same numbers, same places.
    if name == "inpainting":
        near(found, other, TOLERANCE["float32"])
    else:
        assert np.abs(found - other).max() > 0.01


def test_of_a_quadratic_the_mean_is_known():
    """`E (b^H (y + s A w))^2 = (b^H y)^2 + s^2 |A^H b|^2` for real numbers."""
    samples, sigma = 4000, 0.5
    a, b, y = normal(0, 3, 4), normal(1, 3), normal(2, 3)
    square = Reconstructor(
        lambda key, operator, y: (), lambda params, operator, y, **_: jnp.square(y @ b)
    )
    smoothed = end_to_end(square, Smoothing(sigma, samples, chunk=1000), "signal")
    found = jax.jit(lambda: smoothed.apply((), dense(a), y, smoothing_key=key()))()
    a, b, y = (np.asarray(v) for v in (a, b, y))
    mean, spread = float(y @ b), sigma * np.linalg.norm(a.T @ b)
    error = np.sqrt((4 * mean**2 * spread**2 + 2 * spread**4) / samples)
    assert spread**2 > 10 * error
    assert abs(found - mean**2 - spread**2) < 5 * error


def test_without_noise_it_is_the_bare_reconstruction():
    y = normal(2, 3)
    double = Reconstructor(lambda key, operator, y: (), lambda params, operator, y, **_: 2 * y)
    smoothed = end_to_end(double, Smoothing(0.0, 2), "signal")
    found = smoothed.apply((), dense(normal(0, 3, 4)), y, smoothing_key=key())
    near(found, 2 * np.asarray(y), TOLERANCE["float32"])


def test_refuses_to_cut_noise_on_the_signal():
    with pytest.raises(ValueError, match=r"clamp must be None with noise_on='signal', got 0.5"):
        end_to_end(BARE, Smoothing(0.3, clamp=0.5), "signal")
