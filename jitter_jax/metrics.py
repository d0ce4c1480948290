"""Image quality of one reconstructed signal.

Every function takes the estimate first and the truth second, `(height, width, channels)` real
arrays of the same shape (any shape where said), and returns a scalar. Nothing is clamped or
rescaled: what has to be, is for the caller to do and to say.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Array = jax.Array

Definition = dict[str, str | float | None]

_SSIM_WINDOW = {"gaussian": 11, "uniform": 7}


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
    return _decibels(mse(estimate, truth), peak)


def _decibels(error: Array, peak: ArrayLike) -> Array:
    return 20 * jnp.log10(peak) - 10 * jnp.log10(error)


def ssim(
    estimate: Array,
    truth: Array,
    *,
    data_range: Any = 1.0,
    border: Literal["valid", "reflect"] = "valid",
    window: Literal["gaussian", "uniform"] = "gaussian",
) -> Array:
    """Returns the structural similarity, at most 1.

    `k1 = 0.01`, `k2 = 0.03`, mean over window positions and channels.

    Args:
        estimate: the reconstruction, `(height, width, channels)`, no smaller than the window.
        truth: the true signal.
        data_range: distance between the smallest and the largest possible value, positive.
        border: `"valid"` averages over the positions where the window lies inside the image;
            `"reflect"` over all pixels, with the images mirrored at their border, as torchmetrics
            does.
        window: `"gaussian"`, 11x11 pixels of standard deviation 1.5; or `"uniform"`, 7x7 pixels
            with sample covariances, as scikit-image and fastMRI have it.

    Raises:
        ValueError: the image is smaller than the window, or a choice is unknown.

    Source: Wang et al. (2004).
    """
    if window not in _SSIM_WINDOW:
        raise ValueError(f"window must be one of {tuple(_SSIM_WINDOW)}, got {window!r}")
    size = _SSIM_WINDOW[window]
    if min(estimate.shape[:2]) < size:
        raise ValueError(
            f"ssim needs an image of at least {size}x{size} pixels, got {estimate.shape}"
        )
    if border not in ("valid", "reflect"):
        raise ValueError(f"border must be 'valid' or 'reflect', got {border!r}")
    if border == "reflect":
        margin = size // 2
        widths = ((margin, margin), (margin, margin), (0, 0))
        estimate, truth = (jnp.pad(a, widths, mode="reflect") for a in (estimate, truth))
    import dm_pix

    if window == "gaussian":
        return dm_pix.ssim(estimate, truth, max_val=data_range, filter_size=size)
    # Sample covariances are size^2 / (size^2 - 1) times the plain ones. SSIM is a ratio of sums of
    # covariances and (k2 data_range)^2, so dividing that constant by the factor does the same.
    k2 = 0.03 * np.sqrt(1 - 1 / size**2)
    return dm_pix.ssim(estimate, truth, max_val=data_range, k2=k2, filter_fn=_moving_mean)


def _moving_mean(x: Array) -> Array:
    size = _SSIM_WINDOW["uniform"]
    sums = jax.lax.reduce_window(x, 0.0, jax.lax.add, (size, size, 1), (1, 1, 1), "VALID")
    return sums / size**2


_SSIM_DESCRIPTION = {
    "gaussian": "Gaussian window 11x11 of standard deviation 1.5",
    "uniform": "uniform window 7x7, sample covariances",
}


class Metric(NamedTuple):
    """A metric with its definition, which is stored beside every number it gives.

    A metric is a function of means: of one signal's, or of those of several signals that count as
    one volume. So the PSNR of a volume comes from the mean squared error over its slices, and is
    not the mean of their PSNRs.

    Attributes:
        statistics: `(estimate, truth, volume_peak, scale) -> (k,)` of one signal. `scale` is what
            signal and measurement were divided by; `volume_peak` is the largest magnitude, before
            that division, in the volume that the signal is a slice of.
        value: `(k,) -> scalar`, the metric of such statistics or of their mean over a volume.
        definition: formula and settings, as JSON values.
    """

    statistics: Callable[[Array, Array, Array, Array], Array]
    value: Callable[[Array], Array]
    definition: Definition

    def function(
        self,
        estimate: Array,
        truth: Array,
        volume_peak: ArrayLike | None = None,
        scale: ArrayLike = 1.0,
    ) -> Array:
        """Returns the metric of one signal; without `volume_peak` it is a volume by itself."""
        scale = jnp.asarray(scale, truth.real.dtype)
        peak = scale * jnp.max(jnp.abs(truth)) if volume_peak is None else jnp.asarray(volume_peak)
        return self.value(self.statistics(estimate, truth, peak, scale))


METRICS = ("psnr", "ssim", "mse", "nmse", "risk")
HIGHER_IS_BETTER = ("psnr", "ssim")
Part = Literal["all", "magnitude", "first_channel"]
FullScale = Literal["fixed", "signal", "volume"]
Per = Literal["signal", "volume"]


def make_metrics(
    names: Sequence[str],
    *,
    peak: float = 1.0,
    data_range: float = 1.0,
    part: Part = "all",
    full_scale: FullScale = "fixed",
    per: Per = "signal",
    ssim_window: Literal["gaussian", "uniform"] = "gaussian",
) -> dict[str, Metric]:
    """Returns the named metrics, in the order given.

    Args:
        names: of `METRICS`.
        peak: full scale of the PSNR, where `full_scale` is fixed.
        data_range: dynamic range of the SSIM, likewise.
        part: what of estimate and truth is compared: `"all"` of it (SSIM takes real and imaginary
            part for two channels), its `"magnitude"`, or its `"first_channel"` (the real part of
            complex signals), as the public code of SGD jittering does for images.
        full_scale: full scale of PSNR and SSIM: `"fixed"`, for signals in their normalised unit;
            the largest magnitude of each true `"signal"`, or of the `"volume"` it belongs to, as
            fastMRI has it, for signals in the unit they had before they were normalised.
        per: whether statistics are averaged over each `"volume"` before a metric is computed, or a
            metric is computed of each `"signal"`. Stated in the definition; the average is taken
            by `values_per`.
        ssim_window: see `ssim`.

    Raises:
        ValueError: an unknown name or choice, a scale that is not positive, or another full scale
            than the volume's for metrics of each volume.
    """
    for name, scale in (("peak", peak), ("data_range", data_range)):
        if not scale > 0:
            raise ValueError(f"metrics.{name} must be positive, got {scale}")
    choices = (
        ("part", part, get_args(Part)),
        ("full_scale", full_scale, get_args(FullScale)),
        ("per", per, get_args(Per)),
        ("ssim_window", ssim_window, tuple(_SSIM_WINDOW)),
    )
    for name, choice, accepted in choices:
        if choice not in accepted:
            raise ValueError(f"metrics.{name} must be one of {accepted}, got {choice!r}")
    if per == "volume" and full_scale != "volume":
        raise ValueError(
            f"metrics.full_scale={full_scale!r} is not accepted with metrics.per='volume': slices "
            "are normalised one by one, so their mean needs the unit and full scale of the 'volume'"
        )

    def compared(function):
        def statistics(estimate: Array, truth: Array, volume_peak: Array, scale: Array) -> Array:
            fixed = full_scale == "fixed"
            if not fixed:
                estimate, truth = scale * estimate, scale * truth
            largest = jnp.max(jnp.abs(truth)) if full_scale == "signal" else volume_peak
            values = function(
                _part(estimate, part),
                _part(truth, part),
                peak if fixed else largest,
                data_range if fixed else largest,
            )
            return jnp.stack([jnp.asarray(value, jnp.result_type(float)) for value in values])

        return statistics

    def settings(name: str, scale: float) -> Definition:
        return {name: scale if full_scale == "fixed" else f"largest magnitude of the {full_scale}"}

    def metric(formula: str, function, value=lambda statistics: statistics[0], **more) -> Metric:
        unit_of_signals = "normalised" if full_scale == "fixed" else "before normalisation"
        common: Definition = {
            "channel": part,
            "clamp": None,
            "per": per,
            "signals": unit_of_signals,
        }
        return Metric(compared(function), value, {"formula": formula} | more | common)

    of_each = f"of each {per}"
    known = {
        "psnr": metric(
            f"10 log10(peak^2 / mse), {of_each}",
            lambda a, b, peak, _: (mse(a, b), peak),
            lambda statistics: _decibels(*statistics),
            unit="dB",
            **settings("peak", peak),
        ),
        "ssim": metric(
            f"SSIM, {_SSIM_DESCRIPTION[ssim_window]}, valid positions",
            lambda a, b, _, scale: (
                ssim(_channels(a), _channels(b), data_range=scale, window=ssim_window),
            ),
            k1=0.01,
            k2=0.03,
            **settings("data_range", data_range),
        ),
        "mse": metric(f"mean |estimate - truth|^2, {of_each}", lambda a, b, *_: (mse(a, b),)),
        "nmse": metric(
            f"||estimate - truth||^2 / ||truth||^2, {of_each}",
            lambda a, b, *_: (risk(a, b), risk(jnp.zeros_like(b), b)),
            lambda statistics: statistics[0] / statistics[1],
        ),
        "risk": metric("||estimate - truth||_2^2, of each signal", lambda a, b, *_: (risk(a, b),)),
    }
    for name in names:
        if name not in known:
            raise ValueError(f"metric must be one of {METRICS}, got {name!r}")
    return {name: known[name] for name in names}


def _part(x: Array, part: Part) -> Array:
    return {"all": x, "magnitude": jnp.abs(x), "first_channel": x[..., :1].real}[part]


def _channels(x: Array) -> Array:
    return jnp.concatenate([x.real, x.imag], -1) if jnp.iscomplexobj(x) else x


def values_per(
    metric: Metric, statistics: np.ndarray, volume: np.ndarray, per: Per = "signal"
) -> np.ndarray:
    """Returns a metric of every signal or of every volume, averaged over draws.

    Args:
        metric: from `make_metrics`.
        statistics: of every signal and every draw of a random attack, `(signals, draws, k)`.
        volume: `(signals,)` int, the volume that each signal belongs to.
        per: see `make_metrics`. With `"volume"` statistics are averaged over the signals of a
            volume first.

    Returns:
        `(signals,)`, or `(volumes,)` in the order of their numbers.
    """
    if per == "volume":
        members = [statistics[volume == number] for number in np.unique(volume)]
        statistics = np.stack([part.mean(0) for part in members])
    values = jax.vmap(jax.vmap(metric.value))(jnp.asarray(statistics))
    return np.asarray(values).mean(1)
