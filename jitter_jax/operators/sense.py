"""Multi-coil Cartesian magnetic resonance imaging: one image seen by several coils."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jitter_jax.coil_maps import check_unit
from jitter_jax.operators.cartesian_mri import cartesian_mri
from jitter_jax.operators.linear_operator import LinearOperator, compose

Array = jax.Array


def sense(mask: ArrayLike, maps: ArrayLike) -> LinearOperator:
    """Returns `A = M F S`: coil `c` measures `M F (s_c x)`.

    `A^H y = sum_c conj(s_c) F^H M y_c`. With `sum_c |s_c|^2 = 1`, which is required, `S^H S = I`
    and `||A|| <= 1`. The measurement has the shape of the maps, with zeros where nothing is
    sampled; `support()` broadcasts along the coils.

    Args:
        mask: `(height, width)` as for `cartesian_mri`; a side of 1 stands for whole lines.
        maps: sensitivities `s_c` of the coils, `(height, width, coils)`, complex, with unit sum of
            squares; all coils may be zero outside the object. See `normalise_maps`. A mask and maps
            for each signal are `jax.vmap(sense)(masks, maps)`.

    Returns:
        An operator from images `(height, width, 1)`, complex, to k-space `(height, width, coils)`.
        It raises ValueError for images or measurements of another shape.

    Raises:
        ValueError: `mask` does not have two axes or `maps` three, `maps` is not complex, or the two
            do not fit each other; or the sum of squares of `maps` is not one. The last is about
            values, which nobody can see under `jit`, `vmap` or `grad` of the maps: there, check
            the maps before.

    Source: Pruessmann et al., "SENSE: sensitivity encoding for fast MRI" (1999).
    """
    sampling = cartesian_mri(mask)
    given, maps = maps, jnp.asarray(maps)
    if maps.ndim != 3 or not jnp.iscomplexobj(maps):
        raise ValueError(
            "maps must be complex of shape (height, width, coils), "
            f"got {maps.dtype} of shape {maps.shape}"
        )
    sides = sampling.leaves.shape
    if any(side not in (1, size) for side, size in zip(sides, maps.shape[:2], strict=True)):
        raise ValueError(f"mask of shape {sides} does not fit maps of shape {maps.shape}")
    if not isinstance(given, jax.core.Tracer):
        # In NumPy: under jit even constants are traced by jax.numpy.
        check_unit(np.asarray(given))
    return compose(sampling, LinearOperator(_expand, _combine, maps))


def normalise_maps(maps: ArrayLike) -> Array:
    """Returns `s_c / sqrt(sum_c |s_c|^2)`, coil maps with unit sum of squares.

    Args:
        maps: `(..., coils)`, real or complex. Where all coils are zero they stay zero.
    """
    maps = jnp.asarray(maps)
    power = jnp.sum(jnp.abs(maps) ** 2, axis=-1, keepdims=True)
    return maps / jnp.sqrt(jnp.where(power > 0, power, 1))


def _expand(maps: Array, x: Array) -> Array:
    # Any other shape could broadcast silently.
    if x.shape != (*maps.shape[:2], 1):
        raise ValueError(f"image must have shape {(*maps.shape[:2], 1)}, got {x.shape}")
    return maps * x


def _combine(maps: Array, coil_images: Array) -> Array:
    if coil_images.shape != maps.shape:
        raise ValueError(
            f"measurement must have the shape of the maps, {maps.shape}, got {coil_images.shape}"
        )
    return jnp.sum(maps.conj() * coil_images, axis=-1, keepdims=True)
