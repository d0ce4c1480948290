"""SMUG's masks against the arrays that the authors' own function produced.

`tests/golden/smug_masks.npz` has all of them; the file `smug_mask_metrics` they are from, beside
the checkout, has metrics as well.
"""

from pathlib import Path

import numpy as np
from adapter import reproduce

SMALL = Path(__file__).resolve().parents[1] / "golden" / "smug_masks.npz"


def test_smugs_masks():
    golden = dict(np.load(SMALL, allow_pickle=False))
    outputs = reproduce("smug_mask_metrics", {})
    assert len(golden) == 5
    for key, lines in golden.items():
        np.testing.assert_array_equal(outputs[key], lines, strict=True)
