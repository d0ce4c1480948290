"""From signals to what is measured of them: y = A x + z, and the scale both are given in."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jitter_jax.data.batch import Batch
from jitter_jax.keys import domain_key
from jitter_jax.noise import normal_like
from jitter_jax.operators import LinearOperator

Array = jax.Array
Normalisation = Literal["none", "measurement", "zero_filled", "fastmri"]
# Of one raw example, whose arrays (such as its mask) become the operator's leaves. Leaves that all
# examples share are told by an attribute `leaf_axes`: None at each of them, 0 at the others.
OperatorFactory = Callable[[Mapping[str, Array]], LinearOperator]
# (raw examples of the input pipeline, name of their set, key of the step or None) -> Batch
Measure = Callable[..., Batch]


def operator_of(
    operator: LinearOperator | OperatorFactory, example: Mapping[str, Array]
) -> LinearOperator:
    """Return the operator of one example: the shared one, or the one made from its arrays."""
    return operator if isinstance(operator, LinearOperator) else operator(example)


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
    noise_std: ArrayLike,
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
    noise = noise_std * normal_like(key, clean, operator.support())
    return normalise(operator, signal, clean + noise, normalisation)


def normalise(
    operator: LinearOperator, signal: Array, measurement: Array, normalisation: Normalisation
) -> Measured:
    """Divide a signal and its measurement by one number, taken from the measurement alone.

    Args:
        operator: the operator A.
        signal: truth x.
        measurement: y.
        normalisation: what to divide by, with 1 in place of zero. `"measurement"`: max |y|, as the
            public code of "SGD Jittering" does for seismic data. `"zero_filled"`: max |A^H y|, the
            largest magnitude of the zero-filled image. `"fastmri"`: the standard deviation of
            |A^H y|, as fastMRI's U-Net has it; the mean, which it also takes off, stays, since an
            offset would break `y = A x`. `"none"`: 1.

    Raises:
        ValueError: `normalisation` is unknown.
    """
    if normalisation not in get_args(Normalisation):
        raise ValueError(
            f"normalisation={normalisation!r} is not accepted: "
            f"one of {get_args(Normalisation)} is expected"
        )
    scale = jnp.ones((), measurement.real.dtype)
    if normalisation != "none":
        seen = measurement if normalisation == "measurement" else operator.adjoint(measurement)
        size = (jnp.std if normalisation == "fastmri" else jnp.max)(jnp.abs(seen))
        scale = jnp.where(size > 0, size, 1)
    return Measured(signal / scale, measurement / scale, scale)


def make_measure(
    operator: LinearOperator | OperatorFactory,
    *,
    seed: int,
    noise_std: float,
    normalisation: Normalisation,
) -> Measure:
    """Return the function that measures batches of raw examples.

    An example's noise comes from the seed, the name of its set and its own number, so it is the
    same in every epoch; or from a step's key, and is new. Sets other than training and validation
    share the noise of the test set: rows of a table that differ by the signal differ by it alone.

    Args:
        operator: the operator A of all examples, or a function that makes each example's own.
        seed: of the noise.
        noise_std: see `measure`. Examples with an entry `noise_std` have their own.
        normalisation: see `normalise`.

    Returns:
        `(examples, set_name, step_key=None) -> Batch`. Examples have `signal` and `index`. To
        those that also have `measurement` only noise of a level of their own is added; it is set
        to zero outside the support, so that k-space recorded at all points can be given. A `scale`
        that they were divided by before is counted in; `volume` and `volume_peak` are handed on.

    Raises:
        ValueError: `noise_std` is negative; when called, the examples have no `signal`.
    """
    if not noise_std >= 0:
        raise ValueError(f"noise_std={noise_std} is not accepted: 0 or more is expected")
    shared = operator if isinstance(operator, LinearOperator) else None
    leaf_axes = getattr(operator, "leaf_axes", 0)

    def one(example: Mapping[str, Array], key: Array) -> tuple[Measured, Any]:
        signal = example["signal"]
        made = operator_of(operator, example)
        if "measurement" in example:
            given = example["measurement"]
            if (support := made.support()) is not None:
                given = jnp.where(support, given, 0)
            if "noise_std" in example:
                given += example["noise_std"] * normal_like(key, given, support)
            measured = normalise(made, signal, given, normalisation)
        else:
            level = example.get("noise_std", noise_std)
            measured = measure(made, signal, key=key, noise_std=level, normalisation=normalisation)
        return measured, made.leaves if shared is None else ()

    def measure_batch(
        examples: Mapping[str, Any], set_name: str, step_key: Array | None = None
    ) -> Batch:
        if "signal" not in examples:
            raise ValueError(
                f"the {set_name} set has measurements only: to train and to test, a truth under "
                "the key 'signal' is needed; bin/reconstruct takes measurements alone"
            )
        noise = set_name if set_name in ("train", "validation") else "test"
        root = domain_key(seed, f"noise/{noise}") if step_key is None else step_key
        data = {name: jnp.asarray(values) for name, values in examples.items()}
        keys = jax.vmap(partial(jax.random.fold_in, root))(data["index"])
        measured, leaves = jax.vmap(one, out_axes=(0, leaf_axes))(data, keys)
        made, axes = shared, None
        if made is None:
            first = jax.eval_shape(lambda data: jax.tree.map(lambda array: array[0], data), data)
            like = jax.eval_shape(partial(operator_of, operator), first)
            made = dataclasses.replace(like, leaves=leaves)
            axes = dataclasses.replace(like, leaves=leaf_axes) if leaf_axes else 0
        return Batch(
            measured.signal,
            measured.measurement,
            made,
            measured.scale * data.get("scale", 1),
            data["index"],
            operator_axes=axes,
            volume=data.get("volume"),
            volume_peak=data.get("volume_peak"),
        )

    return measure_batch
