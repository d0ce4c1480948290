"""Time the library side by side with PyTorch: the work of `bin/bench`."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jitter_jax.bench import checks, jobs
from jitter_jax.bench.cases import CASES, OVERHEAD_OF, Plain, Sizes
from jitter_jax.bench.loader import loader_rate
from jitter_jax.bench.machine import describe_machine
from jitter_jax.bench.plot import plot_growth
from jitter_jax.bench.problems import PROBLEMS
from jitter_jax.bench.report import median_rates
from jitter_jax.bench.rounds import Say, Worker, environment
from jitter_jax.bench.scale import growth, parse_scale
from jitter_jax.bench.table import format_report
from jitter_jax.bench.timer import Timer
from jitter_jax.config import default_config
from jitter_jax.files import checked_folder


def bench(
    problems: Sequence[str] = tuple(PROBLEMS),
    *,
    sizes: Sizes,
    scale: str | None = None,
    cases: Sequence[str] = tuple(CASES),
    repeats: int = 9,
    pairs: int = 9,
    peer: Sequence[str] = ("torch",),
    platform: str | None = None,
    precision: str = "default",
    threads: int | None = None,
    remat: Sequence[str] = (),
    together: int = 8,
    peak: bool = True,
    loader: str | Path | None = None,
    output: str | Path | None = None,
    plot: str | Path | None = None,
    profile: str | Path | None = None,
    progress: bool = True,
) -> Plain:
    """Time the cases of the problems, print a Markdown table and write a report.

    Args:
        problems: names in `PROBLEMS`; those that have none of the cases are left out.
        sizes: of the batch; those of each problem where None.
        scale: `"name:v1,v2,..."` takes one of the `sizes`, or both sides as `size`, from value to
            value, in the cases that have it, and fits how these grow.
        cases: names in `CASES`; a problem takes those that it has.
        repeats: timed runs of each case, at least 1.
        pairs: pairs of training steps, with jitter and without, for the jitter's overhead; 0 leaves
            it out, and so does a choice of cases without both.
        peer: `"torch"` (eager), `"torch_compile"` or both, for the problems that are written in
            it; or `"none"`.
        platform: `"cpu"`, `"gpu"` or `"tpu"`; JAX's own choice if None.
        precision: `network.precision` of the config.
        threads: processors to use; all that the process may use if None.
        remat: values of `unroll.remat` of the config, each timed; its default if empty.
        together: jobs of a case that are alive at once and take turns, at least 1.
        peak: whether to measure the device's speed, and to give shares of it.
        loader: folder of fastMRI files, to measure how fast slices come from it.
        output: JSON file of the report.
        plot: picture of time and memory against the values of the scale; its ending is the format.
        profile: folder for a trace of one run of each job.
        progress: whether to say on standard error what is being done.

    Returns:
        The report.

    Raises:
        ValueError: an argument is not accepted, PyTorch is missing, or it computes something else.
        ChildProcessError: a worker died, as of too little memory.
    """
    checks.check_numbers(sizes, repeats=repeats, pairs=pairs, together=together)
    checks.check_choices(problems, cases, peer, remat, platform, precision)
    problems = checks.problems_with(problems, cases)
    checks.check_torch(problems, cases, peer)
    checks.check_files(json=output, plot=plot)
    checks.check_picture(plot)
    profile = None if profile is None else checked_folder(profile, "profile")
    parsed = None if scale is None else parse_scale(scale)
    checks.check_scale(parsed, sizes, problems, cases)
    if plot is not None and parsed is None:
        raise ValueError(f"plot={str(plot)!r} is not accepted: it is drawn of a scale")
    threads = checks.checked_threads(threads)
    request = jobs.Request(cases, sizes, parsed, peer, remat, platform, precision, threads)
    say: Say = partial(print, file=sys.stderr, flush=True) if progress else lambda text: None
    load_before = os.getloadavg()
    rows: list[Plain] = []
    overheads: list[Plain] = []
    with tempfile.TemporaryDirectory() as arrays, ExitStack() as stack:
        timer = Timer(
            request,
            Path(arrays),
            repeats=repeats,
            together=together,
            peak=Worker(jobs.peak_job(request), stack, say) if peak else None,
            profile=profile,
            say=say,
        )
        for problem in problems:
            found = timer.rows(problem)
            rows += found
            if pairs and set(OVERHEAD_OF) <= {row["case"] for row in found}:
                overheads += timer.overheads(problem, pairs)
    report = {
        "loader": None if loader is None else loader_rate(loader, repeats=repeats),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "sizes": {name: sizes.or_those_of(PROBLEMS[name].sizes)._asdict() for name in problems},
        "scale": scale,
        "repeats": repeats,
        "pairs": pairs,
        "threads": threads,
        "precision": precision,
        "remat": [*remat] or [default_config().unroll.remat],
        **describe_machine({row["framework"] for row in rows}),
        "environment": environment(request.common()),
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "rows": rows,
        "peak": median_rates(timer.peaks),
        "growth": [] if parsed is None else growth(rows, parsed.name),
        "without_peer": [
            p for p in problems if "none" not in peer and not {*peer} & {*PROBLEMS[p].frameworks}
        ],
        "jitter_overhead": overheads,
    }
    if output is not None:
        Path(output).write_text(json.dumps(report, indent=2) + "\n")
    print(format_report(report))
    if plot is not None:
        plot_growth(report["growth"], plot)
    return report
