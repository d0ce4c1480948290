"""The loss of SMUG: the denoiser's stability in every unrolled step, and the final error."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax import metrics
from jitter_jax.schemes.lift import Loss
from jitter_jax.unroll import Reconstructor

Target = Literal["denoised_truth", "truth", "denoised_iterate"]


def unrolled_stability(
    reconstructor: Reconstructor,
    *,
    weight: float = 1.0,
    target: Target = "denoised_truth",
    frozen_params: Any = None,
) -> Loss:
    """Returns the loss `sum_n E_w mean |f(x_n + w) - f(t)|^2 + lambda_l mean |H(y) - t|^2`.

    The expectation is over the noise that smooths step `n`, and its samples are those of the
    smoothing itself. The gradient reaches the target `f(t)`, too.

    Args:
        reconstructor: the reconstruction `H`, with smoothed learned steps `f`; the weights of a
            weight network (Weighted SMUG) play a part in `H` alone.
        weight: `lambda_l`, non-negative.
        target: what stands for `f(t)`. `"denoised_truth"`: the published choice. `"truth"`: `t`.
            `"denoised_iterate"`: `f(x_n)`, without noise.
        frozen_params: parameters of a fixed denoiser, of the reconstructor's form, which then makes
            the target in place of `f`; of no use with `"truth"`.

    Returns:
        `loss(params, batch, key) -> (scalar, aux)`; aux has the two parts, `stability` and
        `reconstruction`.

    Raises:
        ValueError: `weight` is negative or not finite, `target` is unknown or needs no frozen
            parameters, or the learned steps are not smoothed functions of the iterate.

    Source: Liang et al., "Robust MRI reconstruction by smoothed unrolling (SMUG)", eq. 7, 8 and 12,
    and the variants of Figure 13.
    """
    if not (np.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight must be finite and non-negative, got {weight}")
    if target not in get_args(Target):
        raise ValueError(f"target must be one of {get_args(Target)}, got {target!r}")
    if frozen_params is not None and target == "truth":
        raise ValueError("target='truth' takes no frozen_params: nothing is denoised")
    learned_step = reconstructor.learned_step
    if reconstructor.smoothing is None or learned_step is None:
        raise ValueError(
            "unrolled stability needs a reconstructor whose learned steps are smoothed and see the "
            "iterate alone"
        )

    def example_loss(params, t, y, operator, key):
        denoise = lambda x: learned_step(params if frozen_params is None else frozen_params, x)
        fixed = {"denoised_truth": lambda: denoise(t), "truth": lambda: t}.get(target)
        reference = None if fixed is None else fixed()

        def probe(denoised, iterate):
            return metrics.mse(denoised, denoise(iterate) if reference is None else reference)

        estimate, gaps = reconstructor.apply(params, operator, y, smoothing_key=key, probe=probe)
        return {"stability": jnp.sum(gaps), "reconstruction": metrics.mse(estimate, t)}

    def loss(params, batch, key):
        parts = batch.lift(lambda *example: example_loss(params, *example), key)
        means = jax.tree.map(jnp.mean, parts)
        return means["stability"] + weight * means["reconstruction"], means

    return loss
