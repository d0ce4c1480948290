"""What is measured between two lines of the record."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jitter_jax.train.step import Metrics

# How many calls the host may be ahead of the device when it waits: enough for the device never to
# wait for the next one, few enough that a request to stop is soon met and that no queue of batches
# fills memory.
LEAD = 2
# Short calls are waited for in groups, as waking up takes as long as some of them: of about so many
# seconds, and at most so many calls.
_GROUP_S, _GROUP_CALLS = 0.02, 16


class NonFiniteError(RuntimeError):
    """The loss, the gradients or the parameters became infinite or NaN.

    Attributes:
        step: The number of the step, counted from 1.
        loss: Its loss.
        checkpoint: The newest checkpoint, which is good; None if there is none yet.
    """

    def __init__(self, step: int, loss: float, grad_norm: float, checkpoint: Path | None):
        self.step, self.loss, self.checkpoint = step, loss, checkpoint
        if checkpoint is None:
            saved, where = "no checkpoint was saved yet", ""
        else:
            saved = f"the last good checkpoint is {checkpoint}, of step {checkpoint.name}"
            where = " in another workdir, as this one keeps its config"
        super().__init__(
            f"step {step} is not finite (loss {loss:g}, gradient norm {grad_norm:g}), so the run "
            f"stops; {saved}. Continued, it takes the same step again. Start again{where}, with a "
            "lower learning rate or with clipped gradients."
        )


class Meter:
    """Sums of the metrics since the last line, left on the device until they are asked for.

    Attributes:
        count: How many steps the sums hold.
        sums: Name to sum, in double precision and in the order of the steps: fetching sooner or
            later changes no bit.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums: dict[str, float] = {}
        self._pending: list[Metrics] = []
        self._pending_steps = 0
        self._group = self._calls = 0
        self._waited = time.perf_counter()

    def add(self, metrics: Metrics, steps: int = 1) -> None:
        """Takes the metrics of a call, and waits for those of the call `LEAD` before it.

        Of calls that take up to 10 ms it waits at every second to sixteenth only.

        Args:
            metrics: Scalars of one step, or arrays with a leading axis of several.
            steps: How many.
        """
        self._pending.append(metrics)
        self._pending_steps += steps
        self._calls += 1
        if self._calls >= self._group and len(self._pending) > LEAD:
            jax.block_until_ready(self._pending[-1 - LEAD]["finite"])
            now = time.perf_counter()
            each = max((now - self._waited) / self._calls, 1e-9)
            self._group = min(int(_GROUP_S / each), _GROUP_CALLS)
            self._calls, self._waited = 0, now

    def fetch(self, number: int, checkpoint: Path | None) -> None:
        """Adds what is pending to the sums; the step taken last was `number`.

        Raises:
            NonFiniteError: At the first step that is not finite.
        """
        first = number - self._pending_steps + 1
        pending, self._pending = jax.device_get(self._pending), []
        self._pending_steps = 0
        single = [
            {name: values[i] for name, values in several.items()}
            for several in (jax.tree.map(np.atleast_1d, metrics) for metrics in pending)
            for i in range(len(several["finite"]))
        ]
        for step, metrics in enumerate(single, start=first):
            if not metrics["finite"]:
                loss, grad_norm = float(metrics["loss"]), float(metrics["grad_norm"])
                raise NonFiniteError(step, loss, grad_norm, checkpoint)
            for name in sorted(metrics.keys() - {"finite"}):
                self.sums[name] = self.sums.get(name, 0.0) + float(metrics[name])
            self.count += 1

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric over the steps fetched."""
        return {name: total / self.count for name, total in sorted(self.sums.items())}

    def reset(self) -> None:
        """Starts the next interval."""
        self.count, self.sums = 0, {}

    def get_state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold, once everything was fetched."""
        return {"count": self.count, "sums": self.sums}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes back to what `get_state` returned."""
        self.count, self.sums = state["count"], dict(state["sums"])


class Clock:
    """Time of the run over all its continuations, and the speed of its steps alone."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._steps = 0
        self._mark = self._begin

    def elapsed(self) -> float:
        """Returns the seconds of the run."""
        return time.perf_counter() - self._begin

    def add_earlier(self, seconds: float) -> None:
        """Counts the time before the run was continued."""
        self._begin -= seconds

    def restart(self) -> None:
        """Measures the speed from here on."""
        self._steps, self._mark = 0, time.perf_counter()

    def tick(self, steps: int = 1) -> None:
        """Counts steps."""
        self._steps += steps

    def rate(self) -> float | None:
        """Returns steps per second since the last restart; None if there were none."""
        seconds = time.perf_counter() - self._mark
        return self._steps / seconds if self._steps else None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time of the block out of the speed."""
        begin = time.perf_counter()
        yield
        self._mark += time.perf_counter() - begin
