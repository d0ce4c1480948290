"""Image quality of one reconstructed signal.

Every function takes the estimate first and the truth second, `(height, width, channels)` real
arrays of the same shape (any shape where said), and returns a scalar. Nothing is clamped or
rescaled: what has to be, is for the caller to do and to say.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Array = jax.Array

_SSIM_WINDOW = 11


def mse(estimate: Array, truth: Array) -> Array:
    """Returns the mean squared error `mean |estimate - truth|^2`, any shape, real or complex."""
    return jnp.mean(_squared_modulus(estimate - truth))


def risk(estimate: Array, truth: Array) -> Array:
    """Returns the squared error `||estimate - truth||_2^2`, any shape, real or complex.

    Its mean over examples is the risk of the papers.
    """
    return jnp.sum(_squared_modulus(estimate - truth))


def nmse(estimate: Array, truth: Array) -> Array:
    """Returns `||estimate - truth||^2 / ||truth||^2`, any shape; not finite for a zero truth."""
    return risk(estimate, truth) / jnp.sum(_squared_modulus(truth))


def _squared_modulus(x: Array) -> Array:
    # |x|^2 by its parts: the derivative of jnp.abs is not finite at zero.
    return jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)


def psnr(estimate: Array, truth: Array, *, peak: ArrayLike = 1.0) -> Array:
    """Returns the peak signal-to-noise ratio `10 log10(peak^2 / mse)` in decibels, any shape.

    Args:
        estimate: the reconstruction.
        truth: the true signal.
        peak: value that counts as full scale, positive. 1 is the papers' choice for normalised
            signals.
    """
    return 20 * jnp.log10(peak) - 10 * jnp.log10(mse(estimate, truth))


def ssim(
    estimate: Array,
    truth: Array,
    *,
    data_range: float = 1.0,
    border: Literal["valid", "reflect"] = "valid",
) -> Array:
    """Returns the structural similarity, at most 1.

    Gaussian window of 11x11 pixels and standard deviation 1.5, `k1 = 0.01`, `k2 = 0.03`, mean over
    window positions and channels.

    Args:
        estimate: the reconstruction, `(height, width, channels)`, at least 11x11.
        truth: the true signal.
        data_range: distance between the smallest and the largest possible value, positive.
        border: `"valid"` averages over the positions where the window lies inside the image;
            `"reflect"` over all pixels, with the images mirrored at their border, as torchmetrics
            does.

    Raises:
        ValueError: the image is smaller than the window or `border` is unknown.

    Source: Wang et al. (2004).
    """
    if min(estimate.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(
            f"ssim needs an image of at least {_SSIM_WINDOW}x{_SSIM_WINDOW} pixels, "
            f"got {estimate.shape}"
        )
    if border not in ("valid", "reflect"):
        raise ValueError(f"border must be 'valid' or 'reflect', got {border!r}")
    if border == "reflect":
        margin = _SSIM_WINDOW // 2
        widths = ((margin, margin), (margin, margin), (0, 0))
        estimate, truth = (jnp.pad(a, widths, mode="reflect") for a in (estimate, truth))
    import dm_pix

    return dm_pix.ssim(estimate, truth, max_val=data_range, filter_size=_SSIM_WINDOW)


class Metric(NamedTuple):
    """A metric with its definition, which is stored beside every number it gives.

    Attributes:
        function: `(estimate, truth) -> scalar` of one signal.
        definition: formula and settings, as JSON values.
    """

    function: Callable[[Array, Array], Array]
    definition: dict[str, str | float | None]


METRICS = ("psnr", "ssim", "mse", "nmse", "risk")
HIGHER_IS_BETTER = ("psnr", "ssim")


def make_metrics(
    names: Sequence[str], *, peak: float = 1.0, data_range: float = 1.0
) -> dict[str, Metric]:
    """Returns the named metrics, in the order given.

    Args:
        names: of `METRICS`.
        peak: full scale of the PSNR.
        data_range: dynamic range of the SSIM.

    Raises:
        ValueError: an unknown name, or a scale that is not positive.
    """
    for name, value in (("peak", peak), ("data_range", data_range)):
        if not value > 0:
            raise ValueError(f"metrics.{name} must be positive, got {value}")
    common: dict[str, str | float | None] = {"channel": "all", "clamp": None}
    known = {
        "psnr": Metric(
            partial(psnr, peak=peak),
            {"formula": "10 log10(peak^2 / mse), of each signal", "unit": "dB", "peak": peak},
        ),
        "ssim": Metric(
            partial(ssim, data_range=data_range),
            {
                "formula": "SSIM, Gaussian window 11x11 of standard deviation 1.5, valid positions",
                "data_range": data_range,
                "k1": 0.01,
                "k2": 0.03,
            },
        ),
        "mse": Metric(mse, {"formula": "mean (estimate - truth)^2, of each signal"}),
        "nmse": Metric(nmse, {"formula": "||estimate - truth||^2 / ||truth||^2, of each signal"}),
        "risk": Metric(risk, {"formula": "||estimate - truth||_2^2, of each signal"}),
    }
    for name in names:
        if name not in known:
            raise ValueError(f"metric must be one of {METRICS}, got {name!r}")
    return {
        name: known[name]._replace(definition=known[name].definition | common) for name in names
    }
