"""The phases of ISTA-Net++ and ISTA-Net+, learned steps whose weights are not shared."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jitter_jax.networks.initializers import uniform_bias, uniform_kernel
from jitter_jax.networks.layers import Conv, Differentiation
from jitter_jax.networks.precision import cast, wide

Array = jax.Array
# Not `xavier_normal`, which cuts the tails of the normal distribution off.
_xavier = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")


class ISTANetPPPhase(nn.Module):
    """The proximal map of one phase of ISTA-Net++, `f(x, s) = x + tail(h)`.

    `h` is made by a convolution of `x` and of a channel that is `s` everywhere, and then by
    `num_blocks` residual blocks `h + conv(relu(conv(h)))`. All convolutions are 3x3 with a bias.
    With `width=32`, two blocks and one channel: 37,889 parameters.

    Attributes:
        width: hidden channels.
        num_blocks: number of residual blocks.
        differentiation: `"reverse"` is fast on CPU and allows reverse mode of any order;
            `"plain"` also allows `jax.jvp` and `jax.jacfwd`.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters, norms and the residual connection keep theirs.

    Source: You, Xie and Zhang, "ISTA-Net++: flexible deep unfolding network for compressive
    sensing" (2021), and its public code.
    """

    width: int = 32
    num_blocks: int = 2
    differentiation: Differentiation = "reverse"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, level: Array) -> Array:
        """Maps `(..., height, width, channels)` to the same shape.

        Args:
            x: the iterate after the data step.
            level: `s`, scalar.
        """
        level_map = jnp.broadcast_to(level.astype(x.dtype), (*x.shape[:-1], 1))
        h = cast(jnp.concatenate([x, level_map], axis=-1), self.dtype)
        h = self._convolution(h, self.width)
        for _ in range(self.num_blocks):
            inner = nn.relu(self._convolution(h, self.width))
            h = h + self._convolution(inner, self.width)
        return x + self._convolution(h, x.shape[-1])

    def _convolution(self, x: Array, features: int) -> Array:
        return Conv(
            features,
            kernel_init=uniform_kernel,
            bias_init=uniform_bias(9 * x.shape[-1]),
            differentiation=self.differentiation,
        )(x)


class ConditionNetwork(nn.Module):
    """Positive numbers for a condition: dense layers with ReLU between them and a softplus last.

    With `num_outputs=40` and `width=32`: 2,440 parameters.

    Attributes:
        num_outputs: how many numbers.
        width: units of each of the two hidden layers.

    Source: as for `ISTANetPPPhase`; its code hands the noise level over beside the ratio, and does
    not use it.
    """

    num_outputs: int
    width: int = 32

    @nn.compact
    def __call__(self, condition: Array) -> Array:
        """Maps a scalar, such as the sampling ratio, to `(num_outputs,)`."""
        h = condition[None]
        for _ in range(2):
            h = nn.relu(self._dense(h, self.width))
        return nn.softplus(self._dense(h, self.num_outputs))

    def _dense(self, h: Array, features: int) -> Array:
        bias_init = uniform_bias(h.shape[-1])
        return nn.Dense(features, kernel_init=uniform_kernel, bias_init=bias_init)(h)


class ISTANetPlusPhase(nn.Module):
    """The proximal map of one phase of ISTA-Net+: a threshold between two learned transforms.

    `f(x) = x + G(B(soft(F(D(x)), t)))`, where `D` and `G` are 3x3 convolutions to and from `width`
    channels, `F` and `B` are two convolutions each with a ReLU between them, none has a bias, and
    `soft(v, t) = sign(v) max(|v| - t, 0)` with a learned `t`. With `width=32` and one channel:
    37,441 parameters. ISTA-Net is `f(x) = B(soft(F(x), t))`, of 19,009 parameters.

    Attributes:
        width: hidden channels.
        residual: the form of ISTA-Net+; otherwise that of ISTA-Net.
        differentiation: `"reverse"` is fast on CPU and allows reverse mode of any order;
            `"plain"` also allows `jax.jvp` and `jax.jacfwd`.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters, norms and the residual connection keep theirs.

    Source: Zhang and Ghanem, "ISTA-Net: interpretable optimization-inspired deep network for image
    compressive sensing" (2018), and its public code.
    """

    width: int = 32
    residual: bool = True
    differentiation: Differentiation = "reverse"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `(..., height, width, channels)` to the same shape."""
        channels = x.shape[-1]
        threshold = self.param("threshold", nn.initializers.constant(0.01), ())
        h = cast(x, self.dtype)
        h = self._convolution(h, self.width) if self.residual else h
        h = nn.relu(self._convolution(h, self.width))
        h = self._convolution(h, self.width)
        # Wide, since the derivative in the threshold is a sum over all pixels.
        size = wide(jnp.abs(h))
        h = jnp.sign(h) * nn.relu(size - threshold.astype(size.dtype)).astype(h.dtype)
        h = nn.relu(self._convolution(h, self.width))
        h = self._convolution(h, self.width if self.residual else channels)
        return x + self._convolution(h, channels) if self.residual else h

    def _convolution(self, x: Array, features: int) -> Array:
        return Conv(
            features,
            use_bias=False,
            kernel_init=_xavier,
            differentiation=self.differentiation,
        )(x)
