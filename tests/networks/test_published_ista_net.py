"""Published ISTA-Net++, ISTA-Net+ and ISTA-Net: read back, refused, and on known images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import equal
from published_files import ISTA_NETS, ista_net, picture, refuses_other_files, weights

from jitter_jax.data import load_arrays
from jitter_jax.metrics import psnr
from jitter_jax.networks.published import load_ista_net_plus, load_ista_net_pp
from jitter_jax.operators import block_sampling, cartesian_mri, orthonormal_rows
from jitter_jax.unroll import ista_net_plus, ista_net_pp, real_signals

SIDE = 33
# Measured rows at each sampling ratio in per cent.
ROWS = {10: 109, 50: 545}
LOADERS = {"pp": load_ista_net_pp, "plus": load_ista_net_plus, "plain": load_ista_net_plus}
every_net = pytest.mark.parametrize("name", LOADERS)


def quality(estimate, x):
    return float(psnr(jnp.clip(estimate, 0, 1), x))


@pytest.mark.parametrize("prefix", ["", "module."])
@every_net
def test_networks_are_read_back(tmp_path, name, prefix):
    _, params, arrays = ista_net(name)
    np.savez(tmp_path / "net.npz", **{f"{prefix}{key}": array for key, array in arrays.items()})
    found_sizes, found = LOADERS[name](tmp_path / "net.npz")
    assert found_sizes == ISTA_NETS[name][1]
    assert jax.tree.structure(found) == jax.tree.structure(params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    equal(found, params)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("pp", {"condition.fc2.bias": None}, r"1 arrays .*\{'condition.fc2.bias': \(None, \(32,\)"),
        ("pp", {"condition.fc3.weight": np.ones((3, 32))}, r"fc3.weight': \(\(3, 32\), \(4, 32\)"),
        ("pp", {"fcs.1.tail_conv.weight": None}, r"\(None, \(1, 3, 3, 3\)\)"),
        ("pp", {"fcs.1.head_conv.weight": np.ones(3)}, r"'fcs.1.head_conv.weight': \(\(3,\), "),
        # From here the sizes are read: all others are then wrong.
        ("pp", {"fcs.0.head_conv.weight": np.ones(3)}, r"not an ISTA-Net\+\+; 30 arrays"),
        (
            "pp",
            {"fcs.0.head_conv.bias": np.array([1, 2, np.nan])},
            "has 1 of 3 values that are NaN",
        ),
        ("plus", {"fcs.1.soft_thr": None}, r"1 arrays .*\{'fcs.1.soft_thr': \(None, \(1,\)\)\}"),
        ("plus", {"fcs.0.lambda_step": np.ones(2)}, r"'fcs.0.lambda_step': \(\(2,\), \(1,\)\)"),
        ("plus", {"fcs.1.conv_G": None}, r"'fcs.1.conv_G': \(None, \(1, 3, 3, 3\)\)"),
        ("plain", {"fcs.0.conv_D": np.ones((3, 1, 3, 3))}, "not an ISTA-Net.* or an ISTA-Net"),
        ("plain", {"fcs.0.conv1_forward": np.ones(())}, r"'fcs.0.conv1_forward': \(\(\), "),
    ],
)
def test_other_arrays_are_refused(tmp_path, name, changes, message):
    arrays = ista_net(name)[-1] | changes
    np.savez(tmp_path / "other.npz", **{k: a for k, a in arrays.items() if a is not None})
    with pytest.raises(ValueError, match=message):
        LOADERS[name](tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pp", r"not an ISTA-Net\+\+; 15 arrays"),
        ("plus", r"not an ISTA-Net\+ or an ISTA-Net; 7 arr"),
    ],
)
def test_other_files_are_refused(tmp_path, name, message):
    refuses_other_files(LOADERS[name], tmp_path, message)


@pytest.mark.parametrize(
    ("file", "load", "sizes", "count"),
    [
        ("ista_net_pp", load_ista_net_pp, (20, 32, 2), 760_220),
        ("ista_net_pp_ord100", load_ista_net_pp, (20, 32, 2), 760_220),
        ("ista_net_plus_cs10", load_ista_net_plus, (9, 32, True), 336_978),
        ("ista_net_plus_mri20", load_ista_net_plus, (9, 32, True), 336_978),
        ("ista_net_cs10", load_ista_net_plus, (9, 32, False), 171_090),
    ],
)
def test_published_files(file, load, sizes, count):
    found, params = load(weights(file))
    assert tuple(found.values()) == sizes
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


@partial(jax.jit, static_argnums=0)
def sampled_and_reconstructed(sizes, params, x, matrix, rows, ratio):
    operator = block_sampling(matrix, shape=x.shape[:2], rows=rows)
    net = ista_net_pp(**dict(sizes), ratio=lambda operator: ratio)
    return net.apply(params, operator, operator.forward(x))


# The numbers come from the authors' own networks on the same images, to two decimals.
@pytest.mark.parametrize(
    ("file", "matrix", "ratio", "image", "expected"),
    [
        ("ista_net_pp", None, 10, "Monarch", 27.62),
        ("ista_net_pp", None, 10, "house", 33.20),
        ("ista_net_pp", None, 50, "Monarch", 40.75),
        ("ista_net_pp", "cs_matrix10", 10, "Monarch", 27.93),
        ("ista_net_pp_ord100", None, 10, "Monarch", 26.92),
    ],
)
def test_ista_net_pp_reaches_its_numbers(file, matrix, ratio, image, expected):
    sizes, params = load_ista_net_pp(weights(file))
    x, rows = picture(f"images/set11/{image}.tif"), ROWS[ratio]
    given = (
        load_arrays(weights(matrix))["phi"] if matrix else orthonormal_rows(rows, SIDE**2, seed=0)
    )
    # Of one shape, for one compiled program.
    whole = np.zeros((ROWS[50], SIDE**2), np.float32)
    whole[:rows] = given
    estimate = sampled_and_reconstructed(
        tuple(sizes.items()), params, x, whole, rows, jnp.float32(ratio / 100)
    )
    assert abs(quality(estimate, x) - expected) < 0.02


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("ista_net_plus_cs10", {"Monarch": 25.72, "barbara": 23.52}),
        ("ista_net_plus_cs25", {"Monarch": 33.17, "barbara": 29.23}),
    ],
)
def test_ista_net_plus_reaches_its_numbers(file, expected):
    sizes, params = load_ista_net_plus(weights(file))
    own = load_arrays(weights(f"cs_matrix{file[-2:]}"))
    operator = block_sampling(own["phi"], shape=(256, 256))
    net = ista_net_plus(**sizes, start_matrix=own["Qinit"])
    run = jax.jit(lambda x: net.apply(params, operator, operator.forward(x)))
    for image, value in expected.items():
        x = picture(f"images/set11/{image}.tif")
        assert abs(quality(run(x), x) - value) < 0.02, image


@pytest.mark.parametrize(("ratio", "expected"), [(10, 30.37), (20, 34.95), (40, 39.29)])
def test_ista_net_plus_reaches_its_numbers_from_k_space(ratio, expected):
    sizes, params = load_ista_net_plus(weights(f"ista_net_plus_mri{ratio}"))
    mask = load_arrays(weights("mri_masks"))[f"mask_{ratio}"]
    x = picture("mri/brain_magnitude.npz")
    operator = real_signals(cartesian_mri(np.fft.fftshift(mask)))
    net = ista_net_plus(**sizes)
    estimate = jax.jit(lambda y: net.apply(params, operator, y))(operator.forward(x))
    assert abs(quality(estimate, x) - expected) < 0.02
