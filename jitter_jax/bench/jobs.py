"""What the workers are given: the jobs of a problem."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jitter_jax.bench.cases import OVERHEAD_OF, PEER_CASES, REFERENCE, Plain, Sizes
from jitter_jax.bench.problems import PROBLEMS, case_config, case_sizes
from jitter_jax.bench.report import PEAKS
from jitter_jax.bench.scale import Scale


class Request(NamedTuple):
    """What is asked of all problems.

    Attributes:
        cases: names in `CASES`.
        sizes: asked for.
        scale: of one of them, or None.
        peer: names of frameworks beside the library; `"none"` is none.
        remat: of the config, one job each; empty is the config's own.
        platform: of the devices; None is JAX's choice.
        precision: of the networks.
        threads: processors.
    """

    cases: Sequence[str]
    sizes: Sizes
    scale: Scale | None
    peer: Sequence[str]
    remat: Sequence[str]
    platform: str | None
    precision: str
    threads: int

    def scaled(self) -> dict[int | None, Sizes]:
        """Return the sizes by the value of the scale."""
        if self.scale is None:
            return {None: self.sizes}
        return dict(self.scale.sizes(self.sizes).items())

    def remats(self) -> Sequence[str | None]:
        """Return the rematerialisations; None is the config's own."""
        return self.remat or [None]

    def common(self) -> Plain:
        """Return what all jobs hold."""
        return {
            "threads": self.threads,
            "platform": self.platform,
            "precision": self.precision,
            "remat": None,
            "value": None,
            "sizes": Sizes(devices=1)._asdict(),
        }


def case_jobs(request: Request, problem: str, arrays: Path) -> Iterator[tuple[str, list[Plain]]]:
    """Yield each case of a problem with its jobs, those of the same work one after the other.

    Args:
        request: what is asked for.
        problem: name in `PROBLEMS`.
        arrays: folder of what the library's peers take over from it.
    """
    own_cases = [name for name in request.cases if name in PROBLEMS[problem].cases]
    for name in sorted(own_cases, key=lambda name: name != REFERENCE):
        jobs, seen = [], set()
        for remat, (value, sizes) in itertools.product(request.remats(), request.scaled().items()):
            own = case_sizes(problem, sizes, name)
            if (remat, own) in seen:  # a scale of what this case does not have
                continue
            seen.add((remat, own))
            config = case_config(problem, sizes, name, remat=remat, precision=request.precision)
            job = {
                **request.common(),
                "problem": problem,
                "remat": remat,
                "value": value,
                "sizes": own._asdict(),
                "cases": {name: config},
                "arrays": str(arrays / f"{problem}-{value}.npz"),
            }
            jobs += [{**job, "framework": f} for f in frameworks(request, problem, name, own)]
        yield name, _without_twins(jobs)


def frameworks(request: Request, problem: str, case: str, sizes: Sizes) -> list[str]:
    """Return what a case is timed in."""
    peers = request.peer if case in PEER_CASES and (sizes.devices or 1) == 1 else []
    return [f for f in PROBLEMS[problem].frameworks if f == "jax" or f in peers]


def _without_twins(jobs: Sequence[Plain]) -> list[Plain]:
    """Leave out the peers' jobs that differ in rematerialisation alone, which they do not have."""
    kept, seen = [], set()
    for job in jobs:
        twin = job["framework"], job["value"]
        if job["framework"] == "jax" or twin not in seen:
            kept.append(job)
        seen.add(twin)
    return kept


def agreement_jobs(jobs: Sequence[Plain]) -> list[Plain]:
    """Return the jobs that write what the peers among `jobs` take over."""
    peers = {job["arrays"]: job for job in jobs if job["framework"] != "jax"}
    missing = [job for path, job in peers.items() if not Path(path).exists()]
    one = lambda cases: dict([*cases.items()][:1])  # the network and the data of all are the same
    return [{**job, "framework": "agreement", "cases": one(job["cases"])} for job in missing]


def peak_job(request: Request) -> Plain:
    """Return the job of the large convolution and the product of matrices."""
    return {**request.common(), "framework": "peak", "cases": {name: {} for name in PEAKS}}


def overhead_jobs(request: Request, problem: str, arrays: Path) -> list[Plain]:
    """Return jobs that take both steps of `OVERHEAD_OF` in turn."""
    remat, sizes = request.remats()[0], case_sizes(problem, request.sizes, REFERENCE)
    both = {
        name: case_config(problem, request.sizes, name, remat=remat, precision=request.precision)
        for name in OVERHEAD_OF
    }
    job = {
        **request.common(),
        "problem": problem,
        "remat": remat,
        "sizes": sizes._asdict(),
        "cases": both,
        "arrays": str(arrays / f"{problem}-None.npz"),
    }
    return [{**job, "framework": f} for f in frameworks(request, problem, REFERENCE, sizes)]
