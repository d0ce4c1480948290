"""DPDNN: one denoiser in every iteration, and weights of data and denoiser of each iteration."""

from functools import partial
from typing import get_args

import numpy as np

from jitter_jax.networks.dpdnn import DPDNNUNet
from jitter_jax.networks.precision import Precision, in_precision
from jitter_jax.unroll import scalar
from jitter_jax.unroll.half_quadratic_gradient import Update, half_quadratic_gradient
from jitter_jax.unroll.iterate import Remat
from jitter_jax.unroll.reconstructor import Reconstructor, unrolled


def dpdnn(
    *,
    num_iterations: int = 6,
    width: int = 64,
    num_scales: int = 4,
    update: Update = "denoising",
    precision: Precision = "default",
    remat: Remat = True,
) -> Reconstructor:
    """Returns DPDNN: `half_quadratic_gradient` from `A^H y` with one U-Net `f` as the denoiser.

    `x_{k+1} = x_k - delta_k A^H (A x_k - y) - beta_k (x_k - f(x_k))`

    with `beta = 1 - delta - eta` for `"denoising"`, and `beta = delta eta` for `"gradient"`. Either
    form learns the U-Net, shared by all iterations, and each iteration's own `delta_k` and `eta_k`,
    which are 0.1 and 0.9 at first. The `"denoising"` form then weighs the U-Net by 0: untrained it
    returns `y` for `A = I`, and its U-Net has no gradient until `delta` and `eta` have moved. In
    the published size and for one channel: 1,363,405 parameters.

    Args:
        num_iterations: `K`, at least 1. `apply` runs this number and no other.
        width: channels of the U-Net.
        num_scales: halvings of the U-Net, at least 1.
        update: the form of the update: `"denoising"`, or `"gradient"`, published for deblurring and
            super-resolution.
        precision: of the products in the networks; see `networks.in_precision`.
        remat: what the backward pass recomputes; see `unroll`.

    Returns:
        A `Reconstructor` whose parameters are `{"network": ..., "delta": (K,), "eta": (K,)}`.

    Raises:
        ValueError: `num_iterations` or `num_scales` is below 1, or `update` or `precision` is
            unknown; when applied, another `num_iterations` is asked for.

    Source: Dong et al., "Denoising prior driven deep neural network for image restoration" (2018),
    and its public code.
    """
    for name, number in (("num_iterations", num_iterations), ("num_scales", num_scales)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if update not in get_args(Update):
        raise ValueError(f"update must be one of {get_args(Update)}, got {update!r}")
    return unrolled(
        partial(half_quadratic_gradient, update=update),
        in_precision(DPDNNUNet(width, num_scales), precision),
        {
            "delta": scalar.free(np.full(num_iterations, 0.1)),
            "eta": scalar.free(np.full(num_iterations, 0.9)),
        },
        num_iterations=num_iterations,
        remat=remat,
    )
