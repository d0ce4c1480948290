"""U-Net, the baseline network of fastMRI."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jitter_jax.networks.initializers import uniform_bias, uniform_kernel
from jitter_jax.networks.layers import Conv, Differentiation, GroupNorm, activation
from jitter_jax.networks.precision import cast

Array = jax.Array


class UNet(nn.Module):
    """An encoder and a decoder of `levels` halvings, with skip connections between them.

    A block is two 3x3 convolutions without bias, each followed by instance normalisation without
    parameters and the activation. The encoder takes means of 2x2 pixels between blocks and doubles
    the channels; the decoder takes transposed 2x2 convolutions, normalised and activated, beside
    the encoder's channels. A 1x1 convolution with bias ends it. With `width=32`, `levels=4` and one
    channel: 7,756,097 parameters, as published.

    Any size will do: where a side is odd, the last row or column is left out on the way down, and
    mirrored on the way up.

    Attributes:
        width: channels of the first block.
        levels: number of halvings, at least 1.
        out_channels: channels of the result; those of the input if None.
        residual: whether the last `out_channels` channels of the input are added, as a learned step
            of an unrolled network wants it. fastMRI's does not.
        activation: elementwise function.
        differentiation: `"reverse"` is fast on CPU and allows reverse mode of any order;
            `"plain"` also allows `jax.jvp` and `jax.jacfwd`.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters, norms and the residual connection keep theirs.

    Source: Ronneberger, Fischer and Brox (2015), in the form of Zbontar et al., "fastMRI" (2018).
    """

    width: int = 32
    levels: int = 4
    out_channels: int | None = None
    residual: bool = False
    activation: Callable[[Array], Array] = activation("leaky_relu_0.2")
    differentiation: Differentiation = "reverse"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `(height, width, channels)` to `(height, width, out_channels)`."""
        if self.levels < 1:
            raise ValueError(f"levels must be at least 1, got {self.levels}")
        if min(x.shape[-3:-1]) < 2 ** (self.levels + 1):
            raise ValueError(
                f"{self.levels} halvings need an image of at least {2 ** (self.levels + 1)} pixels "
                f"a side, got {x.shape}"
            )
        out_channels = x.shape[-1] if self.out_channels is None else self.out_channels
        skip, x = x[..., -out_channels:], cast(x, self.dtype)
        encoded = []
        for level in range(self.levels):
            x = self._block(x, self.width * 2**level)
            encoded.append(x)
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = self._block(x, self.width * 2**self.levels)
        for level in reversed(range(self.levels)):
            features, beside = self.width * 2**level, encoded.pop()
            x = self._activated(self._doubled(x, features))
            odd = [(0, 0)] * (x.ndim - 3)
            odd += [(0, beside.shape[axis] - x.shape[axis]) for axis in (-3, -2)] + [(0, 0)]
            x = jnp.concatenate([jnp.pad(x, odd, mode="reflect"), beside], axis=-1)
            x = self._block(x, features)
        inputs = x.shape[-1]
        x = Conv(
            out_channels,
            1,
            kernel_init=uniform_kernel,
            bias_init=uniform_bias(inputs),
            differentiation=self.differentiation,
        )(x)
        return x + skip if self.residual else x

    def _block(self, x: Array, features: int) -> Array:
        for _ in range(2):
            x = self._activated(self._convolution(x, features, 3))
        return x

    def _convolution(self, x: Array, features: int, kernel_size: int) -> Array:
        return Conv(
            features,
            kernel_size,
            use_bias=False,
            kernel_init=uniform_kernel,
            differentiation=self.differentiation,
        )(x)

    def _activated(self, x: Array) -> Array:
        norm = GroupNorm(x.shape[-1], affine=False, differentiation=self.differentiation)
        return self.activation(norm(x))

    def _doubled(self, x: Array, features: int) -> Array:
        # A transposed 2x2 convolution of stride 2 is a 1x1 convolution to the four pixels that each
        # pixel becomes.
        x = self._convolution(x, 4 * features, 1)
        *lead, height, width, _ = x.shape
        x = x.reshape(*lead, height, width, 2, 2, features)
        return jnp.moveaxis(x, -4, -3).reshape(*lead, 2 * height, 2 * width, features)
