"""Published DnCNNs: read back, their norms merged, refused, and on a known image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import equal, near, normal
from published_files import dncnn, picture, refuses_other_files, scico_dncnn, weights

from jitter_jax.metrics import psnr
from jitter_jax.networks.published import PlainDnCNN, load_dncnn, load_scico_dncnn

FILES = {"plain": (load_dncnn, dncnn), "scico": (load_scico_dncnn, scico_dncnn)}


def test_dncnn_is_read_back(tmp_path):
    network, params, arrays = dncnn()
    np.savez(tmp_path / "net.npz", **arrays)
    found_network, found = load_dncnn(tmp_path / "net.npz")
    assert found_network == network
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    equal(found, params)


def test_merged_norms_change_nothing(tmp_path):
    network, params, arrays = scico_dncnn()
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
    refuses_other_files(FILES[name][0], tmp_path, message)


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
    x = picture("images/set12/01.png")
    noise = sigma * np.random.default_rng(0).standard_normal(x.shape)
    estimate = jnp.clip(jax.jit(network.apply)(params, jnp.float32(x + noise)), 0, 1)
    if load is load_dncnn:
        estimate = jnp.round(estimate * 255) / 255
    assert abs(float(psnr(estimate, x)) - expected) < 0.02
