"""What PyTorch says of its device: memory, traces."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found,unused-ignore]

_HAS_GPU = torch.cuda.is_available() and "cpu" not in os.environ.get("JAX_PLATFORMS", "")
DEVICE = torch.device("cuda" if _HAS_GPU else "cpu")
"""What a JAX worker with the same environment would take."""


def platform() -> str:
    """Return the name of the device, as JAX has it."""
    return "gpu" if DEVICE.type == "cuda" else "cpu"


def device_name() -> str:
    """Return what the device calls itself."""
    return torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"


def synchronized(run: Callable[[], Any]) -> Callable[[], Any]:
    """Return what waits for the device after a run."""
    if DEVICE.type == "cpu":
        return run

    def run_and_wait():
        result = run()
        torch.cuda.synchronize()
        return result

    return run_and_wait


def device_peak_bytes() -> int | None:
    """Return the most memory allocated since the mark was set back; None of a CPU."""
    return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else None


def forget_peak() -> None:
    """Set the mark of the peak back: what the search for the fastest kernels took is no use."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def trace(folder: str | Path, run: Callable[[], Any]) -> None:
    """Write a trace of one run, for Perfetto."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with torch.profiler.profile() as profile:
        run()
    profile.export_chrome_trace(str(Path(folder) / "trace.json"))
