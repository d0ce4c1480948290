"""Convolution of every trace with one wavelet: the forward model of seismic deconvolution."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jitter_jax.operators.dense import matrix_product
from jitter_jax.operators.linear_operator import LinearOperator

Array = jax.Array

# Up to this many samples the (length, length) Toeplitz matrix is small and a matrix product beats
# both XLA's convolution and an FFT on CPU; beyond it the matrix would cost memory quadratically.
_LONGEST_MATRIX = 1024


def ricker(num_points: int = 51, width: float = 4.0) -> np.ndarray:
    """Returns the Ricker wavelet with its largest value scaled to 1.

    `w(t) = (1 - (t / width)^2) exp(-(t / width)^2 / 2)` at
    `t = -(num_points - 1) / 2, ..., (num_points - 1) / 2`.

    Args:
        num_points: number of samples, at least 1.
        width: distance of the zero crossings from the centre, in samples, positive.

    Returns:
        `(num_points,)` float32.

    Raises:
        ValueError: an argument is out of range.
    """
    if num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}")
    if not width > 0:
        raise ValueError(f"width must be positive, got {width}")
    t = (np.arange(num_points) - (num_points - 1) / 2) / width
    wavelet = (1 - t**2) * np.exp(-(t**2) / 2)
    return (wavelet / wavelet.max()).astype(np.float32)


def convolution(wavelet: ArrayLike | None = None) -> LinearOperator:
    """Returns the `same` convolution with a wavelet along the first (time) axis.

    `(A x)[i] = sum_j wavelet[i - j + c] x[j]` with `c = (len(wavelet) - 1) // 2`: the central part,
    as long as `x`, of the full convolution with zeros outside. The adjoint is exact for odd and
    even wavelets, whether longer or shorter than the signal.

    Args:
        wavelet: `(taps,)`, real or complex; `ricker(51, 4)` if not given. A wavelet for each signal
            is `jax.vmap(convolution)(wavelets)`.

    Returns:
        An operator from `(time, ...)` to `(time, ...)`, for any number of samples.

    Raises:
        ValueError: `wavelet` is not one non-empty vector.
    """
    wavelet = jnp.asarray(ricker() if wavelet is None else wavelet)
    if wavelet.ndim != 1 or wavelet.size == 0:
        raise ValueError(f"wavelet must have shape (taps,) with taps >= 1, got {wavelet.shape}")
    return LinearOperator(_convolve, _correlate, wavelet)


def _convolve(wavelet: Array, x: Array) -> Array:
    if x.shape[0] <= _LONGEST_MATRIX:
        return matrix_product(convolution_matrix(wavelet, x.shape[0]), x)
    return _fft_convolve(wavelet, x, (wavelet.shape[0] - 1) // 2)


def _correlate(wavelet: Array, y: Array) -> Array:
    if y.shape[0] <= _LONGEST_MATRIX:
        return matrix_product(convolution_matrix(wavelet, y.shape[0]).conj().T, y)
    # The adjoint of a convolution is the convolution with the wavelet reversed and conjugated,
    # whose centre is counted from its other end.
    return _fft_convolve(wavelet[::-1].conj(), y, wavelet.shape[0] // 2)


def convolution_matrix(wavelet: Array, length: int) -> Array:
    """Returns the `(length, length)` Toeplitz matrix of `convolution(wavelet)`."""
    taps = wavelet.shape[0]
    position = jnp.arange(length)
    tap = position[:, None] - position[None, :] + (taps - 1) // 2
    inside = (tap >= 0) & (tap < taps)
    return jnp.where(inside, wavelet[jnp.clip(tap, 0, taps - 1)], 0)


def _fft_convolve(wavelet: Array, x: Array, centre: int) -> Array:
    length = x.shape[0]
    full = length + wavelet.shape[0] - 1
    wavelet = wavelet.astype(jnp.result_type(wavelet, x))
    is_complex = jnp.iscomplexobj(wavelet)
    transform, inverse = (
        (jnp.fft.fft, jnp.fft.ifft) if is_complex else (jnp.fft.rfft, jnp.fft.irfft)
    )
    spectrum = transform(wavelet, full).reshape(-1, *[1] * (x.ndim - 1))
    convolved = inverse(spectrum * transform(x, full, axis=0), full, axis=0)
    return convolved[centre : centre + length]
