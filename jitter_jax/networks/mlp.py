"""Multilayer perceptron, the learned step of the two-dimensional point problem."""

from collections.abc import Callable

import jax
from flax import linen as nn
from jax.typing import DTypeLike

from jitter_jax.networks.initializers import uniform_bias, uniform_kernel

Array = jax.Array


class MLP(nn.Module):
    """Fully connected network from a vector to a vector.

    `depth` dense layers with `width` hidden features and the activation between them.

    Attributes:
        depth: number of dense layers, at least 1.
        width: hidden features.
        out_features: length of the result; that of the input if None.
        activation: elementwise function. The theory of SGD jittering asks for a twice
            differentiable network: `nn.gelu`, `nn.silu`, `nn.softplus` and `jnp.tanh` are,
            `nn.relu` is not.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters keep theirs.
    """

    depth: int = 3
    width: int = 32
    out_features: int | None = None
    activation: Callable[[Array], Array] = nn.relu
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `(..., n)` to `(..., out_features)`."""
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")
        features = x.shape[-1] if self.out_features is None else self.out_features
        for layer in range(self.depth):
            width = features if layer == self.depth - 1 else self.width
            bias_init = uniform_bias(x.shape[-1])
            dense = nn.Dense(
                width, dtype=self.dtype, kernel_init=uniform_kernel, bias_init=bias_init
            )
            x = dense(x)
            x = x if layer == self.depth - 1 else self.activation(x)
        return x
