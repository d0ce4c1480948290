"""Times the cases of a problem: which workers are alive, and which rounds they share."""

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from jitter_jax.bench import checks, jobs, report
from jitter_jax.bench.cases import CASES, REFERENCE, Plain
from jitter_jax.bench.rounds import Say, Worker, take_turns


class Timer:
    """Starts workers, lets them take turns, and makes lines of the report.

    The jobs of a case share their rounds with one another, with what measures the device's speed,
    and other training steps with those of `REFERENCE`: every ratio is of runs that stand next to
    each other.

    Args:
        request: what is asked for.
        arrays: folder of what the library's peers take over from it.
        repeats: rounds.
        together: jobs of a case that are alive at once.
        peak: the worker that measures the device's speed, or None.
        profile: folder of traces, or None.
        say: says what is being done.
    """

    def __init__(
        self,
        request: jobs.Request,
        arrays: Path,
        *,
        repeats: int,
        together: int,
        peak: Worker | None,
        profile: str | Path | None,
        say: Say,
    ):
        self._request, self._arrays = request, arrays
        self._repeats, self._together = repeats, together
        self._peak, self._profile, self._say = peak, profile, say
        self.peaks: list[Plain] = []
        """GFLOP/s of the device in the rounds so far, of `report.peak_rates`."""

    def rows(self, problem: str) -> list[Plain]:
        """Return the lines of a problem."""
        rows: list[Plain] = []
        references: list[Worker] = []
        with ExitStack() as kept:
            for case, of_case in jobs.case_jobs(self._request, problem, self._arrays):
                for group in groups(of_case, self._together):
                    with ExitStack() as ended:
                        keeps = case == REFERENCE and self._request.scale is None
                        own = self._start(group, kept if keeps else ended)
                        beside = references if CASES[case].kind == "train" else []
                        rows += self._timed(own, beside)
                    references += own if keeps else []
        return rows

    def overheads(self, problem: str, pairs: int) -> list[Plain]:
        """Return what jitter adds to a training step, by both steps in one process."""
        with ExitStack() as stack:
            pending = jobs.overhead_jobs(self._request, problem, self._arrays)
            workers = self._start(pending, stack)
            runs = take_turns(workers, pairs, self._say)
            done = [worker.measured(r) for worker, r in zip(workers, runs, strict=True)]
        return [report.overhead(one) for one in done]

    def _start(self, pending: Sequence[Plain], stack: ExitStack) -> list[Worker]:
        """Start workers one after the other, for the sake of the compilation times."""
        for job in jobs.agreement_jobs(pending):
            with ExitStack() as at_once:
                Worker(job, at_once, self._say)
        workers = [Worker(job, stack, self._say) for job in pending]
        checks.check_platforms([{**worker.job, **worker.ready} for worker in workers])
        return workers

    def _timed(self, own: Sequence[Worker], references: Sequence[Worker]) -> list[Plain]:
        peak = [] if self._peak is None else [self._peak]
        beside = [worker for worker in references if worker not in own]
        workers = [*peak, *beside, *own]
        runs = take_turns(workers, self._repeats, self._say)
        done = [worker.measured(r) for worker, r in zip(workers, runs, strict=True)]
        rates = report.peak_rates(done[0]) if peak else None
        self.peaks += [] if rates is None else [rates]
        others = done[len(peak) :]
        if self._profile is not None:
            for worker in own:
                worker.ask(f"trace {trace_folder(self._profile, worker.job)}")
        return [report.table_row(one, others, peak=rates) for one in done[-len(own) :]]


def groups(of_case: Sequence[Plain], together: int) -> list[list[Plain]]:
    """Return jobs in groups of at most `together`, if no value of the scale has more by itself."""
    found: list[list[Plain]] = [[]]
    by_value = sorted(of_case, key=lambda job: job["value"] or 0)
    for _, alike in itertools.groupby(by_value, key=lambda job: job["value"]):
        unit = [*alike]
        if found[-1] and len(found[-1]) + len(unit) > together:
            found.append([])
        found[-1] += unit
    return found


def trace_folder(profile: str | Path, job: Plain) -> Path:
    """Return where the trace of a job goes."""
    (case,) = job["cases"]
    parts = [job["problem"], case, job["framework"], job["remat"], job["value"]]
    return Path(profile).resolve() / "-".join(str(part) for part in parts if part is not None)
