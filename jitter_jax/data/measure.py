"""From signals to what is measured of them: y = A x + z, and the scale both are given in."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jitter_jax.data.batch import Batch
from jitter_jax.keys import domain_key
from jitter_jax.noise import normal_like
from jitter_jax.operators import LinearOperator

Array = jax.Array
Normalisation = Literal["none", "measurement"]
# (raw examples of the input pipeline, name of their set, key of the step or None) -> Batch
Measure = Callable[..., Batch]


class Measured(NamedTuple):
    """One signal and its measurement in the same, normalised unit.

    Attributes:
        signal: truth `x / scale`.
        measurement: `y / scale`.
        scale: what both were divided by, real scalar: an estimate times `scale` is in the input's
            unit.
    """

    signal: Array
    measurement: Array
    scale: Array


def measure(
    operator: LinearOperator,
    signal: Array,
    *,
    key: Array,
    noise_std: float,
    normalisation: Normalisation = "none",
) -> Measured:
    """Measure one signal: `y = A x + noise_std * z` with standard normal `z`.

    Args:
        operator: the operator A.
        signal: truth x.
        key: PRNG key of the noise.
        noise_std: standard deviation of the noise in the unit of y, before normalisation; of
            complex y that of the real and of the imaginary part.
        normalisation: see `normalise`.
    """
    clean = operator.forward(signal)
    return normalise(signal, clean + noise_std * normal_like(key, clean), normalisation)


def normalise(signal: Array, measurement: Array, normalisation: Normalisation) -> Measured:
    """Divide a signal and its measurement by one number, taken from the measurement alone.

    Args:
        signal: truth x.
        measurement: y.
        normalisation: `"measurement"` divides by max |y| (by 1 if y is zero), as the public code of
            "SGD Jittering" does for seismic data; `"none"` divides by 1.

    Raises:
        ValueError: `normalisation` is unknown.
    """
    if normalisation not in get_args(Normalisation):
        raise ValueError(
            f"normalisation={normalisation!r} is not accepted: "
            f"one of {get_args(Normalisation)} is expected"
        )
    scale = jnp.ones((), measurement.real.dtype)
    if normalisation == "measurement":
        peak = jnp.max(jnp.abs(measurement))
        scale = jnp.where(peak > 0, peak, 1)
    return Measured(signal / scale, measurement / scale, scale)


def make_measure(
    operator: LinearOperator, *, seed: int, noise_std: float, normalisation: Normalisation
) -> Measure:
    """Return the function that measures batches of raw examples.

    An example's noise comes from the seed, the name of its set and its own number, so it is the
    same in every epoch; or from a step's key, and is new. Sets other than training and validation
    share the noise of the test set: rows of a table that differ by the signal differ by it alone.

    Args:
        operator: the operator A of all examples.
        seed: of the noise.
        noise_std: see `measure`.
        normalisation: see `normalise`.

    Returns:
        `(examples, set_name, step_key=None) -> Batch`. Examples have `signal` and `index`; those
        that also have `measurement` are only normalised.

    Raises:
        ValueError: `noise_std` is negative; when called, the examples have no `signal`.
    """
    if not noise_std >= 0:
        raise ValueError(f"noise_std={noise_std} is not accepted: 0 or more is expected")

    def one(example: Mapping[str, Array], key: Array) -> Measured:
        signal = jnp.asarray(example["signal"])
        if "measurement" in example:
            return normalise(signal, jnp.asarray(example["measurement"]), normalisation)
        return measure(operator, signal, key=key, noise_std=noise_std, normalisation=normalisation)

    def measure_batch(
        examples: Mapping[str, Any], set_name: str, step_key: Array | None = None
    ) -> Batch:
        if "signal" not in examples:
            raise ValueError(
                f"the {set_name} set has measurements only: to train and to test, a truth under "
                "the key 'signal' is needed; bin/reconstruct takes measurements alone"
            )
        own = set_name if set_name in ("train", "validation") else "test"
        root = domain_key(seed, f"noise/{own}") if step_key is None else step_key
        index = jnp.asarray(examples["index"])
        keys = jax.vmap(partial(jax.random.fold_in, root))(index)
        data = {key: examples[key] for key in ("signal", "measurement") if key in examples}
        measured = jax.vmap(one)(data, keys)
        return Batch(measured.signal, measured.measurement, operator, measured.scale, index)

    return measure_batch
