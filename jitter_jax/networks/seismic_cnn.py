"""The seismic deconvolution network of the public SGD-jittering code."""

from collections.abc import Callable

import jax
from flax import linen as nn
from jax.typing import DTypeLike

from jitter_jax.networks.initializers import uniform_bias
from jitter_jax.networks.layers import Conv, Differentiation, GroupNorm
from jitter_jax.networks.precision import cast

Array = jax.Array


class SeismicCNN(nn.Module):
    """Four 3x3 convolutions and a 1x1 convolution; 19,587 parameters as published.

    `in -> width -> width -> width -> out -> out`, with GroupNorm and the activation after each of
    the first three. The published network sees the measurement beside the iterate, so it has two
    input channels and one output channel.

    Attributes:
        width: hidden channels.
        num_groups: groups of GroupNorm; divides `width`.
        out_channels: channels of the result.
        activation: elementwise function; the published one is `nn.relu`.
        differentiation: `"reverse"` is fast on CPU and allows reverse mode of any order;
            `"plain"` also allows `jax.jvp` and `jax.jacfwd`.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters and norms keep theirs.

    Source: `single_layer` in the public code of Guan and Davenport (2024), weights drawn from a
    tenth of He's normal distribution (fan out). The paper itself speaks of a five-layer DnCNN with
    64 channels, which is `DnCNN(depth=5, width=64)`.
    """

    width: int = 32
    num_groups: int = 4
    out_channels: int = 1
    activation: Callable[[Array], Array] = nn.relu
    differentiation: Differentiation = "reverse"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `(height, width, channels)` to `(height, width, out_channels)`."""
        x = cast(x, self.dtype)
        for _ in range(3):
            x = self._convolution(x, self.width, 3)
            x = self.activation(GroupNorm(self.num_groups, differentiation=self.differentiation)(x))
        x = self._convolution(x, self.out_channels, 3)
        return self._convolution(x, self.out_channels, 1)

    def _convolution(self, x: Array, features: int, kernel_size: int) -> Array:
        return Conv(
            features,
            kernel_size,
            differentiation=self.differentiation,
            # He's gain squared is 2; the public code divides the drawn weights by 10.
            kernel_init=nn.initializers.variance_scaling(0.02, "fan_out", "normal"),
            bias_init=uniform_bias(kernel_size**2 * x.shape[-1]),
        )(x)
