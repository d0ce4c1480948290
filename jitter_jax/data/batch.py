"""Measured examples, many at a time, and the lift from one example to a batch."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from jitter_jax.operators import LinearOperator

Array = jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["signal", "measurement", "operator", "scale", "index"],
    meta_fields=["operator_axes"],
)
@dataclasses.dataclass(frozen=True)
class Batch:
    """Signals, their measurements and the operators between them.

    Attributes:
        signal: truths `x`, `(batch, ...)`.
        measurement: `y`, `(batch, ...)`.
        operator: the operator `A`, shared, or with leaves that have a leading batch axis.
        scale: `(batch,)`, what signal and measurement were divided by.
        index: `(batch,)` int32, each example's own number in its data set. Its random draws come
            from this number, not from its place in the batch.
        operator_axes: batch axes of the operator's leaves, as `jax.vmap` takes them: None for an
            operator that all examples share, 0 for one an example, or a hashable tree of these.
    """

    signal: Array
    measurement: Array
    operator: LinearOperator
    scale: Array
    index: Array
    operator_axes: Any = None

    def __len__(self) -> int:
        return len(self.index)

    def lift(self, function: Callable[..., Any], key: Array) -> Any:
        """Returns `function(signal, measurement, operator, key)` of every example.

        The `vmap` axis is named `"batch"`. An example's key is `key` folded with its index.
        """
        keys = jax.vmap(partial(jax.random.fold_in, key))(self.index)
        axes = (0, 0, self.operator_axes, 0)
        return jax.vmap(function, in_axes=axes, axis_name="batch")(
            self.signal, self.measurement, self.operator, keys
        )
