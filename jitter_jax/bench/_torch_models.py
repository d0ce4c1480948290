"""The networks and their unrolls in PyTorch, with the library's parameters.

Written from the mathematics, in PyTorch's own layout ``(batch, channels, height, width)``. Only a
worker of the benchmark imports it, and only where PyTorch is installed.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from torch import nn  # type: ignore[import-not-found,unused-ignore]

from jitter_jax.bench._torch_didn import DIDN
from jitter_jax.bench.cases import Plain

Arrays = Mapping[str, np.ndarray]


class Peer(NamedTuple):
    """A problem in PyTorch.

    Attributes:
        model: the reconstruction, `(y, sigma) -> x`; `sigma` is the jitter's level or None.
        signal: truths, `(batch, channels, height, width)`, complex ones as two channels.
        measurement: their measurements.
        support: 1 where measurements have entries, broadcasts to them; attacks live there.
    """

    model: Callable[..., torch.Tensor]
    signal: torch.Tensor
    measurement: torch.Tensor
    support: torch.Tensor | float = 1.0


def seismic_cnn(channels: int, width: int, num_groups: int) -> nn.Sequential:
    """Return `channels -> width -> width -> width -> 1` by 3x3, then 1x1, with biases."""
    layers: list[nn.Module] = []
    for inputs in (channels, width, width):
        layers += [
            nn.Conv2d(inputs, width, 3, padding=1),
            nn.GroupNorm(num_groups, width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1), nn.Conv2d(1, 1, 1))


class GradientUnroll(nn.Module):
    """`x <- x - eta (A^T (A x - y) + f(y, x) + w)`, K times from `x = y`.

    `eta = scale * sigmoid(p)`; `w` is normal, of standard deviation `sigma max |g|` with
    `g = x - eta A^T (A x - y)`, the maximum over each signal by itself and without a gradient.

    Args:
        network: f, of `y` and `x` as two channels.
        matrix: A, `(height, height)`, which acts along the height.
        unroll: the config's, with K and the step size.
    """

    matrix: torch.Tensor

    def __init__(self, network: nn.Module, matrix: torch.Tensor, unroll: Plain):
        super().__init__()
        self.network = network
        self.register_buffer("matrix", matrix)
        self.num_iterations = unroll["num_iterations"]
        self.parameter = nn.Parameter(torch.tensor(float(unroll["step_size"]["init"])))
        self.scale = unroll["step_size"]["scale"]

    def forward(self, y: torch.Tensor, sigma: float | None = None) -> torch.Tensor:
        """Reconstruct `(batch, 1, height, width)`."""
        eta = self.scale * torch.sigmoid(self.parameter)
        x = y
        for _ in range(self.num_iterations):
            gradient = self.matrix.T @ (self.matrix @ x - y)
            total = gradient + self.network(torch.cat([y, x], dim=1))
            if sigma is not None:
                level = sigma * (x - eta * gradient).detach().abs().amax((1, 2, 3), keepdim=True)
                total = total + level * torch.randn_like(x)
            x = x - eta * total
        return x


def convolution_matrix(num_points: int, width: float, length: int) -> torch.Tensor:
    """Return the matrix of the `same` convolution with a Ricker wavelet."""
    time = (np.arange(num_points) - (num_points - 1) / 2) / width
    wavelet = (1 - time**2) * np.exp(-(time**2) / 2)
    wavelet = wavelet / wavelet.max()
    matrix = np.zeros((length, length), np.float32)
    for tap, value in enumerate(wavelet):
        matrix += value * np.eye(length, k=(num_points - 1) // 2 - tap, dtype=np.float32)
    return torch.from_numpy(matrix)


def dncnn(channels: int, width: int, depth: int, num_groups: int) -> nn.Sequential:
    """Return `depth` 3x3 convolutions without bias, GroupNorm on the inner ones."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.ReLU()]
    for _ in range(depth - 2):
        layers += [
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(num_groups, width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1, bias=False))


class MRIUnroll(nn.Module):
    """`x <- x - eta (A^H (A x - y) + f(x) + x + w)`, K times from `x = A^H y`, with `A = M F`.

    `eta = exp(p)`; `w` is normal, of standard deviation `sigma max |g|` with
    `g = x - eta A^H (A x - y)`, the maximum over each signal by itself and without a gradient.

    Args:
        network: f, of real and imaginary part as two channels; the skip connection adds `x`.
        mask: M, `(height, width)` of 0 and 1, zero frequency in the middle.
        unroll: the config's, with K and the step size.
    """

    mask: torch.Tensor

    def __init__(self, network: nn.Module, mask: torch.Tensor, unroll: Plain):
        super().__init__()
        self.network = network
        self.register_buffer("mask", mask)
        self.num_iterations = unroll["num_iterations"]
        self.parameter = nn.Parameter(torch.tensor(float(unroll["step_size"]["init"])))

    def measure(self, x: torch.Tensor) -> torch.Tensor:
        """Return `A x` of two channels."""
        shifted = torch.fft.ifftshift(_complex(x), dim=(-2, -1))
        k = torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))
        return _channels(self.mask * k)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """Return `A^H y` of two channels."""
        shifted = torch.fft.ifftshift(self.mask * _complex(y), dim=(-2, -1))
        x = torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=(-2, -1))
        return _channels(x)

    def forward(self, y: torch.Tensor, sigma: float | None = None) -> torch.Tensor:
        """Reconstruct `(batch, 2, height, width)`."""
        eta = torch.exp(self.parameter)
        x = self.adjoint(y)
        for _ in range(self.num_iterations):
            gradient = self.adjoint(self.measure(x) - y)
            total = gradient + self.network(x) + x
            if sigma is not None:
                iterate = _complex((x - eta * gradient).detach())
                level = sigma * iterate.abs().amax((1, 2))[:, None, None, None]
                total = total + level * torch.randn_like(x)
            x = x - eta * total
        return x


def _complex(x: torch.Tensor) -> torch.Tensor:
    # Transforms are in single precision, whatever the network computes in.
    return torch.complex(x[:, 0].float(), x[:, 1].float())


def _channels(z: torch.Tensor) -> torch.Tensor:
    return torch.stack([z.real, z.imag], dim=1)


def _seismic(config: Plain, arrays: Arrays) -> nn.Module:
    network, operator = config["network"], config["operator"]
    height = arrays["signal"].shape[1]
    matrix = convolution_matrix(operator["wavelet_points"], operator["wavelet_width"], height)
    cnn = seismic_cnn(2, network["width"], network["num_groups"])
    return GradientUnroll(cnn, matrix, config["unroll"])


def _mri(config: Plain, arrays: Arrays) -> nn.Module:
    network = config["network"]
    cnn = dncnn(2, network["width"], network["depth"], network["num_groups"])
    return MRIUnroll(cnn, _mask(arrays), config["unroll"])


def _didn(config: Plain, arrays: Arrays) -> nn.Module:
    network = config["network"]
    return MRIUnroll(DIDN(network["width"], network["depth"]), _mask(arrays), config["unroll"])


def _mask(arrays: Arrays) -> torch.Tensor:
    return torch.from_numpy(arrays["mask"].astype(np.float32))


PEERS: dict[str, Callable[[Plain, Arrays], nn.Module]] = {
    "seismic": _seismic,
    "mri": _mri,
    "didn": _didn,
}
"""The problems, by their names in `PROBLEMS`."""


def make_peer(problem: str, config: Plain, arrays: Arrays) -> Peer:
    """Return a problem with the parameters and the data of the library.

    Args:
        problem: name in `PEERS`.
        config: of the case.
        arrays: as `_agreement.arrays` makes them.

    Raises:
        ValueError: the parameters are not those of the network.
    """
    model = PEERS[problem](config, arrays)
    load(model, arrays)
    support = _mask(arrays) if "mask" in arrays else 1.0
    return Peer(model, _tensor(arrays["signal"]), _tensor(arrays["measurement"]), support)


def _tensor(x: np.ndarray) -> torch.Tensor:
    """Return `(batch, height, width, 1)` in PyTorch's layout."""
    parts = [x.real, x.imag] if np.iscomplexobj(x) else [x]
    return torch.from_numpy(np.stack([part[..., 0] for part in parts], axis=1))


_LAYERS = {"Conv": nn.Conv2d, "GroupNorm": nn.GroupNorm, "PReLU": nn.PReLU}
_WEIGHTS = {"kernel": "weight", "scale": "weight", "negative_slope": "weight", "bias": "bias"}


def load(model: nn.Module, arrays: Arrays) -> None:
    """Copy the library's parameters into a model, whose layers of a kind come in the same order."""
    given = {name for name in arrays if name.startswith("params/network/")}
    targets = {"params/step_size": model.get_parameter("parameter")}
    for kind, layer in _LAYERS.items():
        paths = {name.rpartition("/")[0] for name in given if re.search(rf"/{kind}_\d+/\w+$", name)}
        layers = [module for module in model.modules() if isinstance(module, layer)]
        for path, module in zip(sorted(paths, key=_in_order), layers, strict=True):
            for name in given:
                if name.rpartition("/")[0] == path:
                    targets[name] = getattr(module, _WEIGHTS[name.rpartition("/")[2]])
    if len({id(target) for target in targets.values()}) != len([*model.parameters()]):
        raise ValueError("the parameters are not those of the network in PyTorch")
    with torch.no_grad():
        for name, target in targets.items():
            value = arrays[name]
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
            target.copy_(torch.from_numpy(np.array(value)).reshape(target.shape))


def _in_order(path: str) -> list[tuple[str, int]]:
    """Sort `Conv_2` before `Conv_10`, and the layers of a module before those of its parts."""
    parts = [part.rpartition("_") for part in path.split("/")]
    return [(name, int(number) if number.isdecimal() else 0) for name, _, number in parts]
