"""The published networks in PyTorch, for `bin/bench` to time beside the library.

Written from the mathematics, eager, in PyTorch's own layout ``(batch, channels, height, width)``.
Only a worker of the benchmark imports it, and only where PyTorch is installed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from torch import nn  # type: ignore[import-not-found,unused-ignore]

from jitter_jax.bench.cases import EPSILON, STEP_SIZE, Case, Plain, Work
from jitter_jax.sampling import make_mask


class Peer(NamedTuple):
    """A problem in PyTorch.

    Attributes:
        model: the reconstruction, `(y, sigma) -> x`; `sigma` is the jitter's level or None.
        signal: truths, `(batch, channels, height, width)`, complex ones as two channels.
        measurement: their measurements.
        support: 1 where measurements have entries, broadcasts to them; attacks live there.
    """

    model: nn.Module
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


def seismic(config: Plain) -> Peer:
    """Return the seismic problem of a case's config."""
    network, operator = config["network"], config["operator"]
    height, width = config["data"]["sections"]["shape"]
    matrix = convolution_matrix(operator["wavelet_points"], operator["wavelet_width"], height)
    cnn = seismic_cnn(2, network["width"], network["num_groups"])
    model = GradientUnroll(cnn, matrix, config["unroll"])
    for layer in cnn:
        if isinstance(layer, nn.Conv2d):  # a tenth of He's normal distribution, fan out
            fan_out = layer.weight.shape[0] * layer.weight[0, 0].numel()
            nn.init.normal_(layer.weight, std=0.1 * (2 / fan_out) ** 0.5)
    shape = (config["train"]["batch_size"], 1, height, width)
    spikes = torch.randn(shape) * (torch.rand(shape) < 0.1)
    measurement = matrix @ spikes + config["data"]["noise_std"] * torch.randn(shape)
    peak = measurement.abs().amax((1, 2, 3), keepdim=True)
    return Peer(model, spikes / peak, measurement / peak)


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
    return torch.complex(x[:, 0], x[:, 1])


def _channels(z: torch.Tensor) -> torch.Tensor:
    return torch.stack([z.real, z.imag], dim=1)


def mri(config: Plain) -> Peer:
    """Return the MRI problem of a case's config."""
    data, network = config["data"], config["network"]
    settings = data["sampling"]
    mask = make_mask(
        settings["mask"],
        tuple(data["images"]["shape"]),
        settings["acceleration"],
        seed=settings["seed"],
        axis=settings["axis"],
    ).array
    cnn = dncnn(2, network["width"], network["depth"], network["num_groups"])
    mask = torch.from_numpy(mask.astype(np.float32))
    model = MRIUnroll(cnn, mask, config["unroll"])
    shape = (config["train"]["batch_size"], 2, *data["images"]["shape"])
    signal = torch.rand(shape)
    with torch.no_grad():
        measurement = model.measure(signal) + mask * data["noise_std"] * torch.randn(shape)
    return Peer(model, signal, measurement, mask)


PEERS: dict[str, Callable[[Plain], Peer]] = {"seismic": seismic, "mri": mri}
"""The problems, by their names in `PROBLEMS`."""


def make_work(case: Case, problem: str, config: Plain) -> Work:
    """Build what a case runs."""
    torch.manual_seed(0)
    peer = PEERS[problem](config)
    parameters = sum(p.numel() for p in peer.model.parameters())
    if case.kind == "train":
        return Work(training(peer, config), parameters)
    return Work(pgd_step(peer) if case.kind == "pgd" else inference(peer), parameters)


def training(peer: Peer, config: Plain) -> Callable[[], Any]:
    """Return what takes one training step: loss, gradient, clipping by norm, Adam."""
    scheme, optimizer_config = config["scheme"], config["optimizer"]
    sigma = scheme["jitter"]["sigma"] if scheme["name"] == "sgd_jitter" else None
    model, signal, measurement, _ = peer
    optimizer = torch.optim.Adam(model.parameters(), optimizer_config["learning_rate"])

    def step():
        optimizer.zero_grad()
        loss = torch.mean((model(measurement, sigma) - signal) ** 2)
        loss.backward()
        if optimizer_config["clip_norm"]:
            nn.utils.clip_grad_norm_(model.parameters(), optimizer_config["clip_norm"])
        optimizer.step()
        return loss.item()

    return step


def pgd_step(peer: Peer) -> Callable[[], Any]:
    """Return what takes one step of projected gradient ascent on the error of every signal."""
    model, signal, measurement, support = peer
    model.requires_grad_(False)
    radius = EPSILON * _norm(measurement)
    delta = torch.zeros_like(measurement)

    def step():
        nonlocal delta
        delta.requires_grad_(True)
        error = torch.mean((model(measurement + delta) - signal) ** 2, (1, 2, 3))
        (ascent,) = torch.autograd.grad(error.sum(), delta)
        with torch.no_grad():
            ascent = ascent * support
            moved = delta + STEP_SIZE * radius * ascent / _norm(ascent).clamp_min(1e-30)
            norm = _norm(moved)
            delta = moved * torch.where(norm > radius, radius / norm.clamp_min(1e-30), 1.0)
        return error

    return step


def inference(peer: Peer) -> Callable[[], Any]:
    """Return what reconstructs the batch."""

    def reconstruct():
        with torch.inference_mode():
            return peer.model(peer.measurement)

    return reconstruct


def _norm(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
