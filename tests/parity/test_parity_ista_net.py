"""ISTA-Net++ against the authors' own module, with random and with published weights.

The files lie beside the checkout, or where JITTER_JAX_GOLDEN and JITTER_JAX_WEIGHTS say.
"""

import numpy as np
import pytest
from _ista_net import CHECKPOINT, GOLDEN, OTHER
from adapter import reproduce

INPUTS = ("x", "Phi", "psnr/a", "psnr/b")
# How far the authors' float32 runs are from the float64 replays: section 4 of the README there.
FLOAT64_REPLAY = {"ista_netpp": (3e-6, 1e-6), "ista_netpp_published": (2e-6, 0.0)}
# The limits suggested there, ten times as much in float32 and at least this, (outputs, gradients);
# and in float64, where the files hold float32-rounded numbers. Relative to the largest entry.
FLOAT32 = (1e-5, 1e-4)
FLOAT64 = 5e-6


def is_input(key):
    return key in INPUTS or key.startswith(("w/", "cfg/"))


@pytest.mark.parametrize("case", FLOAT64_REPLAY)
def test_ista_net_pp(case):
    path = GOLDEN / f"{case}.npz"
    for needed in (path, OTHER, CHECKPOINT)[: 3 if case == "ista_netpp_published" else 1]:
        if not needed.exists():
            pytest.skip(f"no {needed} (JITTER_JAX_GOLDEN and JITTER_JAX_WEIGHTS name the folders)")
    arrays = dict(np.load(path, allow_pickle=False))
    outputs = reproduce(case, {key: a for key, a in arrays.items() if is_input(key)})
    stored = {
        key: a
        for key, a in arrays.items()
        # The digest is that of another file, with the same numbers.
        if not is_input(key) and key != "checkpoint_sha256" and not key.startswith("f64/")
    }
    assert outputs.keys() == {*stored, *(f"f64/{key}" for key in stored)}
    limits = [max(10 * a, b) for a, b in zip(FLOAT64_REPLAY[case], FLOAT32, strict=True)]
    whole = max(
        (np.abs(a).max() for key, a in stored.items() if key.startswith("grad/")), default=0
    )
    for key, value in stored.items():
        exact = arrays.get(f"f64/{key}", value)
        # In float32 the sum that is the gradient of a bias can be little but rounding.
        scale = whole if key.startswith("grad/") else 0
        compare(key, outputs[key], value, limits[key.startswith("grad")], scale)
        compare(f"f64/{key}", outputs[f"f64/{key}"], exact, FLOAT64)


def compare(key, ours, stored, limit, scale=0):
    assert ours.shape == stored.shape, key
    if stored.dtype.kind != "f":
        np.testing.assert_array_equal(ours, stored, err_msg=key)
        return
    error = np.abs(ours - stored).max() / max(np.abs(stored).max(), scale)
    assert error <= limit, f"{key}: {error:.2e} of its largest entry"
