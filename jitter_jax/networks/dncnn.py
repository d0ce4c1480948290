"""DnCNN, the learned step for images."""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn
from jax.typing import DTypeLike

from jitter_jax.networks.initializers import uniform_kernel
from jitter_jax.networks.layers import Conv, Differentiation, GroupNorm
from jitter_jax.networks.precision import cast

Array = jax.Array


class DnCNN(nn.Module):
    """`depth` 3x3 convolutions without bias, GroupNorm on the inner ones, and a skip connection.

    The first convolution is followed by the activation, each inner one by GroupNorm and the
    activation, the last by nothing; the input is added to the result. With `depth=8`, `width=64`
    and two channels: 224,256 parameters, as published for MRI.

    Attributes:
        depth: number of convolutions, at least 2.
        width: hidden channels.
        num_groups: groups of GroupNorm; divides `width`.
        out_channels: channels of the result; those of the input if None. The skip connection takes
            the last `out_channels` channels of the input, where the iterate stands when the network
            also sees the measurement.
        residual: whether the input is added.
        activation: elementwise function; the published one is `nn.relu`.
        differentiation: `"reverse"` is fast on CPU and allows reverse mode of any order;
            `"plain"` also allows `jax.jvp` and `jax.jacfwd`.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters, norms and the residual connection keep theirs.

    Source: Zhang et al. (2017), in the form of `DnCNN` in the public code of Guan and Davenport
    (2024), which adds the input instead of subtracting from it.
    """

    depth: int = 8
    width: int = 64
    num_groups: int = 4
    out_channels: int | None = None
    residual: bool = True
    activation: Callable[[Array], Array] = nn.relu
    differentiation: Differentiation = "reverse"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `(height, width, channels)` to `(height, width, out_channels)`."""
        if self.depth < 2:
            raise ValueError(f"depth must be at least 2, got {self.depth}")
        out_channels = x.shape[-1] if self.out_channels is None else self.out_channels
        skip, x = x[..., -out_channels:], cast(x, self.dtype)
        convolution = partial(
            Conv, use_bias=False, kernel_init=uniform_kernel, differentiation=self.differentiation
        )
        for layer in range(self.depth - 1):
            x = convolution(self.width)(x)
            if layer > 0:
                x = GroupNorm(self.num_groups, differentiation=self.differentiation)(x)
            x = self.activation(x)
        x = convolution(out_channels)(x)
        return x + skip if self.residual else x
