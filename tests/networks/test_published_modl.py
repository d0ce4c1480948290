"""Published weights: what they reconstruct, what an attack does to that, what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, normal
from published_files import DATA, modl, refuses_other_files, weights

from jitter_jax.attacks import Threat, pgd, reconstruction_error
from jitter_jax.metrics import psnr
from jitter_jax.networks.published import load_modl
from jitter_jax.operators import centred_fft2, sense
from jitter_jax.unroll import load_published

IMAGES = DATA / "mri/brain_complex_s1.npz"


@pytest.fixture(scope="module")
def brain():
    """Five brain slices, seen by 12 simulated coils at a sixth of k-space: x, mask, maps, y."""
    if not IMAGES.exists():
        pytest.skip(f"no real data at {IMAGES}")
    x = np.load(IMAGES)["image"][10:15, :, 12:244, None]
    shape, coils = x.shape[1:3], 12
    u, v = (np.linspace(-1, 1, side) for side in shape)
    u, v, angle = u[:, None, None], v[:, None], 2 * np.pi * np.arange(coils) / coils
    sine, cosine = np.sin(angle), np.cos(angle)
    maps = np.exp(-((u - 1.2 * sine) ** 2 + (v - 1.2 * cosine) ** 2) / 1.28)
    maps = maps * np.exp(1j * (angle + 0.8 * (u * cosine - v * sine)))
    maps /= np.linalg.norm(maps, axis=-1, keepdims=True)
    rng = np.random.default_rng(0)
    mask = rng.random(shape) < density(1 / (1 + (u**2 + v**2)[..., 0] / 0.0144) + 0.06)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((coils, *shape)) + 1j * rng.standard_normal((coils, *shape))
    # Drawn for k-space that is not centred: taken to the coil images and to k-space as we have it.
    noise = np.fft.ifft2(np.moveaxis(noise, 0, -1) * 0.01 / np.sqrt(2), axes=(0, 1), norm="ortho")
    noise = centred_fft2(jnp.asarray(noise, jnp.complex64))
    operator = sense(mask, maps := maps.astype(np.complex64))
    noise = jnp.where(operator.support(), noise, 0)
    return x, mask, maps, jax.vmap(lambda x: operator.forward(x) + noise)(x)


def density(profile):
    """`min(1, c profile)` with the `c` that makes its mean a sixth."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        enough = np.minimum(1, middle * profile).mean() > 1 / 6
        low, high = (low, middle) if enough else (middle, high)
    return np.minimum(1, low * profile)


def modl_of(num_iterations):
    path = weights(f"modl_brain_k{num_iterations}")
    method = load_published(path, num_iterations=num_iterations)
    return partial(method.apply, method.init(jax.random.key(0), None, None))


def complex_psnr(estimate, x):
    return psnr(estimate, x, peak=jnp.max(jnp.abs(x)))


def magnitude_psnr(estimate, x):
    """As in the authors' demo, of magnitudes that each fill the range from 0 to 1."""
    fill = lambda a: (a - a.min()) / (a.max() - a.min())
    return psnr(fill(jnp.abs(estimate)), fill(jnp.abs(x)))


def psnrs(estimates, x):
    return [
        float(jnp.mean(jax.vmap(kind)(estimates, x))) for kind in (magnitude_psnr, complex_psnr)
    ]


def test_the_problem_is_the_known_one(brain):
    x, mask, maps, y = brain
    estimates = jax.vmap(sense(mask, maps).adjoint)(y)
    np.testing.assert_allclose(psnrs(estimates, x), [24.43, 25.53], atol=0.02)


@pytest.mark.parametrize(
    ("num_iterations", "expected"), [(1, [32.55, 30.77]), (10, [34.61, 32.64])]
)
def test_modl_reaches_its_numbers(brain, num_iterations, expected):
    x, mask, maps, y = brain
    reconstruct = partial(modl_of(num_iterations), sense(mask, maps))
    estimates = jax.jit(lambda y: jax.lax.map(reconstruct, y))(y)
    np.testing.assert_allclose(psnrs(estimates, x), expected, atol=0.02)


def test_an_attack_harms_modl_more_than_noise(brain):
    # The middle of the image, and of k-space.
    x, mask, maps = (a[96:160, 84:148] for a in (brain[0][0], *brain[1:3]))
    operator = sense(mask, maps)
    y = operator.forward(x)
    reconstruct = partial(modl_of(1), operator)
    ball = Threat(0.02, norm="linf", unit="relative").ball_at(operator, x, y)

    @jax.jit
    def run(key):
        objective = reconstruction_error(reconstruct, operator, x, y)
        delta, _ = pgd(ball, num_steps=5)(objective, jnp.zeros_like(y), key)
        # Every sampled entry as large as allowed, each sign at random.
        noise = ball.project(jnp.sign(normal(0, *y.shape)) * (1 + 1j) * ball.radius)
        return delta, [complex_psnr(reconstruct(y + d), x) for d in (0 * y, noise, delta)]

    delta, (clean, noisy, attacked) = run(jax.random.key(0))
    assert float(jnp.abs(delta.real).max()) <= float(ball.radius) * (1 + 1e-6)
    assert not np.any(np.asarray(delta)[~np.broadcast_to(operator.support(), delta.shape)])
    assert clean - 1 > noisy and noisy - 3 > attacked, (clean, noisy, attacked)


def test_modl_is_read_back(tmp_path):
    network, params, arrays = modl()
    np.savez(tmp_path / "modl.npz", **arrays)
    loaded, found, regularisation = load_modl(tmp_path / "modl.npz")
    assert loaded == network
    close(found, params)
    assert regularisation == np.float32(0.05) and regularisation.dtype == jnp.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Wts/lam1": None}, r"1 arrays .* first of them \{'Wts/lam1': \(None, \(\)\)\}"),
        ({"Wts/Layer2/BN/beta": np.ones(3)}, r"'Wts/Layer2/BN/beta': \(\(3,\), \(4,\)\)"),
        ({"Wts/Layer3/W": np.ones((3, 3, 4, 3))}, r"'Wts/Layer3/W': \(\(3, 3, 4, 3\), "),
        ({"Wts/Layer1/W": np.ones(3)}, r"'Wts/Layer1/W': \(\(3,\), "),
        ({"Wts/lam1": np.float32(np.nan)}, "'Wts/lam1' has 1 of 1 values that are NaN"),
    ],
)
def test_other_arrays_are_refused(tmp_path, changes, message):
    arrays = {k: a for k, a in (modl()[-1] | changes).items() if a is not None}
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_modl(tmp_path / "other.npz")


def test_other_files_are_refused(tmp_path):
    refuses_other_files(load_modl, tmp_path, "not a MoDL network; 12 arrays")
