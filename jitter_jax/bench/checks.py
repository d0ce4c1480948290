"""What `bench` accepts."""

import importlib.util
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from jitter_jax.bench.cases import CASES, PEER_CASES, Plain, Sizes
from jitter_jax.bench.problems import PRECISIONS, PROBLEMS, REMATS, case_sizes
from jitter_jax.bench.scale import Scale

PEERS = ("torch", "torch_compile", "none")
PLATFORMS = ("cpu", "gpu", "tpu")
_MAY_BE_ZERO = ("chunk", "pairs")


def check_numbers(sizes: Sizes, **others: int) -> None:
    """Refuse sizes and numbers of runs that are too small.

    Raises:
        ValueError: naming the first.
    """
    for name, number in {**sizes._asdict(), **others}.items():
        least = 0 if name in _MAY_BE_ZERO else 1
        if number is not None and number < least:
            raise ValueError(f"{name}={number} is not accepted: at least {least} is expected")


def check_names(**names: tuple[Sequence[str], Collection[str]]) -> None:
    """Refuse names that are not known, and none at all.

    Args:
        names: of each argument, what was given and what is accepted.

    Raises:
        ValueError: naming the first.
    """
    for argument, (given, accepted) in names.items():
        for value in given or [""]:
            if value not in accepted:
                raise ValueError(
                    f"{argument}={value!r} is not accepted: of {[*accepted]} are expected"
                )


def check_choices(
    problems: Sequence[str],
    cases: Sequence[str],
    peer: Sequence[str],
    remat: Sequence[str],
    platform: str | None,
    precision: str,
) -> None:
    """Refuse unknown names, and those that do not go together.

    Raises:
        ValueError: naming the argument.
    """
    check_names(
        problems=(problems, PROBLEMS),
        cases=(cases, CASES),
        peer=(peer, PEERS),
        remat=(remat or ["none"], REMATS),
        platform=([platform or "cpu"], PLATFORMS),
        precision=([precision], PRECISIONS),
    )
    if "none" in peer and len(peer) > 1:
        raise ValueError(f"peer={','.join(peer)!r} is not accepted: 'none' stands alone")
    if platform == "tpu" and "none" not in peer:
        raise ValueError("peer is not accepted with platform='tpu': 'none' is expected")


def problems_with(problems: Sequence[str], cases: Sequence[str]) -> list[str]:
    """Return the problems that have one of the cases.

    Raises:
        ValueError: none has.
    """
    found = [problem for problem in problems if set(PROBLEMS[problem].cases) & set(cases)]
    if not found:
        raise ValueError(f"cases={','.join(cases)!r} is not accepted: no problem asked for has one")
    return found


def check_torch(problems: Sequence[str], cases: Sequence[str], peer: Sequence[str]) -> None:
    """Refuse a peer that is needed and not installed.

    Raises:
        ValueError: PyTorch is missing.
    """
    wanted = "none" not in peer and set(cases) & set(PEER_CASES)
    needed = wanted and any("torch" in PROBLEMS[problem].frameworks for problem in problems)
    if needed and importlib.util.find_spec("torch") is None:
        raise ValueError(
            f"peer={peer[0]!r} needs PyTorch, which is not installed: pip install "
            "'jitter_jax[bench]', or --peer=none times the library alone"
        )


def check_scale(
    scale: Scale | None, sizes: Sizes, problems: Sequence[str], cases: Sequence[str]
) -> None:
    """Refuse a scale that leaves all cases as they are.

    Raises:
        ValueError: naming it.
    """
    if scale is None:
        return
    scaled = scale.sizes(sizes).values()
    timed = [(p, case) for p in problems for case in cases if case in PROBLEMS[p].cases]
    if all(len({case_sizes(p, each, case) for each in scaled}) == 1 for p, case in timed):
        raise ValueError(f"scale={scale.name!r} is not accepted: it changes none of the cases")


def check_files(**paths: str | Path | None) -> None:
    """Refuse files that cannot be written.

    Raises:
        ValueError: naming the argument.
    """
    for name, path in paths.items():
        if path is not None and (Path(path).is_dir() or not Path(path).parent.is_dir()):
            raise ValueError(
                f"{name}={str(path)!r} is not accepted: a file in a folder that exists is expected"
            )


def check_picture(path: str | Path | None) -> None:
    """Refuse a picture of an unknown format.

    Raises:
        ValueError: naming the formats.
    """
    if path is None:
        return
    from matplotlib.backend_bases import FigureCanvasBase

    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if Path(path).suffix[1:].lower() not in formats:
        raise ValueError(f"plot={str(path)!r} is not accepted: an ending of {formats} is expected")


def check_platforms(measured: Sequence[Plain]) -> None:
    """Refuse frameworks that computed on different devices.

    Raises:
        ValueError: naming them.
    """
    found = {one["framework"]: one["platform"] for one in measured}
    if len(set(found.values())) > 1:
        raise ValueError(
            f"platform: the frameworks took different devices, {found}; --platform=cpu makes them "
            "alike"
        )


def checked_threads(threads: int | None) -> int:
    """Return how many processors the workers may use; all that this process may if None.

    Raises:
        ValueError: there are not as many.
    """
    can_limit: Any = hasattr(os, "sched_getaffinity")
    available = len(os.sched_getaffinity(0)) if can_limit else os.cpu_count() or 1
    threads = available if threads is None else threads
    least = 1 if can_limit else available  # some systems cannot keep a process to some processors
    if not least <= threads <= available:
        raise ValueError(f"threads={threads} is not accepted: {least} to {available} is expected")
    return threads
