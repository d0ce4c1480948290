"""Runs this library in its `repo` readings on the inputs of a golden file.

A golden file holds inputs, weights, settings and recorded noises of one of the authors' own PyTorch
modules, and the outputs that module gave. `reproduce` computes every output again from the inputs.
Each problem has a module here; `_runs` and `_weights` hold what they
share.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

# Loaded by its path, from anywhere, this file still finds the modules beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _attack import attack
from _certify import certify
from _didn import didn
from _ista_net import ista_net_pp, ista_net_pp_published
from _masks import masks, smug_masks
from _metrics import image_metrics
from _mri import mri
from _seismic import seismic
from _smug_modl import smug_metrics, smug_modl
from _weights import Arrays

_CASES: dict[str, Callable[[Arrays], Arrays]] = {
    "sgdj_seis": seismic,
    "sgdj_seis_352": seismic,
    "sgdj_mri_small": mri,
    "sgdj_mri_64": mri,
    "sgdj_mri_320": partial(mri, out_every=8),
    "sgdj_pgd": attack,
    "sgdj_metrics": image_metrics,
    "sgdj_mask": masks,
    "smug_didn": didn,
    "smug_mask_metrics": lambda arrays: smug_masks(arrays) | smug_metrics(arrays),
    "smug_modl": smug_modl,
    "ista_netpp": ista_net_pp,
    "ista_netpp_published": ista_net_pp_published,
    "certify": certify,
}

_PRECISIONS = {"": np.float32, "f64/": np.float64}
# Rounded inputs would move ranks.
_DOUBLES = ("certify",)


def reproduce(case: str, arrays: Arrays, *, prefixes: Sequence[str] = tuple(_PRECISIONS)) -> Arrays:
    """Returns every output of the golden file `case`, by its golden key.

    Each output is computed in float32 under its own key and in float64 under `f64/<key>`, those of
    `certify` in float64 under both. Only inputs, weights, settings and recorded noises are read
    from `arrays`; `ista_netpp_published` holds neither weights nor matrix, which are read from
    where JITTER_JAX_WEIGHTS and JITTER_JAX_GOLDEN say, or beside the checkout.

    Args:
        case: name of the golden file, without suffix.
        arrays: what the file holds.
        prefixes: of the keys that are wanted.

    Raises:
        KeyError: no such case, or an input is missing.
        FileNotFoundError: one of those other files is not there.
    """
    if case not in _CASES:
        raise KeyError(f"case must be one of {sorted(_CASES)}, got {case!r}")
    outputs = {}
    for prefix in prefixes:
        dtype = np.float64 if case in _DOUBLES else _PRECISIONS[prefix]
        with jax.enable_x64(dtype == np.float64):
            inputs = {
                key: value.astype(dtype) if value.dtype.kind == "f" else value
                for key, value in arrays.items()
            }
            for key, value in _CASES[case](inputs).items():
                outputs[prefix + key] = np.asarray(value)
    return outputs
