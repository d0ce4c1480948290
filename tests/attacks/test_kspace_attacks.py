"""Attacks on k-space: on sampled points alone, through gradients that nothing masks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, check_gradient, near, normal

from jitter_jax.attacks import (
    Threat,
    fgsm,
    kspace_energy,
    pgd,
    random,
    reconstruction_error,
)
from jitter_jax.networks import DnCNN
from jitter_jax.operators import cartesian_mri, cartesian_mri_repo
from jitter_jax.unroll import (
    gradient_descent,
    proximal_gradient,
    scalar,
    unrolled,
)

SHAPE = (16, 12)
METHODS = {"gradient": gradient_descent, "proximal": proximal_gradient}
NORMS = ("l2", "linf")
every_norm = pytest.mark.parametrize("norm", NORMS)


def lines():
    mask = np.zeros(SHAPE, bool)
    mask[::3] = mask[7:10] = True
    return mask


MASK = lines()
OPERATOR = cartesian_mri(MASK)
NETWORK = DnCNN(depth=2, width=4, activation=jax.nn.softplus)
SIGNALS = 3


def reconstructor(method):
    return unrolled(
        METHODS[method], NETWORK, {"step_size": scalar.exponential()}, num_iterations=2, remat=False
    )


def params_of(seed, dtype="complex64"):
    """The weights of one network; another seed is another network."""
    y = jnp.zeros((*SHAPE, 1), "complex64")
    params = reconstructor("gradient").init(jax.random.key(seed), OPERATOR, y)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.finfo(dtype).dtype), params)


def objective_of(params, x, method="gradient", space="measurement"):
    reconstruct = partial(reconstructor(method).apply, params, OPERATOR)
    return reconstruction_error(reconstruct, OPERATOR, x, OPERATOR.forward(x), space=space)


def error_at(params, x, delta):
    return objective_of(params, x)(delta)


@partial(jax.jit, static_argnames=("attack", "norm", "method"))
def attacked(params, xs, epsilon, key, *, attack, norm="l2", method="gradient"):
    """What an attack finds for every signal, `epsilon` relative to the measurement."""

    def one(x, key):
        y = OPERATOR.forward(x)
        ball = Threat(epsilon, norm=norm, unit="relative").ball_at(OPERATOR, x, y)
        delta, info = attack(ball)(objective_of(params, x, method), jnp.zeros_like(y), key)
        return delta, info, ball.radius

    return jax.vmap(one)(xs, jax.random.split(key, SIGNALS))


XS = normal(0, SIGNALS, *SHAPE, 1, dtype="complex64")
STRONG = partial(pgd, num_steps=20, restarts=2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("space", ["measurement", "signal"])
def test_gradient_of_the_objective_against_finite_differences(method, space):
    """A gradient that a detour hides (a stopped one, an implicit one) would differ."""
    with jax.enable_x64(True):
        x, start = (normal(seed, *SHAPE, 1, dtype="complex128") for seed in (0, 5))
        objective = objective_of(params_of(0, "complex128"), x, method, space)
        check_gradient(objective, 0.1 * start)


def test_finite_differences_find_a_masked_gradient():
    with jax.enable_x64(True):
        x, start = (normal(seed, *SHAPE, 1, dtype="complex128") for seed in (0, 5))
        reconstruct = partial(reconstructor("gradient").apply, params_of(0, "complex128"), OPERATOR)
        masked = lambda y: reconstruct(jax.lax.stop_gradient(0.5 * y) + 0.5 * y)
        objective = reconstruction_error(masked, OPERATOR, x, OPERATOR.forward(x))
        with pytest.raises(AssertionError):
            check_gradient(objective, 0.1 * start)


ATTACKS = {
    "random": random,
    "random on the sphere": partial(random, on_sphere=True),
    "fgsm": fgsm,
    "pgd": STRONG,
}


@pytest.mark.parametrize("name", ATTACKS)
@every_norm
def test_lives_on_sampled_points(name, norm):
    key = jax.random.key(0)
    found = attacked(params_of(0), XS, 0.1, key, attack=ATTACKS[name], norm=norm)
    for delta, radius in zip(np.asarray(found[0]), found[2], strict=True):
        assert (delta[~MASK] == 0).all() and (np.abs(delta[MASK]) > 0).mean() > 0.9
        parts = np.stack([delta.real, delta.imag])
        size = np.linalg.norm(parts) if norm == "l2" else np.abs(parts).max()
        assert 0 < size <= radius * (1 + TOLERANCE["float32"])
        shares = kspace_energy(OPERATOR, jnp.asarray(delta))
        assert shares["unsampled"] == 0
        near(sum(share for key, share in shares.items() if key != "unsampled"), 1.0, 1e-5)


def test_radii_in_their_units():
    operator, x = OPERATOR, XS[0]
    y = operator.forward(x)
    count = 2 * MASK.sum()  # real and imaginary parts of the sampled points
    radius = lambda **options: Threat(0.1, **options).ball_at(operator, x, y).radius
    near(radius(norm="l2", unit="relative"), 0.1 * np.linalg.norm(y), TOLERANCE["float32"])
    parts = np.stack([np.real(y), np.imag(y)])
    near(radius(norm="linf", unit="relative"), 0.1 * np.abs(parts).max(), TOLERANCE["float32"])
    near(radius(unit="per_pixel"), 0.1 * np.sqrt(count / 2), TOLERANCE["float32"])
    near(radius(norm="l2"), 0.1, TOLERANCE["float32"])
    in_signal = Threat(0.1, space="signal", unit="relative").ball_at(operator, x, y)
    assert in_signal.support is None
    near(in_signal.radius, 0.1 * np.linalg.norm(x), TOLERANCE["float32"])


@every_norm
def test_uniform_in_the_ball_of_the_sampled_points(norm):
    """The share of draws within a part of the radius tells the dimension they were drawn in."""
    mask = np.zeros((4, 4), bool)
    mask[2, 2] = mask[1, 2] = True  # two points, four numbers
    operator, y = cartesian_mri(mask), jnp.ones((4, 4, 1), "complex64")
    ball = Threat(1.0, norm=norm).ball_at(operator, y, y)
    draws = jax.vmap(lambda key: ball.sample(key, y))(jax.random.split(jax.random.key(0), 4000))
    parts = np.stack([np.real(draws), np.imag(draws)]).transpose(1, 0, 2, 3, 4).reshape(4000, -1)
    size = np.linalg.norm(parts, axis=1) if norm == "l2" else np.abs(parts).max(1)
    expected = 0.8**4
    deviation = np.sqrt(expected * (1 - expected) / 4000)
    assert abs((size < 0.8).mean() - expected) < 4 * deviation


@pytest.mark.parametrize(
    ("norm", "method"), [("l2", "gradient"), ("linf", "gradient"), ("linf", "proximal")]
)
def test_order_of_strength(norm, method):
    def values(attack, seed=0):
        key = jax.random.key(seed)
        found = attacked(params_of(0), XS, 0.2, key, attack=attack, norm=norm, method=method)
        return np.asarray(found[1].value)

    draws = np.max([values(ATTACKS["random on the sphere"], seed) for seed in range(8)], 0)
    assert (values(STRONG) >= values(fgsm)).all() and (values(fgsm) > draws).all()
    assert (draws > 0).all()


def test_more_steps_and_more_restarts_are_never_weaker():
    options = [(1, 1), (6, 1), (1, 3)]
    values = {
        (steps, restarts): np.asarray(
            attacked(
                params_of(0),
                XS,
                0.2,
                jax.random.key(0),
                attack=partial(
                    pgd, step_size=0.7, num_steps=steps, restarts=restarts, first="random"
                ),
            )[1].value
        )
        for steps, restarts in options
    }
    for strong in options[1:]:
        assert (values[strong] >= values[1, 1]).all() and (values[strong] > values[1, 1]).any()


def test_epsilon_zero_changes_nothing():
    delta, info, _ = attacked(params_of(0), XS, 0.0, jax.random.key(0), attack=STRONG)
    assert (np.asarray(delta) == 0).all() and (info.value == info.clean).all()


@every_norm
def test_an_unbounded_attack_destroys_the_image(norm):
    key = jax.random.key(0)
    _, info, _ = attacked(params_of(0), XS, 100.0, key, attack=STRONG, norm=norm)
    energy = np.mean(np.abs(XS) ** 2, (1, 2, 3))
    # The error is a hundred times the signal: nothing of it is left.
    assert (np.asarray(info.value) > 100 * energy).all()
    assert (np.asarray(info.clean) < 2 * energy).all()


@every_norm
def test_transfer_from_another_network_is_weaker(norm):
    own, other = params_of(0), params_of(1)
    run = lambda params: attacked(params, XS, 0.2, jax.random.key(0), attack=STRONG, norm=norm)
    white_box, borrowed = run(own)[1].value, run(other)[0]
    black_box = jax.jit(jax.vmap(error_at, in_axes=(None, 0, 0)))(own, XS, borrowed)
    assert (np.asarray(white_box) > np.asarray(black_box)).all()


def test_energy_by_ring():
    operator = cartesian_mri(np.ones((20, 20)))
    change = np.zeros((20, 20, 1), np.complex64)
    change[10, 10] = 1  # the centre
    change[10, 14] = 2j  # 4 of 10 on the way to the edge
    change[0, 0] = 1  # a corner
    shares = kspace_energy(operator, jnp.asarray(change))
    found = {key: round(float(share), 6) for key, share in shares.items() if share > 0}
    assert found == {
        "radius 0-0.1": round(1 / 6, 6),
        "radius 0.25-0.5": round(4 / 6, 6),
        "radius > 1": round(1 / 6, 6),
    }
    half = np.ones((20, 20), bool)
    half[10, 10] = False
    for make in (cartesian_mri, cartesian_mri_repo):
        unsampled = kspace_energy(make(half), jnp.asarray(change))["unsampled"]
        near(unsampled, 1 / 6, TOLERANCE["float32"])
    assert all(share == 0 for share in kspace_energy(operator, jnp.zeros_like(change)).values())
