"""The denoiser of DPDNN: a U-Net of one width at all scales, without normalisation."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jitter_jax.networks.layers import Conv, Differentiation
from jitter_jax.networks.precision import cast

Array = jax.Array
_xavier = nn.initializers.xavier_uniform()
_he = nn.initializers.he_normal()


class DPDNNUNet(nn.Module):
    """An encoder and a decoder of `levels` halvings with `width` channels everywhere.

    A level of the encoder is three 3x3 convolutions and one of stride 2; one convolution follows at
    the bottom; a level of the decoder is a transposed 3x3 convolution of stride 2 without bias, a
    1x1 convolution of it beside the encoder's channels, and four 3x3 convolutions. A ReLU follows
    each convolution but the transposed ones and the last, which is added to the input. With
    `width=64`, `levels=4` and one channel: 1,363,393 parameters.

    Any size will do: a side of `n` pixels becomes one of `ceil(n / 2)`, and the transposed
    convolution is the transpose of that.

    Attributes:
        width: channels.
        levels: number of halvings, at least 1.
        differentiation: `"reverse"` is fast on CPU and allows reverse mode of any order;
            `"plain"` also allows `jax.jvp` and `jax.jacfwd`.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters, norms and the residual connection keep theirs.

    Source: Dong et al., "Denoising prior driven deep neural network for image restoration" (2018).
    """

    width: int = 64
    levels: int = 4
    differentiation: Differentiation = "reverse"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `(height, width, channels)` to the same shape."""
        if self.levels < 1:
            raise ValueError(f"levels must be at least 1, got {self.levels}")
        given, x, encoded = x, cast(x, self.dtype), []
        for _ in range(self.levels):
            for _ in range(3):
                x = nn.relu(self._convolution(x))
            encoded.append(x)
            x = nn.relu(self._convolution(x, stride=2))
        x = nn.relu(self._convolution(x))
        for beside in reversed(encoded):
            x = TransposedConv(self.width)(x, (beside.shape[-3], beside.shape[-2]))
            x = jnp.concatenate([x, beside], axis=-1)
            x = nn.relu(self._convolution(x, kernel_size=1))
            for _ in range(4):
                x = nn.relu(self._convolution(x))
        return given + self._convolution(x, features=given.shape[-1])

    def _convolution(
        self, x: Array, *, kernel_size: int = 3, features: int | None = None, stride: int = 1
    ) -> Array:
        return Conv(
            self.width if features is None else features,
            kernel_size,
            kernel_init=_xavier,
            differentiation=self.differentiation,
            stride=stride,
        )(x)


class TransposedConv(nn.Module):
    """The transpose of a 3x3 convolution of stride 2, zero-padded to the size of its input.

    `z[2 h + i - 1, 2 w + j - 1, o] += k[i, j, c, o] x[h, w, c]` inside of the size asked for. It is
    computed as nine products at the smaller size, without a zero put between the pixels.

    Attributes:
        features: number of output channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array, size: tuple[int, int]) -> Array:
        """Maps `(..., height, width, channels)` to `(..., *size, features)`.

        Args:
            x: pixels; each side is half of `size`, rounded up.
            size: `(height, width)` of the result.
        """
        smaller = tuple(-(-side // 2) for side in size)
        if x.shape[-3:-1] != smaller:
            raise ValueError(f"x must have sides {smaller} for size={size}, got {x.shape}")
        kernel = self.param("kernel", _he, (3, 3, x.shape[-1], self.features)).astype(x.dtype)
        *lead, height, width, _ = x.shape
        beyond = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(0, 1), (0, 1), (0, 0)])

        def products(row: int, column: int) -> Array:
            # An even place is reached by the kernel's middle, an odd one by both of its ends: the
            # last from the pixel before it, the first from the one behind.
            terms = [
                beyond[..., down : down + height, right : right + width, :] @ kernel[i, j]
                for down, i in (((0, 1),), ((0, 2), (1, 0)))[row]
                for right, j in (((0, 1),), ((0, 2), (1, 0)))[column]
            ]
            return sum(terms[1:], terms[0])

        rows = [jnp.stack([products(i, 0), products(i, 1)], axis=-2) for i in (0, 1)]
        z = jnp.stack(rows, axis=-4)  # (..., height, 2, width, 2, features)
        z = z.reshape(*lead, 2 * height, 2 * width, self.features)
        return z[..., : size[0], : size[1], :]
