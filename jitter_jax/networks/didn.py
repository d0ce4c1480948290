"""DIDN, the denoiser of SMUG."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jitter_jax.networks.layers import Conv, Differentiation
from jitter_jax.networks.precision import cast, wide

Array = jax.Array


class DIDN(nn.Module):
    """Deep iterative down-up network: U-shaped blocks in a chain, at half the resolution.

    A 3x3 convolution to `width` channels and one of stride 2 lead to the chain of `DownUp` blocks.
    The results of all blocks side by side go through a 1x1 convolution and a residual 3x3
    convolution, a pixel shuffle back to the full resolution (which leaves `width / 4` channels) and
    a last 3x3 convolution; the input is added to the result. All convolutions have biases; all but
    the last and those before a pixel shuffle or after a concatenation are followed by a PReLU with
    one slope. With `width=64`, three blocks and two channels: 5,021,761 parameters, as published.

    Any size will do: an image is padded with zeros to a multiple of 8 a side, half of them before
    it (the smaller half, if they are odd in number), and cropped again. The published code puts as
    many after as before and fails for odd sizes; for even ones it is the same.

    Attributes:
        width: channels at half the resolution, a multiple of 4.
        num_blocks: number of down-up blocks, at least 1.
        out_channels: channels of the result; those of the input if None. The residual connection
            takes the last `out_channels` channels of the input.
        residual: whether the input is added.
        differentiation: `"reverse"` is fast on CPU and allows reverse mode of any order;
            `"plain"` also allows `jax.jvp` and `jax.jacfwd`.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters, norms and the residual connection keep theirs.

    Source: Yu, Park and Jeong, "Deep Iterative Down-Up CNN for Image Denoising" (2019), in the form
    and with the first weights (normal, standard deviation 0.02) of the public code of SMUG.
    """

    width: int = 64
    num_blocks: int = 3
    out_channels: int | None = None
    residual: bool = True
    differentiation: Differentiation = "reverse"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `(height, width, channels)` to `(height, width, out_channels)`."""
        if self.width < 4 or self.width % 4:
            raise ValueError(f"width must be a positive multiple of 4, got {self.width}")
        if self.num_blocks < 1:
            raise ValueError(f"num_blocks must be at least 1, got {self.num_blocks}")
        out_channels = x.shape[-1] if self.out_channels is None else self.out_channels
        skip = x[..., -out_channels:]
        height, width = x.shape[-3:-1]
        x = cast(x, self.dtype)
        missing = [-side % _MULTIPLE for side in (height, width)]
        before = [rows // 2 for rows in missing]
        after = [rows - rows // 2 for rows in missing]
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*zip(before, after, strict=True), (0, 0)])

        x = _activated(self._convolution(x, self.width))
        x = _activated(self._convolution(x, self.width, stride=2))
        results = []
        for _ in range(self.num_blocks):
            x = DownUp(self.differentiation)(x)
            results.append(x)
        x = _activated(self._convolution(jnp.concatenate(results, -1), self.width, 1))
        x = x + _activated(self._convolution(x, self.width))
        x = self._convolution(_shuffled(x), out_channels)

        x = x[..., before[0] : before[0] + height, before[1] : before[1] + width, :]
        return x + skip if self.residual else x

    def _convolution(self, x: Array, features: int, size: int = 3, stride: int = 1) -> Array:
        return _convolution(x, features, size, stride, self.differentiation)


class DownUp(nn.Module):
    """A block of `DIDN`: down to a quarter of the resolution and up again, with skip connections.

    Strided 3x3 convolutions go down and double the channels; a 1x1 convolution that doubles the
    channels and a pixel shuffle, which leaves half of those below, go up. A 1x1 convolution
    takes these beside the channels that were there on the way down. At every level, residual 3x3
    convolutions with PReLU work on the way down and up; one more ends the block, whose input is
    added.

    Attributes:
        differentiation: as for `DIDN`.
    """

    differentiation: Differentiation = "reverse"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Keeps the shape `(height, width, channels)`; both sides are multiples of 4."""
        width, whole = x.shape[-1], x
        x = x + self._layers(x, 2)
        full = x
        x = _activated(self._convolution(x, 2 * width, stride=2))
        x = x + self._layers(x, 1)
        half = x
        x = _activated(self._convolution(x, 4 * width, stride=2))
        x = x + self._layers(x, 1)
        x = self._up(x, half)
        x = x + self._layers(x, 1)
        x = self._up(x, full)
        x = x + self._layers(x, 2)
        return whole + self._convolution(x, width)

    def _layers(self, x: Array, depth: int) -> Array:
        for _ in range(depth):
            x = _activated(self._convolution(x, x.shape[-1]))
        return x

    def _up(self, x: Array, beside: Array) -> Array:
        x = _shuffled(self._convolution(x, 2 * x.shape[-1], 1))
        return self._convolution(jnp.concatenate([x, beside], -1), beside.shape[-1], 1)

    def _convolution(self, x: Array, features: int, size: int = 3, stride: int = 1) -> Array:
        return _convolution(x, features, size, stride, self.differentiation)


# Halvings: one before the blocks, two in them.
_MULTIPLE = 8


def _convolution(
    x: Array, features: int, size: int, stride: int, differentiation: Differentiation
) -> Array:
    return Conv(
        features,
        size,
        stride=stride,
        kernel_init=nn.initializers.normal(0.02),
        differentiation=differentiation,
    )(x)


def _activated(x: Array) -> Array:
    # Wide, since the derivative in the slope is a sum over all pixels.
    return nn.PReLU(negative_slope_init=0.25)(wide(x)).astype(x.dtype)


def _shuffled(x: Array) -> Array:
    """Pixel shuffle: each pixel becomes 2x2, filled row by row from four consecutive channels."""
    *lead, height, width, channels = x.shape
    x = x.reshape(*lead, height, width, channels // 4, 2, 2)
    x = jnp.moveaxis(x, (-2, -1), (-4, -2))
    return x.reshape(*lead, 2 * height, 2 * width, channels // 4)
