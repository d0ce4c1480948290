"""From a source of examples to batches.

A *source* is any object with `__len__` and `__getitem__(index) -> dict` of numpy arrays. Its
items hold `signal` (the truth x), `measurement` (a given y), or both; where `measurement` is
absent, the training code measures x itself. All items of one source have the same keys and shapes.
"""

import operator
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Protocol, Self

import numpy as np

from jitter_jax.data._checks import checked_count

Example = dict[str, np.ndarray]

_LARGEST_SEED = 2**32 - 1
_ENDLESS = 2**40  # batches; Grain wants a length


class Source(Protocol):
    """Examples with random access; item `i` is the same whenever it is asked for."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int, /) -> Example:
        """Example number `index`; an `IndexError` past the end."""


class TrainingIterator:
    """Batches without end from `training_iterator`: closable, with a state to resume from."""

    def __init__(self, batches: Any, identity: dict[str, int]):
        self._batches = batches
        self._identity = identity

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Example:
        return next(self._batches)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def get_state(self) -> dict[str, int]:
        """Where the iterator stands.

        Returns:
            Plain integers under string keys (fit for JSON): `next_index`, the number of batches
            that `next` has given so far, and what fixes their content (`batch_size`, `seed`,
            `num_examples`). Batches read ahead do not count.
        """
        return {**self._identity, "next_index": self._batches.get_state()["next_index"]}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a state that `get_state` gave; the batches that followed it follow again.

        Args:
            state: from an iterator of the same `batch_size`, `seed` and number of examples.

        Raises:
            ValueError: the state belongs to another iterator, whose batches would differ.
        """
        expected = {*self._identity, "next_index"}
        if set(state) != expected:
            raise ValueError(f"state has keys {sorted(state)}; accepted: {sorted(expected)}")
        for name, value in self._identity.items():
            if state[name] != value:
                raise ValueError(
                    f"state[{name!r}]={state[name]!r} is not accepted: this iterator has "
                    f"{name}={value}, and its batches would differ from those of the saved run"
                )
        self._batches.set_state({"next_index": int(state["next_index"])})

    def close(self) -> None:
        """Stop reading ahead. A second call does nothing; `next` afterwards is an error."""
        self._batches.close()


def training_iterator(
    source: Source,
    batch_size: int,
    seed: int,
    *,
    shard: tuple[int, int] = (0, 1),
    num_threads: int = 2,
    prefetch: int = 2,
) -> TrainingIterator:
    """Shuffled batches for ever.

    Every epoch visits each example once in an order of its own. Epochs follow one another without
    a gap: a batch may hold the end of one and the start of the next, so no example is dropped and
    every batch has the same size. The batches depend on `source`, `batch_size` and `seed`
    only, not on the threads.

    Args:
        source: the examples; read from several threads at once unless `num_threads` is 0.
        batch_size: examples in a batch, `1 .. len(source)`.
        seed: of the shuffling, `0 .. 2**32 - 1`.
        shard: `(number, count)`: part `number` of every batch, cut into `count` equal ones, is
            read and given. The parts in their order are the batch of `(0, 1)`, and a state belongs
            to all of them.
        num_threads: threads that read ahead; 0 reads in the calling thread.
        prefetch: batches read ahead; 0 reads none.

    Returns:
        An iterator over dicts of arrays with a leading axis of `batch_size / count`: the keys of
        the source's items, and `index`, int32, each example's number in the source.

    Raises:
        ValueError: an empty source, or an argument outside its range.
    """
    # Grain takes longer to import than all of this package.
    from grain.python import MapDataset, ReadOptions

    batch_size = checked_count("batch_size", batch_size)
    _check_training_arguments(source, batch_size, seed, num_threads, prefetch)
    _check_shard(shard, batch_size)
    dataset = MapDataset.source(_ShuffledBatches(source, batch_size, int(seed), shard))
    batches = dataset.to_iter_dataset(
        ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
    )
    identity = {"batch_size": batch_size, "seed": int(seed), "num_examples": len(source)}
    return TrainingIterator(iter(batches), identity)


def evaluation_batches(source: Source, batch_size: int) -> Iterator[Example]:
    """Every example once, in order.

    Args:
        source: the examples.
        batch_size: examples in a batch, at least 1; the last batch holds what is left.

    Returns:
        A finite iterator over dicts as in `training_iterator`, `index` included.

    Raises:
        ValueError: an empty source, or a `batch_size` below one.
    """
    batch_size = checked_count("batch_size", batch_size)
    _check_not_empty(source)
    return _in_order(source, batch_size)


def filled_up(examples: Example, size: int) -> Example:
    """Examples of a batch, filled up to a size with the first of them: one shape serves all.

    Args:
        examples: as from `evaluation_batches`, at most `size`.
        size: of the batch.
    """
    count = len(examples["index"])
    rows = np.where(np.arange(size) < count, np.arange(size), 0)
    return {key: values[rows] for key, values in examples.items()}


class _ShuffledBatches:
    """Batch number `i` of the endless sequence of epochs, each in an order of its own.

    Grain could shuffle and batch by itself, but spends some 150 microseconds an example on it,
    which for small examples is far more than a training step takes.
    """

    def __init__(self, source: Source, batch_size: int, seed: int, shard: tuple[int, int]):
        self._source = source
        self._batch_size = batch_size
        self._seed = seed
        number, count = shard
        self._rows = np.arange(number * batch_size // count, (number + 1) * batch_size // count)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> Example:
        length = len(self._source)
        epochs, places = np.divmod(index * self._batch_size + self._rows, length)
        numbers = [
            _order(self._seed, int(epoch), length)[places[epochs == epoch]]
            for epoch in np.unique(epochs)
        ]
        return _batch(self._source, np.concatenate(numbers))


# An epoch is read by several threads at a time, beside at most the next one.
@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(length)


def _batch(source: Source, numbers: np.ndarray) -> Example:
    """The examples of these numbers, stacked, and the numbers as `index`."""
    examples = [source[number] for number in numbers.tolist()]
    stacked = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    return {**stacked, "index": numbers.astype(np.int32)}


def _in_order(source: Source, batch_size: int) -> Iterator[Example]:
    for start in range(0, len(source), batch_size):
        yield _batch(source, np.arange(start, min(start + batch_size, len(source))))


def _check_not_empty(source: Source) -> None:
    if len(source) == 0:
        raise ValueError("source has no examples: at least one is expected")


def _check_shard(shard: tuple[int, int], batch_size: int) -> None:
    number, count = map(operator.index, shard)
    if not 0 <= number < count:
        raise ValueError(f"shard={shard} is not accepted: (number, count), 0 <= number < count")
    if batch_size % count:
        raise ValueError(f"batch_size={batch_size} cannot be cut into {count} equal parts")


def _check_training_arguments(
    source: Source, batch_size: int, seed: int, num_threads: int, prefetch: int
) -> None:
    _check_not_empty(source)
    if batch_size > len(source):
        raise ValueError(
            f"batch_size={batch_size} is larger than the source, which has {len(source)} examples, "
            f"so a batch would repeat some of them: 1..{len(source)} is accepted"
        )
    if not 0 <= operator.index(seed) <= _LARGEST_SEED:
        raise ValueError(f"seed={seed} is not accepted: 0..{_LARGEST_SEED} is expected")
    for name, value in (("num_threads", num_threads), ("prefetch", prefetch)):
        if operator.index(value) < 0:
            raise ValueError(f"{name}={value} is not accepted: 0 or more is expected")
