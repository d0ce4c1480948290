"""The denoiser of MoDL."""

from functools import partial

import jax
from flax import linen as nn
from jax.typing import DTypeLike

from jitter_jax.networks.layers import BatchNorm, Conv, Differentiation, Statistics
from jitter_jax.networks.precision import cast

Array = jax.Array


class MoDLCNN(nn.Module):
    """`depth` 3x3 convolutions without bias, each with `BatchNorm`, and a skip connection.

    ReLU follows each norm but the last; the input is added to the result. With `depth=5`,
    `width=64` and two channels: 113,412 parameters, as published, besides the statistics of the
    norms.

    Attributes:
        depth: number of convolutions, at least 2.
        width: hidden channels.
        out_channels: channels of the result; those of the input if None. The skip connection takes
            the last `out_channels` channels of the input.
        residual: whether the input is added.
        statistics: what the norms normalise by; see `BatchNorm`. The default uses stored
            statistics, those of the training set in a published network, and mean 0 and
            variance 1 in a new one, where the norm is a learned scale and shift.
        axis_name: named axes whose signals share their statistics; see `BatchNorm`.
        epsilon: added to the variance by the norms; the published weights need 1e-3.
        differentiation: `"reverse"` is fast on CPU and allows reverse mode of any order;
            `"plain"` also allows `jax.jvp` and `jax.jacfwd`.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters, norms and the residual connection keep theirs.

    Source: Aggarwal, Mani and Jacob, "MoDL" (2019), and its public code. The kernels are drawn
    from He's normal distribution: with frozen statistics nothing else keeps the scale of the
    signal from layer to layer.
    """

    depth: int = 5
    width: int = 64
    out_channels: int | None = None
    residual: bool = True
    statistics: Statistics = "frozen"
    axis_name: str | tuple[str, ...] | None = None
    epsilon: float = 1e-3
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
            Conv,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            differentiation=self.differentiation,
        )
        norm = partial(BatchNorm, self.statistics, self.axis_name, self.epsilon)
        for _ in range(self.depth - 1):
            x = nn.relu(norm()(convolution(self.width)(x)))
        x = norm()(convolution(out_channels)(x))
        return x + skip if self.residual else x
