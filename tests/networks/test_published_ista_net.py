"""Published ISTA-Net++, ISTA-Net+ and ISTA-Net: read back, refused, and on known images."""

import os
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import equal, normal

from jitter_jax.data import Pictures, load_arrays
from jitter_jax.metrics import psnr
from jitter_jax.networks.published import load_ista_net_plus, load_ista_net_pp
from jitter_jax.operators import block_sampling, cartesian_mri, orthonormal_rows
from jitter_jax.unroll import ista_net_plus, ista_net_pp, real_signals

FOLDER = Path(__file__).resolve().parents[3] / "shared"
WEIGHTS = Path(os.environ.get("JITTER_JAX_WEIGHTS") or FOLDER / "weights")
DATA = Path(os.environ.get("JITTER_JAX_DATA") or FOLDER / "data")

SIDE = 33
# Measured rows at each sampling ratio in per cent.
ROWS = {10: 109, 50: 545}
NETS = {
    "pp": (load_ista_net_pp, ista_net_pp, dict(num_phases=2, width=3, num_blocks=3)),
    "plus": (load_ista_net_plus, ista_net_plus, dict(num_phases=2, width=3, residual=True)),
    "plain": (load_ista_net_plus, ista_net_plus, dict(num_phases=2, width=3, residual=False)),
}
every_net = pytest.mark.parametrize("name", NETS)


def weights(name):
    path = WEIGHTS / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no published weights at {path}")
    return path


def picture(path):
    pytest.importorskip("PIL", reason="pictures are read with pillow")
    if not (DATA / path).exists():
        pytest.skip(f"no real data at {DATA / path}")
    return Pictures(DATA / path)[0]["signal"]


def quality(estimate, x):
    return float(psnr(jnp.clip(estimate, 0, 1), x))


@cache
def parameters(name):
    """Small parameters with no two entries alike, so that nothing can be taken for another."""
    _, make, sizes = NETS[name]
    operator = block_sampling(np.ones((1, 4), np.float32), shape=(2, 2))
    params = jax.eval_shape(
        make(**sizes).init, jax.random.key(0), operator, jnp.zeros((1, 1, 1, 1))
    )
    leaves, structure = jax.tree.flatten(params)
    values = [normal(i, *leaf.shape) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, values)


def layer_names(name):
    if name == "pp":
        blocks = [f"ResidualBlocks.{b}.conv{i}" for b in range(3) for i in (1, 2)]
        return ["head_conv", *blocks, "tail_conv"]
    inner = ["conv1_forward", "conv2_forward", "conv1_backward", "conv2_backward"]
    return inner if name == "plain" else ["conv_D", *inner, "conv_G"]


def stored(name, params):
    """The parameters under the names, and with the axes, of torch."""
    network, arrays = params["network"]["params"], {}
    for phase in range(2):
        for number, layer in enumerate(layer_names(name)):
            own, key = network[f"Conv_{number}"], f"fcs.{phase}.{layer}"
            kernel = np.asarray(own["kernel"][phase]).transpose(3, 2, 0, 1)
            if name == "pp":
                arrays |= {f"{key}.weight": kernel, f"{key}.bias": own["bias"][phase]}
            else:
                arrays[key] = kernel
        if name != "pp":
            arrays[f"fcs.{phase}.soft_thr"] = network["threshold"][phase][None]
            arrays[f"fcs.{phase}.lambda_step"] = params["step_size"][phase][None]
    for number in range(3) if name == "pp" else ():
        own, key = params["condition"]["params"][f"Dense_{number}"], f"condition.fc{number + 1}"
        arrays |= {f"{key}.weight": np.asarray(own["kernel"]).T, f"{key}.bias": own["bias"]}
    return arrays


@pytest.mark.parametrize("prefix", ["", "module."])
@every_net
def test_networks_are_read_back(tmp_path, name, prefix):
    load, _, sizes = NETS[name]
    params = parameters(name)
    arrays = {f"{prefix}{key}": array for key, array in stored(name, params).items()}
    np.savez(tmp_path / "net.npz", **arrays)
    found_sizes, found = load(tmp_path / "net.npz")
    assert found_sizes == sizes
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
    arrays = stored(name, parameters(name)) | changes
    np.savez(tmp_path / "other.npz", **{k: a for k, a in arrays.items() if a is not None})
    with pytest.raises(ValueError, match=message):
        NETS[name][0](tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pp", r"not an ISTA-Net\+\+; 15 arrays"),
        ("plus", r"not an ISTA-Net\+ or an ISTA-Net; 7 arr"),
    ],
)
def test_other_files_are_refused(tmp_path, name, message):
    load = NETS[name][0]
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="nothing"):
        load(tmp_path / "nothing.npz")


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
