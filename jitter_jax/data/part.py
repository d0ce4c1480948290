"""A range of the examples of a source."""

from jitter_jax.data.pipeline import Example, Source


class Part:
    """Examples `start .. stop - 1` of another source, numbered from zero.

    Args:
        source: the whole.
        start: first example.
        stop: the one after the last.

    Raises:
        ValueError: the range is empty or not within the source.
    """

    def __init__(self, source: Source, start: int, stop: int):
        if not 0 <= start < stop <= len(source):
            raise ValueError(
                f"examples {start}..{stop - 1} are not accepted: the source has {len(source)}"
            )
        self._source, self._start, self._stop = source, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"index={index} is not accepted: there are {len(self)} examples")
        return self._source[self._start + index]
