"""Published DnCNNs: read back, their norms merged, refused, and on a known image."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import equal, near, normal

from jitter_jax.data import Pictures
from jitter_jax.metrics import psnr
from jitter_jax.networks.published import PlainDnCNN, load_dncnn, load_scico_dncnn

FOLDER = Path(__file__).resolve().parents[3] / "shared"
WEIGHTS = Path(os.environ.get("JITTER_JAX_WEIGHTS") or FOLDER / "weights")
DATA = Path(os.environ.get("JITTER_JAX_DATA") or FOLDER / "data")


def weights(name):
    path = WEIGHTS / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no published weights at {path}")
    return path


class Normed(nn.Module):
    """SCICO's network, its norms where they were: three blocks between two convolutions."""

    @nn.compact
    def __call__(self, x):
        convolution = lambda features: nn.Conv(features, (3, 3), padding="CIRCULAR", use_bias=False)
        h = nn.relu(convolution(4)(x))
        for _ in range(3):
            norm = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
            h = nn.relu(norm(convolution(4)(h)))
        return x - convolution(x.shape[-1])(h)


def filled(network, x):
    """Parameters with no two entries alike; all positive, as variances have to be."""
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    leaves, structure = jax.tree.flatten(params)
    values = [jnp.abs(normal(i, *leaf.shape)) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, values)


def plain():
    """A network of twelve layers, more than there are digits, and its file."""
    network = PlainDnCNN(depth=12, width=2)
    params, arrays = filled(network, jnp.zeros((4, 4, 1))), {}
    # Not in order: the numbers decide.
    for layer in reversed(range(12)):
        own, name = params["params"][f"Conv_{layer}"], f"layers.{2 * layer}.layer{3 * layer}"
        arrays |= {f"{name}.weight": own["kernel"], f"{name}.bias": own["bias"]}
    return network, params, arrays


def normed():
    """SCICO's form, its parameters and its file."""
    network = Normed()
    params = filled(network, jnp.zeros((4, 4, 2)))
    weights, arrays = params["params"], {}
    arrays["params/conv_start/kernel"] = weights["Conv_0"]["kernel"]
    arrays["params/conv_end/kernel"] = weights["Conv_4"]["kernel"]
    for block in range(3):
        name, norm = f"ConvBNBlock_{block}", f"BatchNorm_{block}"
        arrays[f"params/{name}/Conv_0/kernel"] = weights[f"Conv_{block + 1}"]["kernel"]
        own = {"params": weights[norm], "batch_stats": params["batch_stats"][norm]}
        for room, entries in own.items():
            arrays |= {f"{room}/{name}/BatchNorm_0/{key}": a for key, a in entries.items()}
    return network, params, arrays


FILES = {"plain": (load_dncnn, plain), "scico": (load_scico_dncnn, normed)}


def test_dncnn_is_read_back(tmp_path):
    network, params, arrays = plain()
    np.savez(tmp_path / "net.npz", **arrays)
    found_network, found = load_dncnn(tmp_path / "net.npz")
    assert found_network == network
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    equal(found, params)


def test_merged_norms_change_nothing(tmp_path):
    network, params, arrays = normed()
    np.savez(tmp_path / "net.npz", **arrays)
    merged, weights = load_scico_dncnn(tmp_path / "net.npz")
    assert merged == PlainDnCNN(depth=5, width=4, circular=True)
    x = normal(7, 5, 6, 2)
    near(jax.jit(merged.apply)(weights, x), jax.jit(network.apply)(params, x), 1e-5)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("plain", {"layers.4.layer6.bias": None}, r"1 arrays .*6.bias': \(None, \(2,\)\)\}"),
        (
            "plain",
            {"layers.4.layer6.weight": np.ones((3, 3, 2, 3))},
            r"\(\(3, 3, 2, 3\), \(3, 3, 2",
        ),
        ("plain", {"layers.4.layer6.bias": np.array([np.inf, 1])}, "1 of 2 values that are NaN or"),
        ("plain", {"a.weight": np.ones(3)}, "not a DnCNN with merged norms"),
        ("scico", {"params/ConvBNBlock_1/Conv_0/kernel": None}, "not a DnCNN of SCICO"),
        ("scico", {"batch_stats/ConvBNBlock_2/BatchNorm_0/var": None}, r"var': \(None, \(4,\)\)"),
        (
            "scico",
            {"params/conv_end/kernel": np.ones((3, 3, 4, 1))},
            r"\(\(3, 3, 4, 1\), \(3, 3, 4, 2\)",
        ),
    ],
)
def test_other_arrays_are_refused(tmp_path, name, changes, message):
    load, make = FILES[name]
    arrays = make()[-1] | changes
    np.savez(tmp_path / "other.npz", **{k: a for k, a in arrays.items() if a is not None})
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plain", "not a DnCNN with merged norms; 5 arrays"),
        ("scico", "not a DnCNN of SCICO; 3 arrays"),
    ],
)
def test_other_files_are_refused(tmp_path, name, message):
    load, _ = FILES[name]
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="nothing"):
        load(tmp_path / "nothing.npz")


# What the loaded networks reach on the first image of Set12; over all twelve they are within
# 0.01 dB of the averages that others got: 32.86, 30.45, 31.74 and 27.91.
@pytest.mark.parametrize(
    ("file", "load", "sigma", "layers", "count", "expected"),
    [
        ("dncnn_sigma15", load_dncnn, 15 / 255, 17, 555_137, 32.52),
        ("dncnn_sigma25", load_dncnn, 25 / 255, 17, 555_137, 30.09),
        ("scico_dncnn6L", load_scico_dncnn, 0.06, 6, 149_632, 31.30),
        ("scico_dncnn6M", load_scico_dncnn, 0.1, 6, 149_632, 27.43),
    ],
)
def test_published_files(file, load, sigma, layers, count, expected):
    network, params = load(path := weights(file))
    assert network.depth == layers
    assert sum(a.size for a in np.load(path).values()) == count
    pytest.importorskip("PIL", reason="pictures are read with pillow")
    if not (picture := DATA / "images/set12/01.png").exists():
        pytest.skip(f"no real data at {picture}")
    x = Pictures(picture)[0]["signal"]
    noise = sigma * np.random.default_rng(0).standard_normal(x.shape)
    estimate = jnp.clip(jax.jit(network.apply)(params, jnp.float32(x + noise)), 0, 1)
    if load is load_dncnn:
        estimate = jnp.round(estimate * 255) / 255
    assert abs(float(psnr(estimate, x)) - expected) < 0.02
