"""Processes that take turns, one run each and one at a time.

Every job runs in a process of its own, which builds, compiles and warms up, and then waits, so that
whatever else the machine does disturbs all of them alike.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from jitter_jax.bench.cases import FRAMEWORKS, Plain

_PAUSE_S = 0.1  # after a run, in which the worker's threads stop looking for more to do
_PLATFORMS = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}  # as JAX_PLATFORMS has them
Say = Callable[[str], None]


class Worker:
    """A process that has built a job, and runs it when asked.

    Attributes:
        job: what it was given: framework, cases with their configs, threads, platform, devices.
        ready: what it said when it was ready.
    """

    def __init__(self, job: Plain, stack: ExitStack, say: Say):
        """Start the process, which ends with the stack, and wait until it is ready."""
        self.job = job
        say(f"{name_of(job)}: building {', '.join(job['cases'])}")
        self._process = stack.enter_context(_start(job))
        self.ready = self.ask(json.dumps(job))

    def ask(self, line: str) -> Plain:
        """Return the answer to a line.

        Raises:
            ValueError: the worker refuses, with its reason.
            ChildProcessError: it died.
        """
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            print(line, file=process.stdin, flush=True)
        except BrokenPipeError:
            with suppress(BrokenPipeError):  # it tries to write the line again
                process.stdin.close()
        answer = process.stdout.readline()
        if not answer:
            status = process.wait()
            killed = ": killed, perhaps for memory; ask for fewer cases or smaller sizes"
            raise ChildProcessError(
                f"the worker of {name_of(self.job)} {', '.join(self.job['cases'])} ended with "
                f"status {status}{killed if status == -9 else '; what it said is above'}"
            )
        reply = json.loads(answer)
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply

    def measured(self, runs: Sequence[Plain]) -> Plain:
        """Return the job, what the worker said of it, its runs and the peak of its memory."""
        return {**self.job, **self.ready, "runs": [*runs], **self.ask("memory")}


def name_of(job: Plain) -> str:
    """Return what a job's framework is called."""
    framework: str = job["framework"]
    return FRAMEWORKS.get(framework, framework)


def take_turns(workers: Sequence[Worker], repeats: int, say: Say) -> list[list[Plain]]:
    """Run all workers `repeats` times in turn, and return the times of each."""
    runs: list[list[Plain]] = [[] for _ in workers]
    for repeat in range(repeats):
        for worker, done in zip(workers, runs, strict=True):
            done.append(worker.ask("run"))
            time.sleep(_PAUSE_S)
        say(f"round {repeat + 1} of {repeats}")
    return runs


def _start(job: Plain) -> subprocess.Popen[str]:
    """Start a worker, which ends when its standard input does."""
    return subprocess.Popen(
        [sys.executable, "-m", "jitter_jax.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],  # where `-m` looks first
        env=os.environ | environment(job),
    )


def environment(job: Plain) -> dict[str, str]:
    """Return what a worker is told, and what it inherits that bears on speed."""
    inherited = ("JAX_PLATFORMS", "XLA_FLAGS", "LD_PRELOAD", "MALLOC_CONF", "KMP_AFFINITY")
    told = {name: os.environ[name] for name in inherited if name in os.environ}
    if job["platform"] is not None:
        told["JAX_PLATFORMS"] = _PLATFORMS[job["platform"]]
    if (devices := job["sizes"]["devices"] or 1) > 1:  # only the CPU can pretend
        pretend = f"--xla_force_host_platform_device_count={devices}"
        told["XLA_FLAGS"] = f"{told.get('XLA_FLAGS', '')} {pretend}".strip()
    return told | {
        # Or the second run compiles nothing.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # workers share the device's memory
        "OMP_NUM_THREADS": str(job["threads"]),
        # A worker that is not its turn must sleep: OpenMP threads otherwise spin for a while.
        "OMP_WAIT_POLICY": "passive",
        "KMP_BLOCKTIME": "0",
    }
