"""Stopping a run politely."""

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass
class StopRequest:
    """Whether somebody asked the run to stop.

    Attributes:
        requested: The first signal that came, or None.
    """

    requested: signal.Signals | None = None

    def agreed(self) -> bool:
        """Returns whether any process was asked, and makes that the request of all.

        All processes call it at the same place, where they wait for each other.
        """
        # A signal may come while this one waits: it stays requested, for the next agreement.
        number_here = np.array(self.requested or 0)
        agreed = int(multihost_utils.process_allgather(number_here).max())
        if agreed:
            self.requested = signal.Signals(agreed)
        return bool(agreed)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns the first SIGTERM or SIGINT into a request, and exits with its status at the end.

    Inside the block a signal only sets `requested`, so that the loop can finish its step and
    save. A Ctrl-C after any earlier signal raises KeyboardInterrupt at once. Python handles
    signals in the main thread only; in any other thread the block changes nothing.

    Yields:
        The request, which `fit` takes as `stop`.

    Raises:
        SystemExit: When the block ends after a signal, with status 128 + the signal's number, as
            shells report it (143 for SIGTERM, 130 for Ctrl-C).
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested is not None:
            if number == signal.SIGINT:
                signal.default_int_handler(number, frame)
            return
        stop.requested = signal.Signals(number)
        # print() must not be re-entered from a handler.
        text = f"\n{stop.requested.name}: finishing this step; Ctrl-C stops at once\n"
        os.write(2, text.encode())

    earlier = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if jax.process_count() > 1:
        stop.agreed()  # a process that left alone would leave the others waiting for it
    if stop.requested is not None:
        raise SystemExit(128 + stop.requested)
