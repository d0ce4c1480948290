"""A process that times cases when its parent asks: `python -m jitter_jax.bench.worker`."""

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from jitter_jax.bench.cases import CASES

SIDES = {"jax": "jitter_jax.bench._library", "torch": "jitter_jax.bench._torch_peer"}
_WARM_UPS = 2


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


def _replies(job: dict[str, Any]):
    """Yield what is ready, then the times of each run asked for, then the memory."""
    side = importlib.import_module(SIDES[job["framework"]])
    import_bytes = peak_bytes()
    cases = job["cases"].items()
    works = [side.make_work(CASES[name], job["problem"], config) for name, config in cases]
    for _ in range(_WARM_UPS):
        for work in works:
            work.run()
    yield {
        "import_bytes": import_bytes,
        "parameters": works[0].parameters,
        "compile_s": [work.compile_s for work in works],
        "temp_bytes": [work.temp_bytes for work in works],
    }
    order = list(range(len(works)))
    for line in sys.stdin:
        if line.strip() == "end":
            yield {"peak_bytes": peak_bytes()}
            return
        seconds, cpu_s = [0.0] * len(works), [0.0] * len(works)
        for i in order:
            cpu, begin = time.process_time(), time.perf_counter()
            works[i].run()
            seconds[i], cpu_s[i] = time.perf_counter() - begin, time.process_time() - cpu
        order.reverse()  # which of two comes first alternates
        yield {"seconds": seconds, "cpu_s": cpu_s}


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
