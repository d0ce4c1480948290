"""What all certificates share: reconstructions of one measurement under numbered draws of noise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jitter_jax.attacks.threat import Space
from jitter_jax.devices import Devices, spread_vmap
from jitter_jax.noise import measured_noise
from jitter_jax.operators import LinearOperator
from jitter_jax.unroll.reconstructor import Params, Reconstructor

Array = jax.Array
Reconstruction = Callable[[Array], Array]


def freeze(
    reconstructor: Reconstructor, params: Params, operator: LinearOperator, *, key: Array
) -> Reconstruction:
    """Returns `f`, the deployed reconstruction as a fixed function of the measurement.

    Certificates hold for one function. A reconstructor that averages over noise inside (SMUG) draws
    the same noise in every call of `f`, whatever it is given: the certificate is of that draw.

    Args:
        reconstructor: the method `H`.
        params: its parameters.
        operator: the operator `A`.
        key: PRNG key of the noise inside; without effect where there is none.
    """

    def f(y: Array) -> Array:
        # A clone, since the same key serves every call: that is what freezing means.
        return reconstructor.apply(params, operator, y, smoothing_key=jax.random.clone(key))

    return f


def draw(
    f: Reconstruction,
    operator: LinearOperator,
    y: Array,
    *,
    sigma: ArrayLike,
    key: Array,
    number: int | Array,
    space: Space = "signal",
) -> Array:
    """Returns the reconstruction under draw `s`, `f(y + A delta_s)` or `f(y + delta_s)`.

    `delta_s ~ N(0, sigma^2 I)` is drawn from the key folded with `s`, so one of many estimates can
    be had again by its number instead of being kept. A noise on the measurement lives where the
    operator measures.

    Noisy pixels are not cut to their range: noise that is cut is not Gaussian, and nothing would be
    certified. An `f` that cuts what it is given is as good as any other `f`.

    Args:
        f: a deterministic function of the measurement, such as `freeze` makes.
        operator: the operator `A`.
        y: the measurement.
        sigma: standard deviation of each entry, scalar; may be traced.
        key: PRNG key.
        number: `s`, an integer.
        space: `"signal"` for `A delta`, `"measurement"` for `delta`.
    """
    noise = measured_noise(jax.random.fold_in(key, number), operator, y, space)
    return f(y + sigma * noise)


def statistics(
    f: Reconstruction,
    operator: LinearOperator,
    y: Array,
    *,
    sigma: ArrayLike,
    num_samples: int,
    key: Array,
    space: Space = "signal",
    statistic: Callable[[Array], Array] = lambda estimate: estimate,
    chunk: int = 32,
    devices: Devices | None = None,
) -> Array:
    """Returns a statistic of every draw, `statistic(f(y + A delta_s))` for `s = 0 ... S - 1`.

    Args:
        f: a deterministic function of the measurement.
        operator: the operator `A`.
        y: the measurement.
        sigma: standard deviation of each entry, scalar; may be traced.
        num_samples: `S`, at least 1.
        key: PRNG key; draw `s` is that of `draw`.
        space: where the noise is.
        statistic: what is kept of an estimate, an array.
        chunk: draws computed at once, which bounds the memory; draws do not depend on it. Of a
            picture on a CPU one at a time is the fastest.
        devices: over which the draws of a chunk are spread; their number divides `chunk`.

    Returns:
        `(S, ...)`.

    Raises:
        ValueError: a count is below 1, or the devices do not divide `chunk`.
    """
    for name, count in (("num_samples", num_samples), ("chunk", chunk)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")

    def one(number: Array) -> Array:
        return statistic(draw(f, operator, y, sigma=sigma, key=key, number=number, space=space))

    if devices is None or devices.count == 1:
        return jax.lax.map(one, jnp.arange(num_samples), batch_size=min(chunk, num_samples))
    if chunk % devices.count:
        raise ValueError(
            f"chunk must be a multiple of the number of devices, {devices.count}; got {chunk}"
        )
    width = min(chunk, devices.at_once(num_samples))
    # The last chunk is whole, too: a device without draws would only wait.
    numbers = jnp.arange(-(-num_samples // width) * width).reshape(-1, width)
    values = jax.lax.map(spread_vmap(one, devices), numbers)
    return values.reshape(-1, *values.shape[2:])[:num_samples]


def median_rank(num_samples: int) -> int:
    """Returns the rank of the plug-in median, `ceil(S / 2)`: it is one of the draws."""
    return (num_samples + 1) // 2
