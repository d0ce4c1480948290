"""The network that weighs the noisy copies in weighted smoothing."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jitter_jax.networks.initializers import uniform_bias, uniform_kernel
from jitter_jax.networks.layers import BatchNorm, Conv, Differentiation, Statistics
from jitter_jax.networks.precision import cast, wide

Array = jax.Array


class WeightEncoder(nn.Module):
    """One weight in (0, 1) for an image: what the average over noisy copies of it goes by.

    `depth` 3x3 convolutions without bias, each followed by `BatchNorm` and ReLU; the mean over all
    pixels; one linear map; the sigmoid. With `depth=5`, `width=16` and two channels: 9,681
    parameters, as published, besides the statistics of the norms.

    The default leaves those statistics where they are, at mean 0 and variance 1 for a new network:
    the norm is then a learned scale and shift, and the weight of an image depends on that image
    alone. The published code trains with the statistics of the whole batch of noisy copies, where
    the weights of one signal move with its neighbours; that reading is `statistics="signal"` with
    `axis_name=("batch", "samples")`, the axes that `data.batch` and `smoothing` map over.

    Attributes:
        depth: number of convolutions, at least 1.
        width: hidden channels.
        statistics: what the norms normalise by; see `BatchNorm`.
        axis_name: named axes whose signals share their statistics; see `BatchNorm`.
        differentiation: `"reverse"` is fast on CPU and allows reverse mode of any order;
            `"plain"` also allows `jax.jvp` and `jax.jacfwd`.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters, norms and all behind the mean keep theirs.

    Source: the encoder of weighted SMUG (Liang et al.), in the form of its public code. The
    kernels are drawn from He's normal distribution: with frozen statistics nothing else keeps the
    scale of the signal from layer to layer.
    """

    depth: int = 5
    width: int = 16
    statistics: Statistics = "frozen"
    axis_name: str | tuple[str, ...] | None = None
    differentiation: Differentiation = "reverse"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `(..., height, width, channels)` to the weights, `(...)`."""
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")
        convolution = partial(
            Conv,
            self.width,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            differentiation=self.differentiation,
        )
        x = cast(x, self.dtype)
        for _ in range(self.depth):
            x = nn.relu(BatchNorm(self.statistics, self.axis_name)(convolution()(x)))
        features = jnp.mean(wide(x), (-3, -2))
        linear = nn.Dense(1, kernel_init=uniform_kernel, bias_init=uniform_bias(self.width))
        return nn.sigmoid(linear(features))[..., 0]
