"""From a signal to what is measured of it: y = A x + z, and the scale both are given in."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jitter_jax.operators import LinearOperator

Array = jax.Array
Normalisation = Literal["none", "measurement"]


class Measured(NamedTuple):
    """One signal and its measurement in the same, normalised unit.

    Attributes:
        signal: truth `x / scale`.
        measurement: `y / scale`.
        scale: what both were divided by, scalar: an estimate times `scale` is in the input's
            unit.
    """

    signal: Array
    measurement: Array
    scale: Array


def measure(
    operator: LinearOperator,
    signal: Array,
    key: Array,
    *,
    noise_std: float,
    normalisation: Normalisation = "none",
) -> Measured:
    """Measure one signal: `y = A x + noise_std * z` with standard normal `z`.

    Args:
        operator: the operator A.
        signal: truth x, real.
        key: PRNG key of the noise.
        noise_std: standard deviation of the noise in the unit of y, before normalisation.
        normalisation: see `normalise`.
    """
    clean = operator.forward(signal)
    noisy = clean + noise_std * jax.random.normal(key, clean.shape, clean.dtype)
    return normalise(signal, noisy, normalisation)


def normalise(signal: Array, measurement: Array, normalisation: Normalisation) -> Measured:
    """Divide a signal and its measurement by one number, taken from the measurement alone.

    Args:
        signal: truth x.
        measurement: y.
        normalisation: `"measurement"` divides by max |y| (by 1 if y is zero), as the public code
            of "SGD Jittering" does for seismic data; `"none"` divides by 1.

    Raises:
        ValueError: `normalisation` is unknown.
    """
    if normalisation not in ("none", "measurement"):
        raise ValueError(
            f"normalisation={normalisation!r} is not accepted: 'none' or 'measurement' is expected"
        )
    scale = jnp.ones((), measurement.dtype)
    if normalisation == "measurement":
        peak = jnp.max(jnp.abs(measurement))
        scale = jnp.where(peak > 0, peak, 1)
    return Measured(signal / scale, measurement / scale, scale)
