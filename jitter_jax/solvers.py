"""Solutions of the regularised normal equations `(A^H A + lambda I) x = b`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jitter_jax.operators import centred_fft2, centred_ifft2

Array = jax.Array


def solve_cartesian_mri(mask: ArrayLike, b: Array, *, regularisation: ArrayLike) -> Array:
    """Returns `(A^H A + lambda I)^-1 b` in closed form, for `A` of `operators.cartesian_mri(mask)`.

    `A^H A = F^H M F` is diagonal in k-space: the inverse is `F^H (M + lambda)^-1 F`.

    Args:
        mask: as for `cartesian_mri`.
        b: image, `(height, width, channels)`, complex.
        regularisation: `lambda`, positive scalar; may be traced.

    Raises:
        ValueError: a `regularisation` known here is not positive.
    """
    if isinstance(regularisation, int | float | np.number) and not regularisation > 0:
        raise ValueError(f"regularisation must be positive, got {regularisation}")
    divisor = (jnp.asarray(mask) != 0).astype(b.real.dtype) + regularisation
    return centred_ifft2(centred_fft2(b) / divisor[:, :, None])
