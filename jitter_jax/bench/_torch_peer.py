"""PyTorch's side of a case, in a process of its own: eager, or through `torch.compile`."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from torch import nn  # type: ignore[import-not-found,unused-ignore]

from jitter_jax.bench._torch_device import DEVICE, synchronized
from jitter_jax.bench._torch_models import Peer, make_peer
from jitter_jax.bench.cases import CASES, EPSILON, STEP_SIZE, Plain, Work

# By precision: how far the loss may lie from the library's, relative to it.
_TOLERANCES = {"default": 1e-2, "float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2}


def make_work(name: str, job: Plain) -> Work:
    """Build what a case runs.

    Raises:
        ValueError: the loss is not that of the library.
    """
    case, config = CASES[name], job["cases"][name]
    torch.manual_seed(0)
    _set_precision(job["precision"])
    with np.load(job["arrays"]) as arrays:
        peer = make_peer(job["problem"], config, arrays)
        expected = arrays["loss"]
    model = peer.model.to(DEVICE)  # type: ignore[attr-defined]
    parameters = [*model.parameters()]
    if job["framework"] == "torch_compile":
        model.compile()
    on_device: list[Any] = [x.to(DEVICE) if isinstance(x, torch.Tensor) else x for x in peer[1:]]
    computed = lambda *arguments: _in_precision(job["precision"], model, *arguments)
    peer = Peer(computed, *on_device)
    begin = time.perf_counter()
    check_agreement(peer, expected, _TOLERANCES[job["precision"]])  # compiles a forward pass
    compile_s = time.perf_counter() - begin
    if case.kind == "train":
        run = training(peer, parameters, config)
    else:
        for parameter in parameters:
            parameter.requires_grad_(False)
        steps = config["scheme"]["adversarial"]["attack"]["num_steps"]
        run = {
            "pgd": lambda: pgd_step(peer),
            "attack": lambda: attack(peer, steps),
            "inference": lambda: inference(peer),
        }[case.kind]()
    run = synchronized(run)
    compiled = job["framework"] == "torch_compile"
    if compiled:  # which the rest is when it first runs
        begin = time.perf_counter()
        run()
        compile_s += time.perf_counter() - begin
    return Work(run, sum(p.numel() for p in parameters), compile_s if compiled else None)


def _set_precision(precision: str) -> None:
    # As on the library's side, where nothing is asked for a GPU may take TF32.
    tf32 = precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True


def _in_precision(precision: str, model: nn.Module, *arguments: Any) -> torch.Tensor:
    context: AbstractContextManager = nullcontext()
    if precision == "bfloat16":
        context = torch.autocast(DEVICE.type, torch.bfloat16)
    with context:
        return model(*arguments).float()


def check_agreement(peer: Peer, expected: np.ndarray, tolerance: float) -> None:
    """Refuse a peer whose reconstructions are not as far from the truth as the library's.

    Raises:
        ValueError: the mean squared error of a signal is another.
    """
    with torch.no_grad():
        found = _errors(peer.model(peer.measurement), peer.signal).cpu().numpy()
    if not np.allclose(found, expected, rtol=tolerance, atol=0):
        raise ValueError(
            f"PyTorch does not compute what the library computes: errors of {found} beside "
            f"{expected}, and agreement to {tolerance:g} is expected"
        )


def training(
    peer: Peer, parameters: list[nn.Parameter], config: Plain
) -> Callable[[], torch.Tensor]:
    """Return what takes one training step: loss, gradient, clipping by norm, Adam."""
    scheme, optimizer_config = config["scheme"], config["optimizer"]
    sigma = scheme["jitter"]["sigma"] if scheme["name"] == "sgd_jitter" else None
    model, signal, measurement, _ = peer
    optimizer = torch.optim.Adam(parameters, optimizer_config["learning_rate"])

    def step():
        optimizer.zero_grad()
        loss = torch.mean(_errors(model(measurement, sigma), signal))
        loss.backward()
        if optimizer_config["clip_norm"]:
            nn.utils.clip_grad_norm_(parameters, optimizer_config["clip_norm"])
        optimizer.step()
        return loss.detach()

    return step


def pgd_step(peer: Peer) -> Callable[[], torch.Tensor]:
    """Return what takes one step of projected gradient ascent on the error of every signal."""
    delta = torch.zeros_like(peer.measurement)

    def step():
        nonlocal delta
        delta, error = _climbed(peer, delta)
        return error

    return step


def attack(peer: Peer, num_steps: int) -> Callable[[], torch.Tensor]:
    """Return what takes `num_steps` steps from zero, and keeps the best point."""

    def run():
        delta = torch.zeros_like(peer.measurement)
        best, largest = delta, torch.full((len(delta),), -torch.inf, device=delta.device)
        for _ in range(num_steps):
            visited = delta
            delta, error = _climbed(peer, visited)
            best, largest = _better(best, largest, visited, error)
        with torch.no_grad():
            error = _errors(peer.model(peer.measurement + delta), peer.signal)
        return _better(best, largest, delta, error)

    return run


def _climbed(peer: Peer, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the point after one step, and the errors before it."""
    model, signal, measurement, support = peer
    radius = EPSILON * _norm(measurement)
    delta = delta.detach().requires_grad_(True)
    error = _errors(model(measurement + delta), signal)
    (ascent,) = torch.autograd.grad(error.sum(), delta)
    with torch.no_grad():
        ascent = ascent * support
        moved = delta + STEP_SIZE * radius * ascent / _norm(ascent).clamp_min(1e-30)
        norm = _norm(moved)
        moved = moved * torch.where(norm > radius, radius / norm.clamp_min(1e-30), 1.0)
    return moved, error.detach()


def _better(
    best: torch.Tensor, largest: torch.Tensor, delta: torch.Tensor, error: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    larger = error > largest
    best = torch.where(larger[:, None, None, None], delta.detach(), best)
    return best, torch.where(larger, error, largest)


def inference(peer: Peer) -> Callable[[], torch.Tensor]:
    """Return what reconstructs the batch."""

    def reconstruct():
        with torch.inference_mode():
            return peer.model(peer.measurement)

    return reconstruct


def _errors(x: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of every signal, as the library's metric has it."""
    return torch.mean((x - signal) ** 2, (1, 2, 3)) * _parts(signal)


def _parts(signal: torch.Tensor) -> int:
    return signal.shape[1]  # of complex signals, whose squares are |z|^2


def _norm(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
