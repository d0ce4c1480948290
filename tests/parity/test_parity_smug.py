"""SMUG's reconstructions, losses, attacks and metrics against the authors' own modules.

The whole files lie beside the checkout, or where JITTER_JAX_GOLDEN says. What is slow here is to
compile, so `smug_modl` is reproduced in float64 alone.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from adapter import reproduce

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("JITTER_JAX_GOLDEN") or HERE.parents[2] / "shared" / "golden")

INPUTS = {
    *("smap", "mask", "image", "kspace_masked", "target", "noise", "cg/dn", "cg/cotangent"),
    *("clamp/center", "clamp/input", "pretrain/z", "rse2e/noise_masked", "smugv0/noise"),
    *("pgd_vanilla/start_delta", "pgd_smug/start_delta", "pgd_smug/noise"),
}
# Where conjugate gradients stop by an absolute tolerance, which ours do not have; how often the
# noisy copies had to be cut; and running statistics, which ours never update.
NOT_REPRODUCED = ("cg/iterations", "cg/true_residual_norm", "clamped_", "train/wsmug_bn_train/bn_")

# All errors are relative to the largest entry, of derivatives of a loss that of the whole gradient.
FLOAT64 = 5e-6
LOOSER = {
    # The peer's derivative is that of the nine iterations it took, ours of as good as all.
    "cg/vjp_AHy": 1e-5,
    # In training the peer stops its adjoint solves, too, at an absolute residual of 1e-6, of
    # cotangents with a norm of 1e-3: its own gradients are not better than this.
    "train/smug/grad": 1e-4,
    "train/wsmug_bn_eval/grad_norm": 1e-4,
    "train/wsmug_bn_eval/grad_we/": 5e-4,
    "train/wsmug_bn_train/grad_norm": 1e-4,
    "train/wsmug_bn_train/grad_we/": 5e-4,
}
METRICS = ("psnr", "ssim_msssim_2chan_range2", "ssim_skimage_modulus_image0")


def load(name):
    path = SHARED / f"{name}.npz"
    if not path.exists():
        pytest.skip("the folder of full golden files is not here (JITTER_JAX_GOLDEN names it)")
    return dict(np.load(path, allow_pickle=False))


def is_input(key):
    return key in INPUTS or key.startswith(("w/", "we/", "cfg/"))


def test_smug_modl():
    arrays = load("smug_modl")
    inputs = {key: value for key, value in arrays.items() if is_input(key)}
    outputs = reproduce("smug_modl", inputs, prefixes=["f64/"])
    stored = {
        key: arrays.get(f"f64/{key}", value)
        for key, value in arrays.items()
        if not is_input(key) and not key.startswith(("f64/", *NOT_REPRODUCED))
    }
    assert outputs.keys() == {f"f64/{key}" for key in stored}
    for key, value in stored.items():
        found, room = outputs[f"f64/{key}"], key.rpartition("/")[0]
        assert found.shape == value.shape, key
        whole = room.endswith(("/grad", "/grad_we"))
        beside = [a for other, a in stored.items() if whole and other.startswith(f"{room}/")]
        scale = max(np.abs(a).max() for a in (value, *beside))
        limit = next((to for start, to in LOOSER.items() if key.startswith(start)), FLOAT64)
        error = np.abs(found - value).max() / scale
        assert error <= limit, f"{key}: {error:.2e} of its largest entry"


def test_smug_metrics():
    arrays = load("smug_mask_metrics")
    images = {key: arrays[key] for key in ("target", "recon")}
    outputs = reproduce("smug_mask_metrics", images)
    for key in METRICS:
        np.testing.assert_allclose(outputs[key], arrays[key], rtol=1e-5)
        np.testing.assert_allclose(outputs[f"f64/{key}"], arrays[key], rtol=1e-6)
