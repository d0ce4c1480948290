"""The two schemes of SMUG, and the others on what it trains: smoothed MoDL, many coils."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import TOLERANCE, close, near, normal

from jitter_jax import schemes
from jitter_jax.attacks import Threat, pgd
from jitter_jax.data.batch import Batch
from jitter_jax.operators import cartesian_mri, normalise_maps, sense
from jitter_jax.smoothing import Smoothing
from jitter_jax.unroll import (
    by_conjugate_gradients,
    end_to_end,
    half_quadratic,
    in_closed_form,
    jitter,
    scalar,
    unrolled,
)

SHAPE = (6, 8)
INDEX = jnp.array([5, 2])
LAMBDA = 0.7
SAMPLES = 3


class Denoiser(nn.Module):
    """Two maps of the channels with a bend between; it adds the input."""

    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(x.shape[-1])(jnp.tanh(nn.Dense(4)(x)))


class Weight(nn.Module):
    """Weighs a copy by its mean."""

    @nn.compact
    def __call__(self, x):
        return nn.sigmoid(nn.Dense(1)(jnp.mean(x, (0, 1))))[0]


def modl(solve=in_closed_form, **options):
    return unrolled(
        partial(half_quadratic, solve=solve),
        Denoiser(),
        {"regularisation": scalar.fixed(LAMBDA)},
        num_iterations=2,
        **options,
    )


def make_batch(operator):
    signal = normal(1, len(INDEX), *SHAPE, 1, dtype="complex64")
    noise = 0.1 * normal(2, len(INDEX), *SHAPE, 1, dtype="complex64")
    measurement = jax.vmap(lambda x, w: operator.forward(x + w))(signal, noise)
    return Batch(signal, measurement, operator, jnp.ones(len(INDEX)), INDEX)


MASK = np.random.default_rng(0).uniform(size=SHAPE) < 0.5
SINGLE = make_batch(cartesian_mri(MASK))
SMUG = modl(smoothing=Smoothing(0.2, SAMPLES, chunk=2))
WEIGHTED = modl(smoothing=Smoothing(0.2, SAMPLES), weight_network=Weight())
PARAMS = WEIGHTED.init(jax.random.key(0), SINGLE.operator, SINGLE.measurement[0])
FROZEN = jax.tree.map(lambda leaf: 0.5 * leaf, PARAMS)
CASES = {
    "denoised_truth": {},
    "truth": {"target": "truth", "weight": 0.3},
    "denoised_iterate": {"target": "denoised_iterate", "weight": 0.0},
    "frozen, of the truth": {"frozen_params": FROZEN},
    "frozen, of the iterate": {"target": "denoised_iterate", "frozen_params": FROZEN},
    # The same value as the first, another gradient.
    "frozen at its own weights": {"frozen_params": PARAMS},
}


def by_hand(params, reconstructor, weight=1.0, target="denoised_truth", frozen_params=None):
    """Equations 8 and 12: the steps one after the other, the examples and samples side by side."""
    f = lambda x, own=params: reconstructor.learned_step(own, x)
    reference = f if frozen_params is None else partial(f, own=frozen_params)
    weigh = reconstructor.weight or (lambda params, x: jnp.float32(1))

    def one(t, y, index):
        key = jax.random.fold_in(jax.random.key(3), index)
        x = start = SINGLE.operator.adjoint(y)
        stability = 0.0
        for k in range(2):
            fixed = {"truth": t, "denoised_truth": reference(t)}.get(target, reference(x))
            keys = [jax.random.fold_in(jax.random.fold_in(key, k), s) for s in range(SAMPLES)]
            noisy = jnp.stack([reconstructor.smoothing.perturb(key, x) for key in keys])
            values, shares = jax.vmap(f)(noisy), jax.vmap(partial(weigh, params))(noisy)
            stability += jnp.mean(jnp.abs(values - fixed[None]) ** 2)
            average = jnp.sum(shares[:, None, None, None] * values, axis=0) / jnp.sum(shares)
            x = in_closed_form(SINGLE.operator, start + LAMBDA * average, LAMBDA, x)
        return {"stability": stability, "reconstruction": jnp.mean(jnp.abs(x - t) ** 2)}

    parts = jax.vmap(one)(SINGLE.signal, SINGLE.measurement, INDEX)
    parts = jax.tree.map(jnp.mean, parts)
    return parts["stability"] + weight * parts["reconstruction"], parts


def test_unrolled_stability_equals_a_loop():
    """Values, parts and gradients, of every target; one compilation for all."""

    def all_of(make):
        grad = lambda loss: jax.value_and_grad(loss, has_aux=True)(PARAMS)
        return jax.jit(lambda: {name: grad(make(options)) for name, options in CASES.items()})()

    loss_of = lambda options: (
        lambda params: schemes.unrolled_stability(SMUG, **options)(
            params, SINGLE, jax.random.key(3)
        )
    )
    found = all_of(loss_of)
    expected = all_of(lambda options: lambda p: by_hand(p, SMUG, **options))
    close(found, expected, loosen=5)
    gradients = {name: gradient["network"] for name, (_, gradient) in found.items()}
    values = {name: float(value) for name, ((value, _), _) in found.items()}
    # The gradient reaches the target: it is another one where the target is held fixed.
    near(values["frozen at its own weights"], values["denoised_truth"], TOLERANCE["float32"])
    for own, frozen in zip(
        jax.tree.leaves(gradients["denoised_truth"]),
        jax.tree.leaves(gradients["frozen at its own weights"]),
        strict=True,
    ):
        assert float(jnp.abs(own - frozen).max()) > 0.01 * float(jnp.abs(frozen).max())
    assert len({round(value, 4) for value in values.values()}) == len(CASES) - 1


def test_weights_play_a_part_in_the_reconstruction_alone():
    loss = schemes.unrolled_stability(WEIGHTED)
    grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, parts), gradient = grad(PARAMS, SINGLE, jax.random.key(3))
    close((value, parts), jax.jit(lambda: by_hand(PARAMS, WEIGHTED))(), loosen=5)
    assert float(jnp.abs(gradient["weight"]["params"]["Dense_0"]["kernel"]).max()) > 0


class Scale:
    """A linear denoiser `c x`."""

    @staticmethod
    def init(key, x):
        return jnp.float32(0.6)

    @staticmethod
    def apply(params, x):
        return params * x


def test_denoising_loss_of_a_linear_denoiser():
    """`mean |c (t + w) - t|^2 = (c - 1)^2 mean |t|^2 + 2 c^2 sigma^2`; only `c` gets a gradient."""
    sigma, draws, c = 0.4, 2000, 0.6
    reconstructor = unrolled(half_quadratic, Scale, {"regularisation": scalar.exponential()})
    params = {"network": jnp.float32(c), "regularisation": jnp.float32(0.0)}
    loss = schemes.denoising(reconstructor, Smoothing(sigma, draws))
    grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, aux), gradient = grad(params, SINGLE, jax.random.key(0))
    assert aux == {} and gradient["regularisation"] == 0
    power = np.abs(np.asarray(SINGLE.signal)) ** 2
    expected = (c - 1) ** 2 * power.mean() + 2 * c**2 * sigma**2
    variance = 4 * (c - 1) ** 2 * power.mean() * c**2 * sigma**2 + 4 * c**4 * sigma**4
    assert abs(value - expected) < 5 * np.sqrt(variance / (draws * power.size))
    slope = 2 * (c - 1) * power.mean() + 4 * c * sigma**2
    assert gradient["network"] == pytest.approx(slope, rel=0.05)


def test_denoising_cuts_its_noisy_truths_where_asked():
    reconstructor = unrolled(half_quadratic, Scale, {"regularisation": scalar.fixed(1.0)})
    loss = schemes.denoising(reconstructor, Smoothing(0.0, clamp=0.5))
    t = np.asarray(SINGLE.signal)
    cut = np.clip(t.real, -0.5, 0.5) + 1j * np.clip(t.imag, -0.5, 0.5)
    value, _ = loss({"network": jnp.float32(0.6)}, SINGLE, jax.random.key(0))
    near(value, np.mean(np.abs(0.6 * cut - t) ** 2), TOLERANCE["float32"])


COILS = make_batch(sense(MASK, normalise_maps(normal(4, *SHAPE, 2, dtype="complex64"))))
SOLVE = by_conjugate_gradients(3)


@pytest.mark.parametrize(
    ("reconstructor", "names"),
    [
        (
            modl(SOLVE, smoothing=Smoothing(0.1, 2), weight_network=Weight()),
            ("mse", "adversarial", "input_jitter", "sgd_jitter"),
        ),
        (end_to_end(modl(SOLVE), Smoothing(0.1, 2)), ("mse", "sgd_jitter")),
    ],
    ids=["weighted step", "end to end"],
)
def test_other_schemes_train_smoothed_modl_on_coils(reconstructor, names):
    losses = {
        "mse": schemes.mse(reconstructor),
        "adversarial": schemes.adversarial(
            reconstructor, Threat(0.3), lambda ball: pgd(ball, num_steps=1)
        ),
        "input_jitter": schemes.input_jitter(reconstructor, 0.1),
        "sgd_jitter": schemes.sgd_jitter(reconstructor, jitter.relative(0.1)),
    }
    params = reconstructor.init(jax.random.key(0), COILS.operator, COILS.measurement[0])
    grad = lambda loss, key: jax.value_and_grad(loss, has_aux=True)(params, COILS, key)
    run = jax.jit(lambda key: {name: grad(losses[name], key) for name in names})
    found, other = run(jax.random.key(1)), run(jax.random.key(2))
    for name, ((value, _), gradient) in found.items():
        assert np.isfinite(value) and value > 0
        for leaf in jax.tree.leaves(gradient):
            assert np.isfinite(leaf).all() and float(jnp.abs(leaf).max()) > 0, name
        assert value != other[name][0][0], name  # the noise is drawn anew
    if "adversarial" in names:
        assert found["adversarial"][0][0] > found["mse"][0][0]


def test_mse_is_that_of_the_average():
    value = jax.jit(lambda: schemes.mse(SMUG)(PARAMS, SINGLE, jax.random.key(3))[0])()
    close(value, jax.jit(lambda: by_hand(PARAMS, SMUG)[1]["reconstruction"])(), loosen=5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schemes.unrolled_stability(SMUG, weight=-1.0), "weight .* got -1.0"),
        (lambda: schemes.unrolled_stability(SMUG, weight=float("nan")), "weight .* got nan"),
        (lambda: schemes.unrolled_stability(SMUG, target="moon"), "target .* got 'moon'"),
        (
            lambda: schemes.unrolled_stability(SMUG, target="truth", frozen_params=PARAMS),
            "target='truth' takes no frozen_params",
        ),
        (lambda: schemes.unrolled_stability(modl()), "learned steps are smoothed"),
        (
            lambda: schemes.unrolled_stability(
                modl(smoothing=Smoothing(0.1), sees_measurement=True)
            ),
            "see the iterate alone",
        ),
        (
            lambda: schemes.denoising(modl(sees_measurement=True), Smoothing(0.1)),
            "sees the measurement is no denoiser",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
