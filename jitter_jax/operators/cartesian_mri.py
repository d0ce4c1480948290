"""Single-coil Cartesian magnetic resonance imaging: a masked Fourier transform."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jitter_jax.operators.fourier import centred_fft2, centred_ifft2
from jitter_jax.operators.linear_operator import LinearOperator

Array = jax.Array


def cartesian_mri(mask: ArrayLike) -> LinearOperator:
    """Returns `A = M F`: the centred orthonormal Fourier transform, zero where nothing is sampled.

    `A^H = F^H M`, and `A A^H = M`. The measurement keeps the shape of the image, so that one
    compiled program serves every mask; `support()` tells the samples from the zeros beside them.

    Args:
        mask: `(height, width)` bool, True where k-space is sampled, zero frequency at `n // 2`;
            numbers count as True unless zero. A side of 1 stands for whole lines: `(1, width)`
            keeps columns, `(height, 1)` rows. A mask for each signal is
            `jax.vmap(cartesian_mri)(masks)`.

    Returns:
        An operator from images `(height, width, channels)`, complex, to k-space of the same shape.

    Raises:
        ValueError: `mask` does not have two axes.
    """
    return LinearOperator(_sample, _fill, _checked(mask), support_function=_samples)


def cartesian_mri_repo(mask: ArrayLike) -> LinearOperator:
    """Returns the reading of the public code: `A = M F` with the maskless "adjoint" `F^H`.

    It is not the adjoint of `A` (`dot_test` fails), and measurements are taken to exist everywhere
    in k-space: noise and attacks on points that no scanner sampled enter the reconstruction. For
    comparison with published numbers only.

    Args:
        mask: as for `cartesian_mri`.

    Source: `cartesianSingleCoilMRI` in the public code of Guan and Davenport (2024).
    """
    return LinearOperator(_sample, _inverse, _checked(mask))


def _checked(mask: ArrayLike) -> Array:
    mask = jnp.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"mask must have shape (height, width), got {mask.shape}")
    return mask != 0


def _samples(mask: Array) -> Array:
    return mask[:, :, None]


def _sample(mask: Array, x: Array) -> Array:
    return jnp.where(mask[:, :, None], centred_fft2(x), 0)


def _fill(mask: Array, k: Array) -> Array:
    return centred_ifft2(jnp.where(mask[:, :, None], k, 0))


def _inverse(mask: Array, k: Array) -> Array:
    del mask
    return centred_ifft2(k)
