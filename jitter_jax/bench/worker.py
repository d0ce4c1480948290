"""A process that times cases when its parent asks: `python -m jitter_jax.bench.worker`."""

import importlib
import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jitter_jax.bench.cases import Plain, Work

# Modules that make the work of a case, and that know the device it runs on.
SIDES = {
    "jax": ("_library", "_jax_device"),
    "torch": ("_torch_peer", "_torch_device"),
    "torch_compile": ("_torch_peer", "_torch_device"),
    "peak": ("_peak", "_jax_device"),
    "agreement": ("_agreement", "_jax_device"),
}
_WARM_UPS = 2
_SHORTEST_S = 0.05  # what takes less is run several times in a row


def serve() -> None:
    """Read a job, then run it once for each line, and answer in JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be mistaken for an answer
    job = json.loads(sys.stdin.readline())
    if hasattr(os, "sched_setaffinity"):  # both frameworks count the processors they may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    try:
        for reply in _replies(job):
            print(json.dumps(reply), file=answers, flush=True)
    except ValueError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)


def _replies(job: Plain) -> Iterator[Plain]:
    """Yield what is ready, then what each line asks for.

    `run` is for the times of one run of each case, `memory` for the peaks so far, and
    `trace FOLDER` writes a trace of one run.
    """
    side, device = (
        importlib.import_module(f"jitter_jax.bench.{name}") for name in SIDES[job["framework"]]
    )
    import_bytes = peak_bytes()
    works = [side.make_work(name, job) for name in job["cases"]]
    calls = [_warmed_up(work) for work in works]
    device.forget_peak()
    yield {
        "import_bytes": import_bytes,
        "platform": device.platform(),
        "device": device.device_name(),
        "parameters": works[0].parameters,
        "compile_s": [work.compile_s for work in works],
        "temp_bytes": [work.temp_bytes for work in works],
        "program_bytes": [work.program_bytes for work in works],
        "gflop": [work.gflop for work in works],
        "calls": calls,
    }
    order = list(range(len(works)))
    for line in sys.stdin:
        asked, _, folder = line.strip().partition(" ")
        if asked == "memory":
            yield {"peak_bytes": peak_bytes(), "device_peak_bytes": device.device_peak_bytes()}
        elif asked == "trace":
            device.trace(folder, works[0].run)
            yield {}
        else:
            yield _times(works, calls, order)
            order.reverse()  # which of two comes first alternates


def _warmed_up(work: Work) -> int:
    """Run a case until it is warm, and return how often it runs in one timing."""
    seconds = math.inf
    for _ in range(_WARM_UPS):
        begin = time.perf_counter()
        work.run()
        seconds = time.perf_counter() - begin
    return max(1, math.ceil(_SHORTEST_S / seconds))


def _times(works: Sequence[Work], calls: Sequence[int], order: Sequence[int]) -> Plain:
    seconds, cpu_s = [0.0] * len(works), [0.0] * len(works)
    for i in order:
        cpu, begin = time.process_time(), time.perf_counter()
        for _ in range(calls[i]):
            works[i].run()
        seconds[i] = (time.perf_counter() - begin) / calls[i]
        cpu_s[i] = (time.process_time() - cpu) / calls[i]
    return {"seconds": seconds, "cpu_s": cpu_s}


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    # Linux starts a child's `ru_maxrss` at its parent's size; the process's own mark is elsewhere.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    serve()
