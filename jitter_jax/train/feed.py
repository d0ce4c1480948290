"""Batches on their way to the devices, one ahead of the step that takes them."""

from collections.abc import Callable
from typing import Any, Self

from jitter_jax.train.loop import Batches
from jitter_jax.train.step import PyTree


class Feed:
    """Batches on the devices: while a step runs, the next batch is read and sent.

    Its state is that of the batches handed out: the one ahead does not count.
    """

    def __init__(
        self,
        batches: Batches,
        put: Callable[[list[PyTree]], PyTree],
        *,
        steps_at_once: int = 1,
    ):
        """Reads nothing yet.

        Args:
            batches: the batches on the host.
            put: sends as many batches as a program has steps, without waiting for them; see
                `ParallelStep`.
            steps_at_once: how many.
        """
        self._batches, self._put, self._count = batches, put, steps_at_once
        self._state = batches.get_state()
        self._ahead: tuple[PyTree, Any] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> PyTree:
        """Returns the next batches, and sends those after them on their way."""
        current, self._state = self._ahead or self._load()
        try:
            self._ahead = self._load()
        except StopIteration:
            self._ahead = None  # the next call ends in the same way
        return current

    def get_state(self) -> Any:
        """Returns the position after the batches handed out, as JSON values."""
        return self._state

    def set_state(self, state: Any) -> None:
        """Goes to a position that `get_state` returned."""
        self._batches.set_state(state)
        self._state, self._ahead = state, None

    def _load(self) -> tuple[PyTree, Any]:
        rows = [next(self._batches) for _ in range(self._count)]
        return self._put(rows), self._batches.get_state()
