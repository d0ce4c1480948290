"""The centred orthonormal Fourier transform of images: zero frequency at index `n // 2`."""

import jax
import jax.numpy as jnp

Array = jax.Array

_AXES = (0, 1)


def centred_fft2(x: Array) -> Array:
    """Returns `F x`, the unitary transform over the first two axes, centred on both sides.

    `(F x)[k] = (1 / sqrt(n)) sum_j x[j] exp(-2 pi i (k - c) (j - c) / n)` with `c = n // 2` along
    each of the two axes.

    Args:
        x: `(height, width, ...)`, complex or real.
    """
    shifted = jnp.fft.ifftshift(x, _AXES)
    return jnp.fft.fftshift(jnp.fft.fft2(shifted, axes=_AXES, norm="ortho"), _AXES)


def centred_ifft2(k: Array) -> Array:
    """Returns `F^H k = F^-1 k`, the inverse of `centred_fft2`.

    Args:
        k: `(height, width, ...)`, complex or real.
    """
    shifted = jnp.fft.ifftshift(k, _AXES)
    return jnp.fft.fftshift(jnp.fft.ifft2(shifted, axes=_AXES, norm="ortho"), _AXES)
