"""Precision of the networks' products; all that stands around a network keeps float32."""

import contextlib
import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

Array = jax.Array
Params = Any
Precision = Literal["default", "float32", "tf32", "bfloat16"]


def in_precision(network: Any, precision: Precision) -> Any:
    """Returns the same network, its matrix products and convolutions in another precision.

    | precision | factors of a product | between the layers |
    | --- | --- | --- |
    | `"default"` | as the device has it | float32 |
    | `"float32"` | 24 binary digits | float32 |
    | `"tf32"` | 11 binary digits, on devices that can; at least these on others | float32 |
    | `"bfloat16"` | 8 binary digits | bfloat16 |

    The device's own are the 24 digits of float32 on a CPU, TF32 on recent NVIDIA GPUs and bfloat16
    on a TPU. Parameters, their gradients and the result of `apply` are float32 in any case, and so
    are the statistics of norms and the connection that adds the input of a residual network to its
    result: what such a network leaves as it is, is not rounded.

    Args:
        network: a network of `jitter_jax.networks`, or any object with its `init` and `apply`, from
            real arrays to one real array. `"bfloat16"` needs a Linen module with a field `dtype`.
        precision: see the table.

    Returns:
        An object with `init` and `apply` of `network` and the same parameters.

    Raises:
        ValueError: `precision` is unknown, or `"bfloat16"` is asked of another kind of network.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
    if precision == "default":
        return network
    if precision == "bfloat16":
        if not hasattr(network, "clone") or not hasattr(network, "dtype"):
            raise ValueError(
                "precision='bfloat16' needs a Linen module with a field `dtype`, got "
                f"{type(network).__name__}"
            )
        return _InPrecision(network.clone(dtype=jnp.bfloat16), None)
    return _InPrecision(network, {"float32": "float32", "tf32": "tensorfloat32"}[precision])


@dataclasses.dataclass(frozen=True)
class _InPrecision:
    network: Any
    products: str | None  # as `jax.default_matmul_precision` names them

    def init(self, key: Array, *inputs: Array) -> Params:
        return self.network.init(key, *inputs)

    def apply(self, params: Params, x: Array, *others: Array) -> Array:
        context = contextlib.nullcontext()
        if self.products is not None:
            context = jax.default_matmul_precision(self.products)
        with context:
            return self.network.apply(params, x, *others).astype(x.dtype)


def cast(x: Array, dtype: DTypeLike | None) -> Array:
    """Returns `x` in the type of a network's products, as it is if that is None."""
    return x if dtype is None else x.astype(dtype)


def wide(x: Array) -> Array:
    """Returns `x` in float32 if it is narrower: for sums over pixels.

    A sum in bfloat16 stops growing where a term is 1/256 of it: 16,384 ones were 4,096.
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
