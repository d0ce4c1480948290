"""The library in its `repo` readings, against numbers that the authors' own modules produced.

The whole files lie beside the checkout, or where JITTER_JAX_GOLDEN says. `tests/golden` has copies
that leave out what is large:

- `sgdj_seis`: the runs with K = 10, the scaled noises, the gradients of the jittered runs save that
  of the step size, and those of the proximal run in two inner convolutions.
- `sgdj_mri_small`: what the images put out imply; of the derivatives those in the start and in the
  measurement, and those of the jittered runs save that of the step size; the scaled noises and
  the proximal run's jittered images; and the float32 arrays that are also there in float64.
- `sgdj_pgd`: the l2 perturbations of k-space. `sgdj_metrics`: the larger images with a block.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from adapter import reproduce

HERE = Path(__file__).resolve().parent
SMALL = HERE.parent / "golden"
SHARED = Path(os.environ.get("JITTER_JAX_GOLDEN", HERE.parents[2] / "shared" / "golden"))

# How far the authors' float32 runs are from the float64 replays of the same code, (outputs,
# gradients): section 4 of the README of the golden files. All errors are relative to the largest
# entry of the output; a ReLU whose input is within rounding of zero flips and moves a gradient.
FLOAT64_REPLAY = {
    "sgdj_seis": (1e-6, 5e-5),
    "sgdj_seis_352": (1e-6, 5e-5),
    "sgdj_mri_small": (9e-6, 5e-4),
    "sgdj_mri_64": (8e-7, 3e-4),
    "sgdj_mri_320": (2e-5, 4e-3),
    "sgdj_pgd": (4e-5, 2e-6),
    "sgdj_metrics": (8e-7, 0.0),
    "sgdj_mask": (0.0, 0.0),
}
# The limits suggested there: ten times as much in float32 and at least this, (outputs, gradients,
# these entry by entry or in norm); and in float64, where the files hold float32-rounded numbers.
FLOAT32 = (1e-5, 1e-4)
FLOAT64 = 5e-6
# Where a flipped ReLU was seen to move single entries of a float32 gradient past that.
BY_NORM = {"sgdj_mri_small"}
# A step along the gradient's sign goes the other way where an entry is within rounding of zero.
FLIPPED = 1e-3

INPUTS = {"X", "Xk", "X0", "X_raw", "meas_z", "jitter_z", "epsilon", "alpha", "y", "zero_y"}


def is_input(key: str) -> bool:
    name = key.rsplit("/", 1)[-1]
    inputs = ("seis/A", "mri/mask", "mask", "norm/minmax_in")
    return "cfg/" in key or "w/" in key or name in INPUTS or key in inputs


def check_outputs(case: str, arrays: dict[str, np.ndarray]) -> None:
    blank = {key: a if is_input(key) else np.zeros_like(a) for key, a in arrays.items()}
    outputs = reproduce(case, blank)
    limits = [max(10 * a, b) for a, b in zip(FLOAT64_REPLAY[case], FLOAT32, strict=True)]
    gradients = gradient_scales(arrays)
    checked = 0
    for key in dict.fromkeys(key.removeprefix("f64/") for key in arrays):
        if is_input(key) and key not in outputs:
            continue
        if case == "sgdj_seis_352" and key == "maxval":
            continue  # that file has the normalised arrays as inputs
        assert key in outputs, f"{key} was not reproduced"
        exact = arrays[f"f64/{key}" if f"f64/{key}" in arrays else key]
        limit, flipped = limits["grad" in key], FLIPPED * key.endswith("inf/delta")
        by_norm = case in BY_NORM and "grad" in key
        compare(key, outputs[key], arrays.get(key, exact), limit, gradients, flipped, by_norm)
        compare(f"f64/{key}", outputs[f"f64/{key}"], exact, FLOAT64, gradients)
        checked += 1
    assert checked >= 7  # what the file with the fewest outputs, of the attack, has


def gradient_scales(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest entry of each run's whole gradient, by which the step size's own is judged."""
    scales: dict[str, float] = {}
    for key, value in arrays.items():
        run, found, _ = key.removeprefix("f64/").partition("grad/")
        if found:
            scales[run] = max(scales.get(run, 0.0), float(np.abs(value).max()))
    return scales


def compare(key, ours, stored, limit, gradients, flipped=0.0, by_norm=False) -> None:
    """Compares an output with the stored one, except for the share of entries that may flip.

    Where `by_norm` is given an output also agrees if the l2 norm of the difference is within the
    limit: one flipped ReLU of the float32 U-Net moves single entries of a gradient, whose
    rounding depends on the machine's vector instructions.
    """
    assert ours.shape == stored.shape, key
    if stored.dtype.kind in "biuU":
        assert np.array_equal(ours, stored), key
        return
    if stored.size == 0:
        return
    finite = np.isfinite(stored)
    assert np.array_equal(finite, np.isfinite(ours)), key
    whole = gradients.get(key.removeprefix("f64/").partition("grad/")[0], 0.0)
    scale = max(np.abs(stored[finite]).max(), whole)
    difference = ours[finite].astype(np.float64) - stored[finite]
    if by_norm and np.linalg.norm(difference) <= limit * np.linalg.norm(stored[finite]):
        return
    errors = np.sort(np.abs(difference))
    error = errors[-1 - int(flipped * errors.size)]
    assert error <= limit * scale, f"{key}: {error / scale:.2e} of its largest entry"


@pytest.mark.parametrize(
    "case", ["sgdj_seis", "sgdj_mri_small", "sgdj_pgd", "sgdj_metrics", "sgdj_mask"]
)
def test_small_files(case):
    check_outputs(case, dict(np.load(SMALL / f"{case}.npz", allow_pickle=False)))


@pytest.mark.parametrize("case", FLOAT64_REPLAY)
def test_full_files(case):
    path = SHARED / f"{case}.npz"
    if not path.exists():
        pytest.skip("the folder of full golden files is not here (JITTER_JAX_GOLDEN names it)")
    check_outputs(case, dict(np.load(path, allow_pickle=False)))


@pytest.mark.parametrize(
    ("case", "key"), [("sgdj_pgd", "seis/l2/delta"), ("sgdj_mask", "n64_acc4_cf04_seed10/mask")]
)
def test_reads_inputs_only(case, key):
    arrays = dict(np.load(SMALL / f"{case}.npz", allow_pickle=False))
    outputs = reproduce(case, {key: value for key, value in arrays.items() if is_input(key)})
    compare(key, outputs[key], arrays[key], FLOAT32[0], {})


def test_unknown_case():
    with pytest.raises(KeyError, match="sgdj_nothing"):
        reproduce("sgdj_nothing", {})
