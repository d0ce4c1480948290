"""SGD jittering: noise in every iteration of the unrolled network while it trains."""

from jitter_jax import metrics
from jitter_jax.keys import subkey
from jitter_jax.schemes.lift import Loss, batched
from jitter_jax.unroll import Jitter, Reconstructor


def sgd_jitter(reconstructor: Reconstructor, jitter: Jitter) -> Loss:
    """Returns the loss `E mean |x - H(y; w_1, ..., w_K)|^2`, the expectation over the jitter too.

    With a reconstructor unrolled by `gradient_descent` this is SGD jittering, with
    `proximal_gradient` SPGD jittering. One draw an example and a step. Validation and deployment
    use the reconstructor without noise.

    Args:
        reconstructor: the reconstruction `H`.
        jitter: draws `w_k`; see `jitter_jax.unroll.jitter`.

    Returns:
        `loss(params, batch, key) -> (scalar, aux)`.

    Source: Guan and Davenport (2024), eq. 7.
    """

    def example_loss(params, x, y, operator, key):
        smoothing_key = subkey(key, "smoothing")
        estimate = reconstructor.apply(
            params, operator, y, key=key, jitter=jitter, smoothing_key=smoothing_key
        )
        return metrics.mse(estimate, x)

    return batched(example_loss)
