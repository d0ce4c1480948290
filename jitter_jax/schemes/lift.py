"""From the loss of one example to the loss of a batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jitter_jax.data.batch import Batch
from jitter_jax.operators import LinearOperator

Array = jax.Array
Params = Any
Loss = Callable[[Params, Batch, Array], tuple[Array, dict[str, Array]]]
# (params, batch, key, level) -> (loss, aux), one of several losses, each with a step of its own
LevelLoss = Callable[[Params, Batch, Array, Array], tuple[Array, dict[str, Array]]]
# (params, signal, measurement, operator, key) -> scalar
ExampleLoss = Callable[[Params, Array, Array, LinearOperator, Array], Array]


def batched(example_loss: ExampleLoss) -> Loss:
    """Returns `loss(params, batch, key) -> (mean over the batch, aux)` with an empty aux."""

    def loss(params: Params, batch: Batch, key: Array) -> tuple[Array, dict[str, Array]]:
        losses = batch.lift(partial(example_loss, params), key)
        return jnp.mean(losses), {}

    return loss
