"""The networks of SMUG against the authors' own modules: outputs, loss and gradients of DIDN.

The whole files lie beside the checkout, or where JITTER_JAX_GOLDEN says. The copy of `smug_didn` in
`tests/golden` has the gradients of eight entries of the state dict only, of every kind of layer,
and float16 inputs and weights, which are exact.
"""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from _didn import encoder_parameters
from adapter import reproduce
from helpers import near

from jitter_jax.networks import WeightEncoder

HERE = Path(__file__).resolve().parent
SMALL = HERE.parent / "golden" / "smug_didn.npz"
SHARED = Path(os.environ.get("JITTER_JAX_GOLDEN") or HERE.parents[2] / "shared" / "golden")

INPUTS = {"x", "target", "block0_in", "nopad_nores_in"}
# How the peer pads shows in `out`; which sizes it refuses is not for us to reproduce.
NOT_REPRODUCED = {"padding", "heights_that_run"}
# (outputs, gradients), at least ten times what the authors' float32 is from its float64 replay.
FLOAT32 = (1e-5, 1e-4)
FLOAT64 = 5e-6


def is_input(key):
    return key in INPUTS or key.startswith(("w/", "cfg/"))


def test_didn():
    full = SHARED / "smug_didn.npz"
    arrays = dict(np.load(full if full.exists() else SMALL, allow_pickle=False))
    outputs = reproduce("smug_didn", {key: a for key, a in arrays.items() if is_input(key)})
    checked = 0
    for key, stored in arrays.items():
        if is_input(key) or key in NOT_REPRODUCED or key.startswith("f64/"):
            continue
        assert outputs[key].shape == stored.shape, key
        near(outputs[key], stored, FLOAT32["grad" in key])
        near(outputs[f"f64/{key}"], arrays.get(f"f64/{key}", stored), FLOAT64)
        checked += 1
    assert checked >= 8 + 8
    assert not full.exists() or checked == 8 + sum(key.startswith("w/") for key in arrays)


def test_weight_encoder():
    path = SHARED / "smug_modl.npz"
    if not path.exists():
        pytest.skip("the folder of full golden files is not here (JITTER_JAX_GOLDEN names it)")
    with jax.enable_x64(True):
        arrays = {
            key: value.astype(np.float64) if value.dtype.kind == "f" else value
            for key, value in np.load(path, allow_pickle=False).items()
        }
        weights = {key[3:]: value for key, value in arrays.items() if key.startswith("we/")}
        # What the encoder sees in the first iteration: noisy copies of A^H y, one after the other.
        stored = arrays["f64/wsmug3/weights"][0]
        copies = np.tile(arrays["AHy"], (len(stored), 1, 1, 1)) + arrays["noise"][0]
        x = np.moveaxis(np.clip(copies, -1, 1), 1, -1)
        found = jax.jit(WeightEncoder().apply)(encoder_parameters(weights), x)
        near(found.reshape(stored.shape), stored, FLOAT64)
