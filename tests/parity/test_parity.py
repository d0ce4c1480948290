"""The library in its `repo` readings, against numbers that the authors' own modules produced."""

import os
from pathlib import Path

import numpy as np
import pytest
from adapter import reproduce

HERE = Path(__file__).resolve().parent
SMALL = HERE.parent / "golden"
SHARED = Path(os.environ.get("JITTER_JAX_GOLDEN", HERE.parents[2] / "shared" / "golden"))
CASES = ("sgdj_seis", "sgdj_seis_352", "sgdj_pgd", "sgdj_metrics")
OTHER_ROOM = ("mri/", "f64/mri/", "detail/mri", "detail/other")

# Relative to the largest entry of the output. In float64 the files hold float32-rounded numbers. In
# float32 a ReLU whose input is within rounding of zero flips and moves a gradient by up to 1e-3.
FLOAT64 = 5e-6
FLOAT32 = 1e-5
FLOAT32_GRADIENT = 1e-3


def is_input(key: str) -> bool:
    name = key.rsplit("/", 1)[-1]
    inputs = {"X", "Xk", "X0", "X_raw", "meas_z", "jitter_z", "epsilon", "alpha", "y", "zero_y"}
    return "cfg/" in key or "w/" in key or name in inputs | {"minmax_in"} or key == "seis/A"


def check_outputs(case: str, arrays: dict[str, np.ndarray]) -> None:
    outputs = reproduce(case, arrays)
    gradients = gradient_scales(arrays)
    checked = 0
    for key, stored in arrays.items():
        if key.startswith((*OTHER_ROOM, "f64/")) or (is_input(key) and key not in outputs):
            continue
        if case == "sgdj_seis_352" and key in ("maxval", "X", "y"):
            continue  # that file has the normalised arrays as inputs
        assert key in outputs, f"{key} was not reproduced"
        limit = FLOAT32_GRADIENT if "grad" in key else FLOAT32
        compare(key, outputs[key], stored, limit, gradients)
        compare(f"f64/{key}", outputs[f"f64/{key}"], arrays.get(f"f64/{key}", stored), FLOAT64, {})
        checked += 1
    assert checked >= 7  # what the file with the fewest outputs, of the attack, has


def gradient_scales(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest entry of each run's whole gradient, by which the step size's own is judged."""
    scales: dict[str, float] = {}
    for key, value in arrays.items():
        run, found, _ = key.partition("grad/")
        if found:
            scales[run] = max(scales.get(run, 0.0), float(np.abs(value).max()))
    return scales


def compare(key, ours, stored, limit, gradients) -> None:
    assert ours.shape == stored.shape, key
    if stored.size == 0:
        return
    finite = np.isfinite(stored)
    assert np.array_equal(finite, np.isfinite(ours)), key
    scale = max(np.abs(stored[finite]).max(), gradients.get(key.partition("grad/")[0], 0.0))
    error = np.abs(ours[finite].astype(np.float64) - stored[finite]).max()
    assert error <= limit * scale, f"{key}: {error / scale:.2e} of its largest entry"


@pytest.mark.parametrize("case", ["sgdj_seis", "sgdj_pgd", "sgdj_metrics"])
def test_small_files(case):
    check_outputs(case, dict(np.load(SMALL / f"{case}.npz", allow_pickle=False)))


@pytest.mark.parametrize("case", CASES)
def test_full_files(case):
    path = SHARED / f"{case}.npz"
    if not path.exists():
        pytest.skip("the folder of full golden files is not here (JITTER_JAX_GOLDEN names it)")
    check_outputs(case, dict(np.load(path, allow_pickle=False)))


def test_reads_inputs_only():
    arrays = dict(np.load(SMALL / "sgdj_pgd.npz", allow_pickle=False))
    inputs = {key: value for key, value in arrays.items() if is_input(key)}
    outputs = reproduce("sgdj_pgd", inputs)
    assert "seis/l2/delta" in outputs
    compare("seis/l2/delta", outputs["seis/l2/delta"], arrays["seis/l2/delta"], FLOAT32, {})


def test_unknown_case():
    with pytest.raises(KeyError, match="sgdj_nothing"):
        reproduce("sgdj_nothing", {})
