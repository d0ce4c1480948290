"""Published weights: what they reconstruct, what an attack does to that, what is refused."""

import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, normal

from jitter_jax.attacks import Threat, pgd, reconstruction_error
from jitter_jax.metrics import psnr
from jitter_jax.networks import MoDLCNN
from jitter_jax.networks.published import load_modl
from jitter_jax.operators import centred_fft2, sense
from jitter_jax.solvers import conjugate_gradients, regularised_normal
from jitter_jax.unroll import half_quadratic, scalar, unrolled

FOLDER = Path(__file__).resolve().parents[3] / "shared"
WEIGHTS = Path(os.environ.get("JITTER_JAX_WEIGHTS") or FOLDER / "weights")
IMAGES = Path(os.environ.get("JITTER_JAX_DATA") or FOLDER / "data") / "mri/brain_complex_s1.npz"


def weights(num_iterations):
    path = WEIGHTS / f"modl_brain_k{num_iterations}.npz"
    if not path.exists():
        pytest.skip(f"no published weights at {path}")
    return path


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


def from_zero(operator, b, regularisation, start):
    """The data step of the public code."""
    return conjugate_gradients(regularised_normal(operator, regularisation), b)


def modl(num_iterations):
    network, params, regularisation = load_modl(weights(num_iterations))
    method = unrolled(
        partial(half_quadratic, solve=from_zero),
        network,
        {"regularisation": scalar.fixed(float(regularisation))},
        num_iterations=num_iterations,
    )
    return partial(method.apply, {"network": params})


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
    reconstruct = partial(modl(num_iterations), sense(mask, maps))
    estimates = jax.jit(lambda y: jax.lax.map(reconstruct, y))(y)
    np.testing.assert_allclose(psnrs(estimates, x), expected, atol=0.02)


def test_an_attack_harms_modl_more_than_noise(brain):
    # The middle of the image, and of k-space.
    x, mask, maps = (a[96:160, 84:148] for a in (brain[0][0], *brain[1:3]))
    operator = sense(mask, maps)
    y = operator.forward(x)
    reconstruct = partial(modl(1), operator)
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


def stored(network, params, regularisation=0.05):
    """The parameters under the names of the checkpoint."""
    arrays = {"Wts/lam1": np.float32(regularisation)}
    for layer in range(network.depth):
        name, norm = f"Wts/Layer{layer + 1}", f"BatchNorm_{layer}"
        arrays |= {
            f"{name}/W": params["params"][f"Conv_{layer}"]["kernel"],
            f"{name}/BN/gamma": params["params"][norm]["scale"],
            f"{name}/BN/beta": params["params"][norm]["bias"],
            f"{name}/BN/moving_mean": params["batch_stats"][norm]["mean"],
            f"{name}/BN/moving_variance": params["batch_stats"][norm]["var"],
        }
    return arrays


@pytest.fixture(scope="module")
def small():
    network = MoDLCNN(depth=3, width=4)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((4, 4, 2)))
    # No two entries alike, so that nothing can be taken for another thing.
    leaves, structure = jax.tree.flatten(params)
    values = [jnp.abs(normal(i, *leaf.shape)) for i, leaf in enumerate(leaves)]
    return network, jax.tree.unflatten(structure, values)


def test_modl_is_read_back(tmp_path, small):
    network, params = small
    np.savez(tmp_path / "modl.npz", **stored(network, params))
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
def test_other_arrays_are_refused(tmp_path, small, changes, message):
    arrays = {k: a for k, a in (stored(*small) | changes).items() if a is not None}
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_modl(tmp_path / "other.npz")


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="not a MoDL network; 12 arrays"):
        load_modl(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_modl(tmp_path / "nothing.npz")
