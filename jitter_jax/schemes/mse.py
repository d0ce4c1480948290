"""Ordinary training: the mean squared error."""

from jitter_jax import metrics
from jitter_jax.schemes.lift import Loss, batched
from jitter_jax.unroll import Reconstructor


def mse(reconstructor: Reconstructor) -> Loss:
    """Returns the loss `E mean |x - H(y)|^2`.

    Args:
        reconstructor: the reconstruction `H`; a smoothed one is trained as it is, by its average.

    Returns:
        `loss(params, batch, key) -> (scalar, aux)`.

    Source: Guan and Davenport (2024), eq. 4.
    """

    def example_loss(params, x, y, operator, key):
        return metrics.mse(reconstructor.apply(params, operator, y, smoothing_key=key), x)

    return batched(example_loss)
