"""Batches of examples, and the lift from the loss of one example to the loss of a batch."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jitter_jax.operators import LinearOperator

Array = jax.Array
Params = Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["signal", "measurement", "operator", "index"],
    meta_fields=["own_operators"],
)
@dataclasses.dataclass(frozen=True)
class Batch:
    """Signals, their measurements and the operators between them.

    Attributes:
        signal: truths `x`, `(batch, ...)`.
        measurement: `y`, `(batch, ...)`.
        operator: the operator `A` that all examples share; or, with `own_operators`, one whose
            leaves have a leading batch axis.
        index: `(batch,)` int32, each example's own number in its data set. Its random draws come
            from this number, not from its place in the batch.
        own_operators: whether every example has its own operator.
    """

    signal: Array
    measurement: Array
    operator: LinearOperator
    index: Array
    own_operators: bool = False

    def lift(self, function: Callable[..., Any], key: Array) -> Any:
        """Returns `function(signal, measurement, operator, key)` of every example.

        The `vmap` axis is named `"batch"`. An example's key is `key` folded with its index.
        """
        keys = jax.vmap(partial(jax.random.fold_in, key))(self.index)
        axes = (0, 0, 0 if self.own_operators else None, 0)
        return jax.vmap(function, in_axes=axes, axis_name="batch")(
            self.signal, self.measurement, self.operator, keys
        )


Loss = Callable[[Params, Batch, Array], tuple[Array, dict[str, Array]]]
# (params, signal, measurement, operator, key) -> scalar
ExampleLoss = Callable[[Params, Array, Array, LinearOperator, Array], Array]


def batched(example_loss: ExampleLoss) -> Loss:
    """Returns `loss(params, batch, key) -> (mean over the batch, aux)` with an empty aux."""

    def loss(params: Params, batch: Batch, key: Array) -> tuple[Array, dict[str, Array]]:
        losses = batch.lift(partial(example_loss, params), key)
        return jnp.mean(losses), {}

    return loss


def squared_error(estimate: Array, truth: Array) -> Array:
    """Returns `mean |estimate - truth|^2` of one signal, scalar."""
    error = estimate - truth
    return jnp.mean(jnp.square(jnp.abs(error)) if jnp.iscomplexobj(error) else error**2)
