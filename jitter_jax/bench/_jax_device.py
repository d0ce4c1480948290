"""What JAX says of programs and devices: costs, memory, traces."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jitter_jax.bench.cases import Plain
from jitter_jax.host_memory import return_freed_memory


def compile_ahead(function: Any, *arguments: Any) -> tuple[Any, Plain]:
    """Return the compiled program of a jitted function, and what that costs, as `Work` has it."""
    begin = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    return_freed_memory()  # of the compiler, as `train.fit` does
    memory = compiled.memory_analysis()
    taken = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return compiled, {
        "compile_s": seconds,
        "temp_bytes": memory.temp_size_in_bytes,
        "program_bytes": taken + results,
    }


def platform() -> str:
    """Return the name of the device that JAX computes on: `"cpu"`, `"gpu"`, `"tpu"`."""
    return jax.default_backend()


def device_name() -> str:
    """Return what the device calls itself."""
    return jax.devices()[0].device_kind


def device_peak_bytes() -> int | None:
    """Return the most memory in use so far on any device; None of a CPU, whose memory is ours."""
    if platform() == "cpu":
        return None
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max(stat.get("peak_bytes_in_use", 0) for stat in stats)


def forget_peak() -> None:
    """Do nothing: JAX's mark of the peak cannot be set back."""


def trace(folder: str | Path, run: Callable[[], Any]) -> None:
    """Write a trace of one run, for XProf and Perfetto."""
    with jax.profiler.trace(str(folder), create_perfetto_trace=True):
        run()
