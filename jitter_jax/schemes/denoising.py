"""Pre-training of a denoiser: the learned step alone, on noisy truths."""

from jitter_jax import metrics
from jitter_jax.schemes.lift import Loss, batched
from jitter_jax.smoothing import Smoothing, monte_carlo
from jitter_jax.unroll import Reconstructor


def denoising(reconstructor: Reconstructor, smoothing: Smoothing) -> Loss:
    """Returns the loss `E_t E_w mean |f(t + w) - t|^2` of the learned step `f` and truths `t`.

    It trains the network of a reconstructor by itself; the other parameters get no gradient.

    Args:
        reconstructor: whose learned step is trained.
        smoothing: the noise `w`, and how many draws of it are averaged.

    Returns:
        `loss(params, batch, key) -> (scalar, aux)`.

    Raises:
        ValueError: the learned step also sees the measurement.

    Source: Liang et al., "Robust MRI reconstruction by smoothed unrolling (SMUG)", eq. 6.
    """
    learned_step = reconstructor.learned_step
    if learned_step is None:
        raise ValueError("a learned step that sees the measurement is no denoiser by itself")

    def example_loss(params, x, y, operator, key):
        del y, operator

        def draw(key):
            return metrics.mse(learned_step(params, smoothing.perturb(key, x)), x)

        return monte_carlo(draw, key, num_samples=smoothing.num_samples, chunk=smoothing.chunk)

    return batched(example_loss)
