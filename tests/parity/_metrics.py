"""Metrics, normalisation and added details: `sgdj_metrics`."""

from functools import partial

import jax
import numpy as np
from _seismic import normalised
from _weights import Arrays

from jitter_jax import metrics, operators
from jitter_jax.data import add_layer_repo
from jitter_jax.data.shifts import repo_block


def image_metrics(arrays: Arrays) -> Arrays:
    """Returns the outputs of the file of metrics, normalisation and added details."""
    out: Arrays = {}
    for case in ("m1chan", "m1chan_signed", "m2chan"):
        truth, estimate, start = (arrays[f"{case}/{key}"][:, :1] for key in ("X", "Xk", "X0"))
        estimate, start = (np.clip(a, 0, 1) for a in (estimate, start))
        truth = np.clip(truth, 0, 1) if case == "m2chan" else truth
        truth, estimate, start = (np.moveaxis(a, 1, -1) for a in (truth, estimate, start))
        initial, final, similarity = _qualities(start, estimate, truth)
        out |= {
            f"{case}/init_psnr_each": initial,
            f"{case}/recon_psnr_each": final,
            f"{case}/ssim_each": similarity,
            f"{case}/init_psnr": np.mean(initial),
            f"{case}/recon_psnr": np.mean(final),
            f"{case}/delta_psnr": np.mean(final - initial),
            f"{case}/ssim": np.mean(similarity),
        }
    return out | _normalisations(arrays) | _details(arrays)


@jax.jit
def _qualities(start, estimate, truth) -> tuple[jax.Array, jax.Array, jax.Array]:
    psnr = jax.vmap(metrics.psnr)
    ssim = jax.vmap(partial(metrics.ssim, border="reflect"))
    return psnr(start, truth), psnr(estimate, truth), ssim(estimate, truth)


def _normalisations(arrays: Arrays) -> Arrays:
    y, signal, zero_y = (arrays[f"norm/{key}"] for key in ("y", "X", "zero_y"))
    # The operator plays no part in this normalisation.
    plain, guarded = (normalised(operators.identity(), signal, a) for a in (y, zero_y))
    # The peer guards against an all-zero sample only where no truth is given.
    peak = np.abs(zero_y).max(axis=(1, 2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        unguarded_y, unguarded_signal = (a / peak[:, None, None, None] for a in (zero_y, signal))
    minmax = arrays["norm/minmax_in"]
    low, high = minmax.min(axis=(1, 2), keepdims=True), minmax.max(axis=(1, 2), keepdims=True)
    return {
        "norm/maxval": plain.scale,
        "norm/y_out": plain.measurement,
        "norm/X_out": plain.signal,
        "norm/zero_maxval": guarded.scale,
        "norm/zero_y_out": guarded.measurement,
        "norm/zero_with_X_maxval": peak,
        "norm/zero_with_X_y_out": unguarded_y,
        "norm/zero_with_X_X_out": unguarded_signal,
        "norm/minmax_out": (minmax - low) / (high - low),
    }


def _details(arrays: Arrays) -> Arrays:
    change = {
        "mri": _block,
        "mri_clipped": _block,
        "seis": lambda signal: add_layer_repo(signal[0])[None],
        "seis_clipped": lambda signal: add_layer_repo(signal[0])[None],
        "other": _short_block,
    }
    return {
        f"detail/{case}/out": np.stack([change[case](x) for x in arrays[f"detail/{case}/X"]])
        for case in change
        if f"detail/{case}/X" in arrays
    }


def _block(signal: np.ndarray) -> np.ndarray:
    changed = repo_block(signal[0] + 1j * signal[1])
    return np.stack([changed.real, changed.imag])


def _short_block(signal: np.ndarray) -> np.ndarray:
    """What the peer puts into images of any other kind, which this library does not have."""
    changed = signal.copy()
    changed[:, 5, 5:8] = np.maximum(0.7, changed[:, 5, 5:8])
    return changed
