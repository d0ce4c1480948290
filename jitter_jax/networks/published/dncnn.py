"""Published DnCNN denoisers, their batch norms merged into the convolutions."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from jitter_jax.networks.layers import Conv, Differentiation
from jitter_jax.networks.precision import cast
from jitter_jax.networks.published._arrays import Shapes, read_arrays, size

Array = jax.Array
Params = Any

_EPSILON = 1e-5  # of SCICO's norms


class PlainDnCNN(nn.Module):
    """A denoiser `f(x) = x - g(x)`: `depth` 3x3 convolutions with a bias, ReLU between them.

    Attributes:
        depth: number of convolutions, at least 2.
        width: hidden channels.
        circular: continue the image periodically beyond its border, instead of by zeros.
        differentiation: `"reverse"` is fast on CPU and allows reverse mode of any order;
            `"plain"` also allows `jax.jvp` and `jax.jacfwd`.
        dtype: type of the products and of what is between them, such as bfloat16; that of the
            input if None. Parameters, norms and the residual connection keep theirs.

    Source: Zhang et al., "Beyond a Gaussian denoiser: residual learning of deep CNN for image
    denoising" (2017).
    """

    depth: int = 17
    width: int = 64
    circular: bool = False
    differentiation: Differentiation = "reverse"
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `(height, width, channels)` to the same shape."""
        if self.depth < 2:
            raise ValueError(f"depth must be at least 2, got {self.depth}")
        noise = cast(x, self.dtype)
        for _ in range(self.depth - 1):
            noise = nn.relu(self._convolution(noise, self.width))
        return x - self._convolution(noise, x.shape[-1])

    def _convolution(self, x: Array, features: int) -> Array:
        convolution = Conv(features, differentiation=self.differentiation)
        if not self.circular:
            return convolution(x)
        return convolution(jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode="wrap"))[1:-1, 1:-1]


def load_dncnn(path: str | Path) -> tuple[PlainDnCNN, Params]:
    """Reads a published DnCNN for one noise level.

    `network.apply(params, noisy)` is the estimate of an image in [0, 1].

    Args:
        path: `.npz` file with `layers.<m>.layer<n>.weight`, `(3, 3, inputs, outputs)`, and `.bias`,
            `(outputs,)`, of each convolution, in the order of `m`; the batch norms are merged.

    Returns:
        The network and its parameters.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its arrays are not those of such a network.

    Source: Zhang et al. (2017), cszn/DnCNN.
    """
    values = read_arrays(path, "a DnCNN with merged norms", _shapes)
    names = _layers(values)
    weights = {
        f"Conv_{layer}": {"kernel": values[f"{name}.weight"], "bias": values[f"{name}.bias"]}
        for layer, name in enumerate(names)
    }
    return PlainDnCNN(len(names), values[f"{names[0]}.weight"].shape[-1]), {"params": weights}


def load_scico_dncnn(path: str | Path) -> tuple[PlainDnCNN, Params]:
    """Reads a DnCNN that comes with SCICO, and merges its batch norms into its convolutions.

    `network.apply(params, noisy)` is the estimate of an image in [0, 1].

    Args:
        path: `.npz` file with the variables of the Flax module by their paths: kernels
            `params/conv_start/kernel`, `params/ConvBNBlock_<n>/Conv_0/kernel` and
            `params/conv_end/kernel`, `(3, 3, inputs, outputs)`, and `scale` and `bias` in
            `params/ConvBNBlock_<n>/BatchNorm_0/` and `mean` and `var` in
            `batch_stats/ConvBNBlock_<n>/BatchNorm_0/`, `(outputs,)`.

    Returns:
        The network and its parameters.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its arrays are not those of such a network.

    Source: lanl/scico-data, the denoisers of SCICO.
    """
    values = read_arrays(path, "a DnCNN of SCICO", _scico_shapes)
    first, last = values["params/conv_start/kernel"], values["params/conv_end/kernel"]
    layers = [(first, jnp.zeros(first.shape[-1]))]
    for block in range(_num_blocks(values)):
        layers.append(_merged(values, f"ConvBNBlock_{block}"))
    layers.append((last, jnp.zeros(last.shape[-1])))
    weights = {
        f"Conv_{layer}": {"kernel": kernel, "bias": bias}
        for layer, (kernel, bias) in enumerate(layers)
    }
    return PlainDnCNN(len(layers), first.shape[-1], circular=True), {"params": weights}


def _merged(values: dict[str, Array], block: str) -> tuple[Array, Array]:
    """Returns kernel and bias of a convolution with the norm that follows it."""
    norm, statistics = f"params/{block}/BatchNorm_0", f"batch_stats/{block}/BatchNorm_0"
    factor = values[f"{norm}/scale"] / jnp.sqrt(values[f"{statistics}/var"] + _EPSILON)
    bias = values[f"{norm}/bias"] - values[f"{statistics}/mean"] * factor
    kernel = values[f"params/{block}/Conv_0/kernel"]
    return kernel * jnp.broadcast_to(factor, kernel.shape), bias


def _layers(names: Iterable[str]) -> list[str]:
    """Returns the names of the convolutions in their order."""
    found = {name.rpartition(".")[0] for name in names if name.endswith(".weight")}
    return sorted(found, key=_place)


def _place(name: str) -> int:
    number = name.split(".")[1] if name.count(".") == 2 else ""
    return int(number) if number.isdigit() else -1


def _shapes(found: Shapes) -> Shapes:
    names = _layers(found)
    # A network has two layers at least; a file without any lacks these.
    names += [f"layers.{2 * layer}.layer" for layer in range(len(names), 2)]
    width = size(found, f"{names[0]}.weight", -1, num_axes=4, default=64)
    channels = size(found, f"{names[0]}.weight", 2, num_axes=4, default=1)
    shapes: Shapes = {}
    for name in names:
        inputs = channels if name == names[0] else width
        outputs = channels if name == names[-1] else width
        shapes |= {f"{name}.weight": (3, 3, inputs, outputs), f"{name}.bias": (outputs,)}
    return shapes


def _num_blocks(names: Iterable[str]) -> int:
    return sum(name.endswith("/Conv_0/kernel") for name in names)


def _scico_shapes(found: Shapes) -> Shapes:
    width = size(found, "params/conv_start/kernel", -1, num_axes=4, default=64)
    channels = size(found, "params/conv_start/kernel", 2, num_axes=4, default=1)
    shapes: Shapes = {
        "params/conv_start/kernel": (3, 3, channels, width),
        "params/conv_end/kernel": (3, 3, width, channels),
    }
    for block in range(_num_blocks(found)):
        name = f"ConvBNBlock_{block}"
        shapes[f"params/{name}/Conv_0/kernel"] = (3, 3, width, width)
        for entry in ("scale", "bias"):
            shapes[f"params/{name}/BatchNorm_0/{entry}"] = (width,)
        for entry in ("mean", "var"):
            shapes[f"batch_stats/{name}/BatchNorm_0/{entry}"] = (width,)
    return shapes
