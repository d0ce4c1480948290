"""The training loop. It knows a state, a step and a stream of batches; not the problem."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax

from jitter_jax.host_memory import return_freed_memory
from jitter_jax.train._display import Display
from jitter_jax.train._meter import Clock, Meter
from jitter_jax.train.checkpoint import Checkpoints, check_keep
from jitter_jax.train.metrics_log import METRICS_FILE, append_metrics, drop_metrics_after
from jitter_jax.train.signals import StopRequest
from jitter_jax.train.step import PyTree, Step, TrainState, eval_params

Validate = Callable[[PyTree], dict[str, float]]


class Batches(Protocol):
    """An endless iterator that can be put back to where it was, as Grain's are."""

    def __next__(self) -> PyTree:
        """Returns the next batch."""

    def get_state(self) -> Any:
        """Returns the position as JSON values."""

    def set_state(self, state: Any) -> None:
        """Goes to a position that `get_state` returned."""


def fit(
    state: TrainState,
    step: Step,
    batches: Batches,
    *,
    workdir: str | os.PathLike[str],
    num_steps: int,
    log_every: int = 100,
    validate: Validate | None = None,
    validate_every: int = 1000,
    checkpoint_every: int = 1000,
    keep: int | None = 3,
    steps_at_once: int = 1,
    stop: StopRequest | None = None,
    progress: bool = True,
) -> TrainState:
    """Trains up to `num_steps`, going on from the newest checkpoint in `workdir` if there is one.

    A run that was stopped or killed, and is continued, ends with the very numbers of a run that
    was not: parameters, optimizer, and every line of `metrics.jsonl` but its timing fields.

    Args:
        state: The state to start from; a checkpoint replaces its values.
        step: `step(state, batch) -> (state, metrics)`, compiled, as from `jax.jit(make_step(...))`.
            It may donate its state.
        batches: The iterator of batches. It must not end.
        workdir: The run's folder; holds `checkpoints/` and `metrics.jsonl`.
        num_steps: The step to stop after, counted from the start of the run, at least 1.
        log_every: Steps per line of `metrics.jsonl`, which has their mean. Metrics are fetched
            from the device only here, and before validating and saving.
        validate: `validate(params) -> metrics`, given the averaged parameters if there are any;
            called every `validate_every` steps and after the last.
        validate_every: Steps between validations.
        checkpoint_every: Steps between checkpoints; there is one after the last step, too.
        keep: How many of the newest checkpoints stay; None keeps all.
        steps_at_once: Steps that one call of `step` takes, whose metrics then have a leading axis
            of steps. It divides all four numbers of steps above.
        stop: What `stop_on_signals` yields; once it is requested the loop finishes the step,
            saves and returns.
        progress: Whether to show a progress bar.

    Returns:
        The last state; its step is below `num_steps` if it was stopped.

    Raises:
        NonFiniteError: If a step is not finite. No checkpoint is made of it.
        CheckpointError: If the newest checkpoint is damaged or is not of this network.
        TypeError: If `batches` cannot be saved and restored.
        ValueError: If a number is below 1 or no multiple of `steps_at_once`, or the batches end.
    """
    check_loop_options(
        num_steps=num_steps,
        log_every=log_every,
        validate_every=validate_every,
        checkpoint_every=checkpoint_every,
        keep=keep,
        steps_at_once=steps_at_once,
    )
    _check_batches(batches)
    workdir = Path(workdir).absolute()
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir, keep=keep))
        display = Display(bar=progress, quiet=jax.process_index() != 0)
        stack.callback(display.close)
        run = _Run(workdir / METRICS_FILE, checkpoints, batches, display, num_steps, steps_at_once)
        state = run.resume(state)
        if run.number >= num_steps:
            display.say(f"nothing to do: {run.number} of {num_steps} steps were taken before")
            return state
        while run.number < num_steps:
            state = run.advance(state, step)
            last = run.number == num_steps
            stopping = _is_stopping(stop, run.number, log_every)
            if last or run.number % log_every == 0:
                # The end may cut an interval short; a longer run then takes it up again.
                run.log(reset=run.number % log_every == 0)
            if validate is not None and (last or run.number % validate_every == 0):
                run.validate(eval_params(state), validate)
            if last or stopping or run.number % checkpoint_every == 0:
                run.save(state)
            if stopping and not last:
                display.say(f"stopped at step {run.number}, saved in {run.saved}")
                break
    return state


def check_loop_options(
    *,
    num_steps: int,
    log_every: int,
    validate_every: int,
    checkpoint_every: int,
    keep: int | None,
    steps_at_once: int = 1,
) -> None:
    """Checks the numbers that `fit` takes, for a caller that must know before it writes anything.

    Raises:
        ValueError: If one of them is below 1, or a number of steps is no multiple of
            `steps_at_once`; the message names it. `keep` may be None.
    """
    if steps_at_once < 1:
        raise ValueError(f"steps_at_once must be at least 1, got {steps_at_once}")
    for name, number in (
        ("num_steps", num_steps),
        ("log_every", log_every),
        ("validate_every", validate_every),
        ("checkpoint_every", checkpoint_every),
    ):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
        if number % steps_at_once:
            raise ValueError(
                f"{name} must be a multiple of steps_at_once={steps_at_once}, got {number}"
            )
    check_keep(keep)


class _Run:
    """What the loop carries on the host from step to step."""

    def __init__(
        self,
        path: Path,
        checkpoints: Checkpoints,
        batches: Batches,
        display: Display,
        num_steps: int,
        steps_at_once: int,
    ):
        self.path, self.checkpoints, self.batches = path, checkpoints, batches
        self.display, self.num_steps, self.at_once = display, num_steps, steps_at_once
        self.meter, self.clock = Meter(), Clock()
        self.number = self.first = 0
        self.saved: Path | None = None
        self.validated: tuple[int, dict[str, float]] | None = None

    def resume(self, state: TrainState) -> TrainState:
        """Takes up the newest checkpoint, and the record as it was then."""
        restored = self.checkpoints.restore_latest(state)
        if restored is not None:
            state, progress = restored
            self.batches.set_state(progress["batches"])
            self.meter.set_state(progress["meter"])
            self.clock.add_earlier(progress["wall_time"])
            self.saved = self.checkpoints.path(int(state.step))
            self.display.say(f"going on from {self.saved}")
        self.number = self.first = int(state.step)
        if self.number % self.at_once:
            raise ValueError(
                f"steps_at_once={self.at_once} is not accepted: the run goes on from step "
                f"{self.number}, which is no multiple of it; go on with a divisor, such as 1"
            )
        if jax.process_index() == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            drop_metrics_after(self.path, self.number)
        return state

    def advance(self, state: TrainState, step: Step) -> TrainState:
        """Takes the steps of one call without waiting, unless it is the first, which compiles."""
        try:
            batch = next(self.batches)
        except StopIteration:
            raise ValueError(
                f"the batches end after step {self.number} of {self.num_steps}; repeat the data"
            ) from None
        begin = time.perf_counter()
        state, metrics = step(state, batch)
        self.meter.add(metrics, self.at_once)
        self.number += self.at_once
        if self.number == self.first + self.at_once:
            jax.block_until_ready(metrics)
            return_freed_memory()  # of the compiler
            self.clock.restart()
            self.display.say(f"first step, with compiling: {time.perf_counter() - begin:.2f} s")
            self.display.start(self.number, self.num_steps)
        else:
            self.clock.tick(self.at_once)
            self.display.tick(self.at_once)
        return state

    def log(self, *, reset: bool) -> None:
        """Writes the means since the last line."""
        self.meter.fetch(self.number, self.saved)
        means = self.meter.means()
        self.write("train", means, steps_per_second=self.clock.rate())
        self.display.show(loss=means["loss"])
        self.clock.restart()
        if reset:
            self.meter.reset()

    def validate(self, params: PyTree, validate: Validate) -> None:
        """Validates, and writes a line."""
        self.meter.fetch(self.number, self.saved)
        with self.clock.paused():
            metrics = {name: float(value) for name, value in validate(params).items()}
            self.validated = (self.number, metrics)
            self.write("validation", metrics)
            if "loss" in metrics:
                self.display.show(validation=metrics["loss"])

    def save(self, state: TrainState) -> None:
        """Makes a checkpoint, once every step up to here is known to be finite."""
        self.meter.fetch(self.number, self.saved)
        with self.clock.paused():
            progress = {
                "batches": self.batches.get_state(),
                "meter": self.meter.get_state(),
                "wall_time": self.clock.elapsed(),
            }
            step, metrics = self.validated or (None, None)
            validation = metrics if step == self.number else None
            self.saved = self.checkpoints.save(state, progress, validation=validation)

    def write(self, split: str, metrics: dict[str, float], **timing: float | None) -> None:
        """Adds a line to the record."""
        wall_time = round(self.clock.elapsed(), 3)
        head = {"step": self.number, "split": split, "wall_time": wall_time, **timing}
        if taken := head.keys() & metrics.keys():
            raise ValueError(f"a metric cannot be named {' or '.join(sorted(taken))}")
        if jax.process_index() == 0:
            append_metrics(self.path, {**head, **metrics})


def _check_batches(batches: Batches) -> None:
    try:
        json.dumps(batches.get_state())
        batches.set_state  # noqa: B018
    except (AttributeError, TypeError) as error:
        raise TypeError(
            "batches must be an iterator whose get_state() returns JSON values and which has "
            f"set_state(), as iter() of a Grain data set is; got {type(batches).__name__}: {error}"
        ) from error


def _is_stopping(stop: StopRequest | None, number: int, every: int) -> bool:
    if stop is None:
        return False
    if jax.process_count() > 1:
        # A signal reaches the processes at different steps, or only one of them; all must stop at
        # the same step, and asking at every step would make them wait for each other.
        if number % every:
            return False
        return stop.agreed()
    return stop.requested is not None
