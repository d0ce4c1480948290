"""Randomised smoothing of a whole reconstruction, from its measurement to its estimate."""

from typing import Any, Literal, get_args

import jax

from jitter_jax.noise import measured_noise
from jitter_jax.operators import LinearOperator
from jitter_jax.smoothing import Smoothing, monte_carlo
from jitter_jax.unroll.reconstructor import Params, Reconstructor

Array = jax.Array
NoiseOn = Literal["back_projection", "start", "measurement", "signal"]


def end_to_end(
    reconstructor: Reconstructor,
    smoothing: Smoothing,
    noise_on: NoiseOn = "back_projection",
) -> Reconstructor:
    """Returns the reconstructor `E H(A^H y + w)` (RS-E2E), with the same parameters.

    Args:
        reconstructor: the reconstruction `H`.
        smoothing: the noise, in the unit of `noise_on`.
        noise_on: where the noise goes. `"back_projection"`, the paper's reading: `A^H y + w` takes
            the place of `A^H y` in the start and in every data step. `"start"`: `x_0 = A^H y + w`
            alone, as a trainer that was once part of the public code had it. `"measurement"`:
            `y + w` where `y` is measured, as the public code's evaluation has it. `"signal"`:
            `y + A w`, the noise that certificates of signal-space threats are made with.

    Returns:
        A `Reconstructor` that needs a `smoothing_key`, and whose derivative is that of the
        average. Jitter is drawn anew in every sample.

    Raises:
        ValueError: `noise_on` is unknown, the reconstructor is smoothed already, or noise on the
            signal is to be cut, whose clean value nobody knows; when applied,
            there is no `smoothing_key`, or there is a `start`, a `back_projection`, a `probe` or
            `return_trajectory`.

    Source: Liang et al., "Robust MRI reconstruction by smoothed unrolling (SMUG)", RS-E2E.
    """
    if noise_on not in get_args(NoiseOn):
        raise ValueError(f"noise_on must be one of {get_args(NoiseOn)}, got {noise_on!r}")
    if reconstructor.smoothing is not None:
        raise ValueError("the reconstructor is smoothed already")
    if noise_on == "signal" and smoothing.clamp is not None:
        raise ValueError(f"clamp must be None with noise_on='signal', got {smoothing.clamp}")

    def apply(
        params: Params,
        operator: LinearOperator,
        y: Array,
        *,
        key: Array | None = None,
        smoothing_key: Array | None = None,
        **options: Any,
    ) -> Array:
        if smoothing_key is None:
            raise ValueError("a smoothed reconstructor needs a smoothing_key")
        for name in ("start", "back_projection", "probe", "return_trajectory"):
            given = options.get(name)
            if given is not None and given is not False:
                raise ValueError(f"{name} is not accepted by end-to-end smoothing")

        def draw(keys: tuple[Array, Array | None]) -> Array:
            noise_key, jitter_key = keys
            noisy = dict(options)
            measured = y
            if noise_on == "measurement":
                measured = smoothing.perturb(noise_key, y, operator.support())
            elif noise_on == "signal":
                measured = y + smoothing.sigma * measured_noise(noise_key, operator, y, noise_on)
            else:
                noisy[noise_on] = smoothing.perturb(noise_key, operator.adjoint(y))
            return reconstructor.apply(params, operator, measured, key=jitter_key, **noisy)

        return monte_carlo(
            draw,
            (smoothing_key, key),
            num_samples=smoothing.num_samples,
            chunk=smoothing.chunk,
        )

    return reconstructor._replace(apply=apply, smoothing=smoothing)
