"""Pixel-wise median smoothing: two images between which no attack moves the median image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jitter_jax.certify.budget import Budget, confidence_each
from jitter_jax.certify.draws import Reconstruction, median_rank, statistics
from jitter_jax.devices import Devices
from jitter_jax.operators import LinearOperator

Array = jax.Array
_COPIES = 2  # of the draws of a pass: as computed, and sorted


class PixelCertificate(NamedTuple):
    """Images that hold the median-smoothed reconstruction under every attack of a budget.

    With the budget's confidence, for all `||xi|| <= epsilon`,

        lower <= median_delta f(y + A xi + A delta) <= upper

    (`y + xi + delta` in measurement space), the median taken at each pixel: at each single pixel,
    or at all of them at once if asked for. Of complex images real and imaginary part are
    coordinates by themselves. A value that is not a number counts as the largest, in the draws and
    in the median.

    Attributes:
        lower: shaped like the reconstruction.
        median: plug-in median without attack, likewise; it carries no confidence.
        upper: likewise.
    """

    lower: Array
    median: Array
    upper: Array

    def guarantee(self, budget: Budget, *, simultaneous: bool = False) -> str:
        """Returns what is guaranteed, for which threat, at which confidence, by how many draws.

        Args:
            budget: the one that the certificate was made with.
            simultaneous: as it was made.
        """
        which = "all pixels at once" if simultaneous else "each pixel by itself"
        return (
            f"With confidence {budget.confidence:g} for {which}, from {budget.num_samples} draws: "
            f"{budget.describe()}, the median of the reconstruction lies between the images lower "
            "and upper."
        )


def certified_pixels(
    f: Reconstruction,
    operator: LinearOperator,
    y: Array,
    *,
    budget: Budget,
    key: Array,
    simultaneous: bool = False,
    memory_gb: float = 1.0,
    chunk: int = 32,
    devices: Devices | None = None,
) -> PixelCertificate:
    """Returns lower and upper images of the median-smoothed reconstruction under any attack.

    Order statistics `X_(S + 1 - k)` and `X_(k)` of each output coordinate, each with confidence
    `1 - (1 - c) / 2`, or `1 - (1 - c) / (2 n)` for all `n` coordinates at once. Sorting needs all
    draws of a coordinate, `S` numbers: where those of all coordinates do not fit the memory, they
    are taken in several passes, each of which computes all draws again.

    Args:
        f: a deterministic function of the measurement, such as `freeze` makes.
        operator: the operator `A`.
        y: the measurement that was observed.
        budget: the threat, noise and confidence.
        key: PRNG key.
        simultaneous: whether the confidence is that of all pixels at once.
        memory_gb: for the draws that are sorted, in units of 10^9 bytes, positive; what `f` itself
            needs comes on top. At least one coordinate is taken in a pass.
        chunk: draws computed at once.
        devices: over which the draws of a chunk are spread; their number divides `chunk`.

    Raises:
        ValueError: `memory_gb` is not positive, `chunk` is below 1, or the samples are too few for
            this confidence.

    Source: Chiang et al., "Detection as regression: certified object detection with median
    smoothing" (2020), lemma 1, of each coordinate.
    """
    if not memory_gb > 0:
        raise ValueError(f"memory_gb must be positive, got {memory_gb}")
    output = jax.eval_shape(f, y)
    split = jnp.issubdtype(output.dtype, jnp.complexfloating)
    real = jnp.finfo(output.dtype).dtype
    count = output.size * (2 if split else 1)
    sides = 2 * count if simultaneous else 2
    samples = budget.num_samples
    rank = budget.rank(confidence=confidence_each(budget.confidence, sides))
    ranks = jnp.array([samples + 1 - rank, median_rank(samples), rank]) - 1

    fits = int(memory_gb * 1e9) // (_COPIES * samples * real.itemsize)
    width = min(max(fits, 1), count)
    passes = -(-count // width)

    def coordinates(estimate: Array) -> Array:
        flat = jnp.ravel(jnp.stack([estimate.real, estimate.imag]) if split else estimate)
        return jnp.pad(flat, (0, passes * width - count))

    def one_pass(start: Array) -> Array:
        values = statistics(
            f,
            operator,
            y,
            **budget.noise,
            num_samples=samples,
            key=key,
            statistic=lambda estimate: jax.lax.dynamic_slice(
                coordinates(estimate), (start,), (width,)
            ),
            chunk=chunk,
            devices=devices,
        )
        return jnp.sort(values, axis=0)[ranks]

    found = jax.lax.map(one_pass, width * jnp.arange(passes))  # (passes, 3, width)

    def image(flat: Array) -> Array:
        flat = jnp.ravel(flat)[:count]
        if not split:
            return flat.reshape(output.shape)
        return jax.lax.complex(*flat.reshape(2, *output.shape))

    return PixelCertificate(*(image(found[:, i]) for i in range(3)))
