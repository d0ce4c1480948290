"""Smoothing of a whole reconstruction: its three readings, its jitter, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, Pointwise, close, near, normal

from jitter_jax.operators import cartesian_mri
from jitter_jax.smoothing import Smoothing
from jitter_jax.unroll import end_to_end, gradient_descent, jitter, scalar, unrolled

SHAPE = (6, 5, 1)
ETA = 0.4
READINGS = ("back_projection", "start", "measurement")
OPERATOR = cartesian_mri(np.random.default_rng(0).uniform(size=SHAPE[:2]) < 0.6)
Y = OPERATOR.forward(normal(1, *SHAPE, dtype="complex64"))
SMOOTHING = Smoothing(0.3, 4, chunk=3)


BARE = unrolled(gradient_descent, Pointwise, {"step_size": scalar.fixed(ETA)}, num_iterations=3)
PARAMS = BARE.init(jax.random.key(0), OPERATOR, Y)


def key():
    return jax.random.key(5)


def learned_step(x):
    channels = Pointwise.apply(PARAMS["network"], jnp.concatenate([x.real, x.imag], -1))
    return jax.lax.complex(channels[..., :1], channels[..., 1:])


def loop(x, measured, back_projection, jitters=(0.0, 0.0, 0.0)):
    """The unroll, written again."""
    for w in jitters:
        gradient = OPERATOR.adjoint(OPERATOR.forward(x)) - back_projection
        x = x - ETA * (gradient + learned_step(x) + w)
    return x


def one_sample(reading, s):
    sample_key = jax.random.fold_in(key(), s)
    if reading == "measurement":
        noisy = SMOOTHING.perturb(sample_key, Y, OPERATOR.support())
        back_projection = OPERATOR.adjoint(noisy)
        return loop(back_projection, noisy, back_projection)
    clean = OPERATOR.adjoint(Y)
    noisy = SMOOTHING.perturb(sample_key, clean)
    return loop(noisy, Y, noisy if reading == "back_projection" else clean)


def run(reading, num_iterations=None):
    smoothed = end_to_end(BARE, SMOOTHING, reading)
    apply = jax.jit(smoothed.apply, static_argnames="num_iterations")
    return apply(PARAMS, OPERATOR, Y, smoothing_key=key(), num_iterations=num_iterations)


def test_each_reading_is_its_own_loop():
    results = []
    for reading in READINGS:
        expected = np.mean([one_sample(reading, s) for s in range(4)], axis=0)
        result = run(reading)
        near(result, expected, TOLERANCE["float32"])
        results.append(np.asarray(result))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(results[one] - results[other]).max() > 0.01
    close(end_to_end(BARE, SMOOTHING).apply(PARAMS, OPERATOR, Y, smoothing_key=key()), results[0])


def test_without_noise_it_is_the_bare_reconstruction():
    bare = jax.jit(BARE.apply, static_argnames="num_iterations")
    for reading in READINGS:
        smoothed = end_to_end(BARE, Smoothing(0.0, 2), reading)
        apply = jax.jit(smoothed.apply, static_argnames="num_iterations")
        for number in (None, 5):
            options = {"num_iterations": number}
            result = apply(PARAMS, OPERATOR, Y, smoothing_key=key(), **options)
            close(result, bare(PARAMS, OPERATOR, Y, **options))


def test_it_keeps_the_parameters_and_the_learned_step():
    smoothed = end_to_end(BARE, SMOOTHING)
    assert smoothed.init is BARE.init and smoothed.learned_step is BARE.learned_step
    assert smoothed.smoothing == SMOOTHING and smoothed.weight is None
    x = OPERATOR.adjoint(Y)
    near(smoothed.learned_step(PARAMS, x), learned_step(x), TOLERANCE["float32"])


def test_every_sample_has_jitter_of_its_own():
    """Both averages at once, against a loop with the same draws."""
    smoothed = end_to_end(BARE, Smoothing(0.0, 3))
    jitter_key = lambda: jax.random.key(9)
    draw = jitter.absolute(0.5)
    result = jax.jit(
        lambda: smoothed.apply(
            PARAMS, OPERATOR, Y, key=jitter_key(), jitter=draw, smoothing_key=key()
        )
    )()
    samples = []
    for s in range(3):
        sample_key, jitters = jax.random.fold_in(jitter_key(), s), []
        for k in range(3):
            sample_key, step_key = jax.random.split(sample_key)
            jitters.append(draw(step_key, OPERATOR.adjoint(Y), jnp.int32(k), 3))
        clean = OPERATOR.adjoint(Y)
        samples.append(np.asarray(loop(clean, Y, clean, jitters)))
    near(result, np.mean(samples, axis=0), TOLERANCE["float32"])
    assert np.abs(samples[0] - samples[1]).max() > 0.1


def test_gradient_is_that_of_the_average():
    smoothed = end_to_end(BARE, SMOOTHING)

    def loss(params, reconstruct):
        return jnp.sum(jnp.square(jnp.abs(reconstruct(params))))

    def by_hand(params):
        clean = OPERATOR.adjoint(Y)
        noisy = [SMOOTHING.perturb(jax.random.fold_in(key(), s), clean) for s in range(4)]
        apply = lambda b: BARE.apply(params, OPERATOR, Y, back_projection=b)
        return jnp.mean(jax.vmap(apply)(jnp.stack(noisy)), axis=0)

    apply = lambda params: smoothed.apply(params, OPERATOR, Y, smoothing_key=key())
    gradient = jax.jit(jax.grad(lambda p: loss(p, apply)))(PARAMS)
    close(gradient, jax.jit(jax.grad(lambda p: loss(p, by_hand)))(PARAMS))


def smoothed_with(**options):
    return end_to_end(BARE, SMOOTHING).apply(
        PARAMS, OPERATOR, Y, **{"smoothing_key": key(), **options}
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: end_to_end(BARE, SMOOTHING, "moon"), "noise_on must be one of .*, got 'moon'"),
        (lambda: end_to_end(end_to_end(BARE, SMOOTHING), SMOOTHING), "smoothed already"),
        (lambda: smoothed_with(smoothing_key=None), "needs a smoothing_key"),
        (lambda: smoothed_with(start=Y), "start is not accepted"),
        (lambda: smoothed_with(back_projection=Y), "back_projection is not accepted"),
        (lambda: smoothed_with(probe=lambda value, x: value), "probe is not accepted"),
        (lambda: smoothed_with(return_trajectory=True), "return_trajectory is not accepted"),
        (lambda: smoothed_with(num_iterations=0), "num_iterations must be at least 1, got 0"),
        (lambda: smoothed_with(key=jax.random.key(0)), "key came without jitter"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_not_asked_for_is_accepted():
    close(smoothed_with(start=None, probe=None, return_trajectory=False), smoothed_with())
