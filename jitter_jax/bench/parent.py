"""Time the library side by side with PyTorch: the work of `bin/bench`.

Every case runs in a process of its own, which builds, compiles and warms up, and then waits. The
processes take turns, one run each and one at a time, so that whatever else the machine does
disturbs all of them alike.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jitter_jax.bench.cases import (
    CASES,
    FRAMEWORKS,
    OVERHEAD_OF,
    PROBLEMS,
    Plain,
    Sizes,
    case_config,
    case_sizes,
)
from jitter_jax.bench.loader import loader_rate
from jitter_jax.bench.report import describe_machine, format_report, growth, overhead, table_row
from jitter_jax.config import default_config

_REMATS = ("keep_costly", "full", "none")
_PAUSE_S = 0.1  # after a run, in which the worker's threads stop looking for more to do


def bench(
    problems: Sequence[str] = tuple(PROBLEMS),
    *,
    sizes: Sizes,
    scale: str | None = None,
    cases: Sequence[str] = tuple(CASES),
    repeats: int = 9,
    pairs: int = 9,
    peer: str = "torch",
    threads: int | None = None,
    remat: str | None = None,
    loader: str | Path | None = None,
    output: str | Path | None = None,
    progress: bool = True,
) -> Plain:
    """Time the cases of the problems, print a Markdown table and write a report.

    Args:
        problems: names in `PROBLEMS`; those that have none of the cases are left out.
        sizes: of the batch; those of each problem where None.
        scale: `"field:v1,v2,..."` takes one of the `sizes` from value to value, in the cases that
            have it, and fits how these grow.
        cases: names in `CASES`; a problem takes those that it has.
        repeats: timed runs of each case, at least 1.
        pairs: pairs of training steps, with jitter and without, for the jitter's overhead; 0 leaves
            it out, and so does a choice of cases without both.
        peer: `"torch"`, for the problems that are written in it, or `"none"`.
        threads: processors to use; all that the process may use if None.
        remat: `unroll.remat` of the config; its default if None.
        loader: folder of fastMRI files, to measure how fast slices come from it.
        output: JSON file of the report.
        progress: whether to say on standard error what is being done.

    Returns:
        The report.

    Raises:
        ValueError: an argument is not accepted, or PyTorch is missing.
        ChildProcessError: a worker died, as of too little memory.
    """
    problems = _check_arguments(problems, sizes, cases, repeats, pairs, peer, remat, output)
    threads = _checked_threads(threads)
    scaled = _scaled(sizes, scale, problems, cases)
    say = partial(print, file=sys.stderr, flush=True) if progress else lambda text: None
    load_before = os.getloadavg()
    rows, overheads = [], []
    for problem in problems:
        frameworks = [f for f in PROBLEMS[problem].frameworks if f in ("jax", peer)]
        names = [name for name in cases if name in PROBLEMS[problem].cases]
        job = {"problem": problem, "threads": threads}
        jobs = [
            {
                **job,
                "framework": framework,
                "sizes": own._asdict(),
                "cases": {name: case_config(problem, own, name, remat)},
            }
            for name in names
            for own in dict.fromkeys(case_sizes(problem, each, name) for each in scaled)
            for framework in frameworks
        ]
        measured = alternate(jobs, repeats, say)
        rows += [table_row(one, measured) for one in measured]
        if pairs and set(OVERHEAD_OF) <= set(names):
            both = {name: case_config(problem, sizes, name, remat) for name in OVERHEAD_OF}
            jobs = [{**job, "framework": framework, "cases": both} for framework in frameworks]
            overheads += [overhead(one) for one in alternate(jobs, pairs, say)]
    loading = None
    if loader is not None:
        say(f"reading {loader}")
        loading = loader_rate(loader, repeats=repeats)
    report = {
        "loader": loading,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "sizes": {name: sizes.or_those_of(PROBLEMS[name].sizes)._asdict() for name in problems},
        "scale": scale,
        "repeats": repeats,
        "pairs": pairs,
        "threads": threads,
        "remat": remat or default_config().unroll.remat,
        **describe_machine({row["framework"] for row in rows}),
        "environment": _environment(threads),
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "rows": rows,
        "growth": [] if scale is None else growth(rows, scale.partition(":")[0]),
        "without_peer": [p for p in problems if peer not in ("none", *PROBLEMS[p].frameworks)],
        "jitter_overhead": overheads,
    }
    if output is not None:
        Path(output).write_text(json.dumps(report, indent=2) + "\n")
    print(format_report(report))
    return report


def _check_arguments(problems, sizes, cases, repeats, pairs, peer, remat, output) -> list[str]:
    """Return the problems that have one of the cases."""
    numbers = [(name, number, int(name != "chunk")) for name, number in sizes._asdict().items()]
    for name, number, least in (*numbers, ("repeats", repeats, 1), ("pairs", pairs, 0)):
        if number is not None and number < least:
            raise ValueError(f"{name}={number} is not accepted: at least {least} is expected")
    for name, values, accepted in (
        ("problems", problems, PROBLEMS),
        ("cases", cases, CASES),
        ("peer", [peer], ("torch", "none")),
        ("remat", [remat or "none"], _REMATS),
    ):
        for value in values or [""]:
            if value not in accepted:
                raise ValueError(f"{name}={value!r} is not accepted: of {[*accepted]} are expected")
    problems = [problem for problem in problems if set(PROBLEMS[problem].cases) & set(cases)]
    if not problems:
        raise ValueError(f"cases={','.join(cases)!r} is not accepted: no problem asked for has one")
    needs_torch = peer == "torch" and any("torch" in PROBLEMS[p].frameworks for p in problems)
    if needs_torch and importlib.util.find_spec("torch") is None:
        raise ValueError(
            "peer='torch' needs PyTorch, which is not installed: pip install 'jitter_jax[bench]', "
            "or --peer=none times the library alone"
        )
    if output is not None and (Path(output).is_dir() or not Path(output).parent.is_dir()):
        raise ValueError(
            f"json={str(output)!r} is not accepted: a file in a folder that exists is expected"
        )
    return problems


def _scaled(
    sizes: Sizes, scale: str | None, problems: Sequence[str], cases: Sequence[str]
) -> list[Sizes]:
    """Return the sizes with each value of a scale."""
    if scale is None:
        return [sizes]
    field, _, text = scale.partition(":")
    values = sorted({int(v) if v.strip().isdecimal() else 0 for v in text.split(",")})
    if field not in Sizes._fields or values[0] < 1 or len(values) < 2:
        raise ValueError(
            f"scale={scale!r} is not accepted: two or more numbers of at least 1 are expected for "
            f"one of {[*Sizes._fields]}, as in 'samples:1,2,5'"
        )
    scaled = [sizes._replace(**{field: value}) for value in values]
    timed = [(p, case) for p in problems for case in cases if case in PROBLEMS[p].cases]
    if all(len({case_sizes(p, each, case) for each in scaled}) == 1 for p, case in timed):
        raise ValueError(f"scale={scale!r} is not accepted: it changes none of the cases")
    return scaled


def _checked_threads(threads: int | None) -> int:
    can_limit = hasattr(os, "sched_getaffinity")
    available = len(os.sched_getaffinity(0)) if can_limit else os.cpu_count() or 1
    threads = available if threads is None else threads
    least = 1 if can_limit else available  # some systems cannot keep a process to some processors
    if not least <= threads <= available:
        raise ValueError(f"threads={threads} is not accepted: {least} to {available} is expected")
    return threads


def alternate(jobs: Sequence[Plain], repeats: int, say: Callable[[str], None]) -> list[Plain]:
    """Run all jobs `repeats` times in turn, one at a time, and return what was measured."""
    with ExitStack() as stack:
        asks, measured = [], []
        for job in jobs:  # one after the other, for the sake of the compilation times
            say(f"{FRAMEWORKS[job['framework']]}: building {', '.join(job['cases'])}")
            asks.append(partial(_ask, stack.enter_context(_start(job["threads"])), job))
            measured.append({**job, **asks[-1](json.dumps(job)), "runs": []})
        for repeat in range(repeats):
            for ask, done in zip(asks, measured, strict=True):
                done["runs"].append(ask("run"))
                time.sleep(_PAUSE_S)
            say(f"round {repeat + 1} of {repeats}")
        return [{**done, **ask("end")} for ask, done in zip(asks, measured, strict=True)]


def _start(threads: int) -> subprocess.Popen[str]:
    """Start a worker, which ends when its standard input does."""
    return subprocess.Popen(
        [sys.executable, "-m", "jitter_jax.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],  # where `-m` looks first
        env=os.environ | _environment(threads),
    )


def _ask(process: subprocess.Popen[str], job: Plain, line: str) -> Plain:
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
            f"the worker of {job['framework']} {', '.join(job['cases'])} ended with status "
            f"{status}{killed if status == -9 else '; what it said is above'}"
        )
    reply = json.loads(answer)
    if "error" in reply:
        raise ValueError(reply["error"])
    return reply


def _environment(threads: int) -> dict[str, str]:
    """What the workers are told, and what they inherit that bears on speed."""
    given = ("XLA_FLAGS", "LD_PRELOAD", "MALLOC_CONF", "KMP_AFFINITY", "GOMP_CPU_AFFINITY")
    return {name: os.environ[name] for name in given if name in os.environ} | {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # or the second run compiles nothing
        "OMP_NUM_THREADS": str(threads),
        # A worker that is not its turn must sleep: OpenMP threads otherwise spin for a while.
        "OMP_WAIT_POLICY": "passive",
        "KMP_BLOCKTIME": "0",
    }
