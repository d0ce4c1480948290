"""Measured examples, many at a time, and the lift from one example to a batch."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jitter_jax.operators import LinearOperator

Array = jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "signal",
        "measurement",
        "operator",
        "scale",
        "index",
        "volume",
        "volume_peak",
    ],
    meta_fields=["operator_axes"],
)
@dataclasses.dataclass(frozen=True)
class Batch:
    """Signals, their measurements and the operators between them.

    Attributes:
        signal: truths `x`, `(batch, ...)`.
        measurement: `y`, `(batch, ...)`.
        operator: the operator `A`, shared, or with leaves that have a leading batch axis.
        scale: `(batch,)`, what signal and measurement were divided by, in all.
        index: `(batch,)` int32, each example's own number in its data set. Its random draws come
            from this number, not from its place in the batch.
        operator_axes: batch axes of the operator's leaves, as `jax.vmap` takes them: None for an
            operator that all examples share, 0 for one an example, or a hashable tree of these.
        volume: `(batch,)` int32, number of the volume that each signal is a slice of; None where
            every signal is a volume by itself.
        volume_peak: `(batch,)`, largest magnitude of the true signals of that volume, before they
            were divided; None where it is not known, and the signal's own is taken.
    """

    signal: Array
    measurement: Array
    operator: LinearOperator
    scale: Array
    index: Array
    operator_axes: Any = None
    volume: Array | None = None
    volume_peak: Array | None = None

    def __len__(self) -> int:
        return len(self.index)

    def lift(self, function: Callable[..., Any], key: Array, *more: Array) -> Any:
        """Returns `function(signal, measurement, operator, key, *more)` of every example.

        The `vmap` axis is named `"batch"`. An example's key is `key` folded with its index; `more`
        are arrays with a leading batch axis.
        """
        keys = jax.vmap(partial(jax.random.fold_in, key))(self.index)
        axes = (0, 0, self.operator_axes, 0, *(0 for _ in more))
        return jax.vmap(function, in_axes=axes, axis_name="batch")(
            self.signal, self.measurement, self.operator, keys, *more
        )

    def volumes(self) -> tuple[Array, Array]:
        """Returns `volume` and `volume_peak`, with every signal a volume by itself if absent."""
        peak = self.volume_peak
        if peak is None:
            peak = self.scale * jax.vmap(lambda x: jnp.max(jnp.abs(x)))(self.signal)
        return self.index if self.volume is None else self.volume, peak

    def operator_of(self, place: int) -> LinearOperator:
        """Returns the operator of the example at a place of the batch."""
        alone = jax.vmap(lambda index, operator: operator, in_axes=(0, self.operator_axes))
        return jax.tree.map(lambda leaf: leaf[place], alone(self.index, self.operator))
