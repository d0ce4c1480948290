"""Input jittering: noise on the measurement while training."""

import numpy as np

from jitter_jax import metrics
from jitter_jax.keys import subkey
from jitter_jax.noise import normal_like
from jitter_jax.schemes.lift import Loss, batched
from jitter_jax.unroll import Reconstructor


def input_jitter(reconstructor: Reconstructor, sigma: float) -> Loss:
    """Returns the loss `E mean |x - H(y + w)|^2` with `w ~ N(0, sigma^2 I)`.

    Of a complex measurement the real and the imaginary part each get the standard deviation
    `sigma`. Entries that the operator does not measure get none.

    Args:
        reconstructor: the reconstruction `H`.
        sigma: standard deviation of each entry in the unit of `y`, non-negative.

    Returns:
        `loss(params, batch, key) -> (scalar, aux)`.

    Raises:
        ValueError: `sigma` is negative or not finite.

    Source: Krainovic, Soltanolkotabi and Heckel (2023); Guan and Davenport (2024), eq. 6.
    """
    if not (np.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be finite and non-negative, got {sigma}")

    def example_loss(params, x, y, operator, key):
        smoothing_key = subkey(key, "smoothing")
        noisy = y + sigma * normal_like(key, y, operator.support())
        estimate = reconstructor.apply(params, operator, noisy, smoothing_key=smoothing_key)
        return metrics.mse(estimate, x)

    return batched(example_loss)


def krainovic_level(
    epsilon: float,
    *,
    noise_std: float,
    signal_energy: float,
    measurement_size: int,
    signal_dimension: int,
) -> float:
    """Returns the input-jitter level that makes a linear denoiser worst-case optimal.

    With `s_z = noise_std sqrt(n)`, `s_c^2 = E ||x||^2`, a signal in a `d`-dimensional subspace of
    `R^n`, and a threat of l2 radius `epsilon`,

    `sigma_w = sqrt(epsilon^2 s_z^2 d/n + s_z s_c epsilon sqrt(d/n) sqrt(s_c^2 - epsilon^2 +
    s_z^2 d/n)) / sqrt(d (s_c^2 - epsilon^2))`.

    Args:
        epsilon: l2 radius of the threat in the unit of `y`, with `0 <= epsilon < s_c`.
        noise_std: standard deviation of each entry of the measurement noise, non-negative.
        signal_energy: `s_c^2 = E ||x||^2`, positive.
        measurement_size: `n`, entries of the measurement.
        signal_dimension: `d`, dimension of the subspace that signals come from, at most `n`.

    Returns:
        `sigma_w`, the standard deviation of the added noise alone; the total standard deviation
        that training sees is `sqrt(sigma_w^2 + noise_std^2)`.

    Raises:
        ValueError: an argument is out of range; for `epsilon >= s_c` the optimal estimate is 0 and
            no level exists.

    Source: Krainovic, Soltanolkotabi and Heckel (2023), "Learning provably robust estimators for
    inverse problems via jittering".
    """
    if not 1 <= signal_dimension <= measurement_size:
        raise ValueError(
            f"signal_dimension must lie between 1 and measurement_size={measurement_size}, "
            f"got {signal_dimension}"
        )
    if not noise_std >= 0:
        raise ValueError(f"noise_std must be non-negative, got {noise_std}")
    if not 0 <= epsilon**2 < signal_energy or epsilon < 0:
        raise ValueError(
            "epsilon must lie in [0, sqrt(signal_energy)), where sqrt(signal_energy) = "
            f"{np.sqrt(max(signal_energy, 0)):.6g}; got {epsilon}"
        )
    noise_energy = noise_std**2 * signal_dimension  # s_z^2 d / n
    gap = signal_energy - epsilon**2
    mixed = np.sqrt(noise_energy * signal_energy * (gap + noise_energy)) * epsilon
    return float(np.sqrt((epsilon**2 * noise_energy + mixed) / (signal_dimension * gap)))
