"""Traces of what a program does, on the host and on the devices, for Perfetto and XProf.

A trace goes to `plugins/profile/<time>/` in a folder: `perfetto_trace.json.gz` for
https://ui.perfetto.dev, and `*.xplane.pb` for XProf, which takes the folder as its `--logdir`. The
latter holds the compiled programs, too, whose operations have the names of `jax.named_scope` before
theirs: `iteration`, `data_step`, `learned_step`, `attack_step`. A step of training is `train`, and
has a number.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from jitter_jax.train.step import Metrics, PyTree, Step, TrainState


@contextlib.contextmanager
def trace(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Traces the block, whose work on the devices must end in it.

    Args:
        folder: Where the trace goes, beside earlier ones; made if need be. Of several processes
            the first writes one.

    Raises:
        RuntimeError: If another trace is being taken.
    """
    if jax.process_index() != 0:
        yield
        return
    with jax.profiler.trace(Path(folder), create_perfetto_trace=True):
        yield


class TracedSteps(contextlib.AbstractContextManager):
    """A training step, some of whose calls are traced; a trace that is open ends with the block.

    It waits for the device before and after the trace, never in between.

    Attributes:
        traced: How many calls the trace holds.
    """

    def __init__(
        self, step: Step, folder: str | os.PathLike[str], *, skip: int = 2, count: int = 5
    ):
        """Traces nothing yet.

        Args:
            step: `step(state, batch) -> (state, metrics)`, compiled.
            folder: Where the trace goes. Of several processes the first writes one.
            skip: Calls before the trace: the first compiles, the next finds memory for its arrays.
            count: Calls in the trace.
        """
        self._step, self._folder = step, folder
        self._skip, self._count = skip, count
        self._calls = 0
        self._trace = contextlib.ExitStack()
        self.traced = 0

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """Takes the step."""
        if jax.process_index() != 0:
            return self._step(state, batch)
        if self._calls == self._skip:
            jax.block_until_ready(state)  # what was launched before is not part of it
            self._trace.enter_context(trace(self._folder))
        with jax.profiler.StepTraceAnnotation("train", step_num=self._calls):
            state, metrics = self._step(state, batch)
        self._calls += 1
        self.traced = min(max(self._calls - self._skip, 0), self._count)
        if self._calls == self._skip + self._count:
            jax.block_until_ready((state, metrics))
            self._trace.close()
        return state, metrics

    def __exit__(self, *error: object) -> None:
        self._trace.close()
