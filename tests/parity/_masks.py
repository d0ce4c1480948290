"""Masks: `sgdj_mask`, and those in `smug_mask_metrics`."""

import re
from typing import Any

import numpy as np
from _weights import Arrays

from jitter_jax import sampling

# The cases of the file: `n<lines>_acc<acceleration>_cf<percent>_seed<seed>`.
_PUBLISHED = [f"n{n}_acc{a}_cf04_seed10" for n in (320, 256, 64) for a in (4, 8)]


# The cases of SMUG's file: lines, acceleration, seed.
_SMUG = [(320, 2, 2320), (320, 4, 4320), (320, 8, 8320), (368, 6, 6368), (96, 4, 5)]


def smug_masks(arrays: Arrays) -> Arrays:
    """Returns the masks of the file of SMUG's masks and metrics."""
    del arrays
    return {
        f"vdrs/ny{n}_acc{acceleration}_seed{seed}": sampling.vdrs_lines_repo(
            (1, n), acceleration, seed=seed
        )
        .array[0]
        .astype(np.uint8)
        for n, acceleration, seed in _SMUG
    }


def masks(arrays: Arrays) -> Arrays:
    """Returns the outputs of the file of masks, whose keys hold all its settings."""
    out: Arrays = {}
    for case in dict.fromkeys(key.partition("/")[0] for key in arrays) or _PUBLISHED:
        out |= {f"{case}/{key}": value for key, value in _mask(case).items()}
    return out


def _mask(case: str) -> dict[str, Any]:
    found = re.fullmatch(r"n(\d+)_acc(\d+)_cf(\d+)_seed(\d+)", case)
    assert found is not None, case
    num_lines, acceleration, percent, seed = (int(number) for number in found.groups())
    mask = sampling.gaussian_lines(
        (num_lines, num_lines), acceleration, seed=seed, center_fraction=percent / 100, axis=0
    )
    number = round(num_lines * percent / 100)
    first = (num_lines - number + 1) // 2
    return {
        "mask": mask.array[:, 0].astype(np.uint8),
        # The peer's masks broadcast to (height, width, 2).
        "shape": (1, num_lines, 1),
        "lines": mask.array[:, 0].sum(),
        "actual_acceleration": mask.acceleration,
        "centre": (first, first + number),
    }
