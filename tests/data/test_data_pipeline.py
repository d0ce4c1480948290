import itertools
import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from jitter_jax import data


class Numbers:
    """Examples that say which they are."""

    def __init__(self, length):
        self._length = length

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        return {"signal": np.full((3, 2, 1), index, np.float32)}


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def indices(batches):
    return np.concatenate([batch["index"] for batch in batches]).tolist()


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert sorted(a) == sorted(b)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.fixture
def training():
    opened = []

    def make(*arguments, **options):
        opened.append(data.training_iterator(*arguments, **options))
        return opened[-1]

    yield make
    for iterator in opened:
        iterator.close()


@pytest.mark.parametrize(("length", "batch_size"), [(7, 3), (6, 3), (5, 5), (1, 1), (8, 1)])
@pytest.mark.parametrize("num_threads", [0, 2])
def test_batches_carry_their_index_and_every_epoch_is_whole(
    training, length, batch_size, num_threads
):
    iterator = training(Numbers(length), batch_size, 3, num_threads=num_threads)
    batches = take(iterator, 3 * length)
    for batch in batches:
        assert sorted(batch) == ["index", "signal"]
        assert batch["index"].shape == (batch_size,) and batch["index"].dtype == np.int32
        assert batch["signal"].shape == (batch_size, 3, 2, 1)
        assert batch["signal"].dtype == np.float32
        np.testing.assert_array_equal(batch["signal"][:, 0, 0, 0], batch["index"])
    seen = indices(batches)
    for start in range(0, len(seen), length):
        assert sorted(seen[start : start + length]) == list(range(length))


def test_epochs_and_seeds_have_orders_of_their_own(training):
    orders = set()
    for seed in range(4):
        seen = indices(take(training(Numbers(40), 10, seed), 16))
        orders |= {tuple(seen[start : start + 40]) for start in range(0, 160, 40)}
    assert len(orders) == 16


def test_batches_do_not_depend_on_threads_or_prefetch(training):
    expected = take(training(Numbers(7), 3, 1, num_threads=0), 9)
    for options in ({"num_threads": 1}, {"num_threads": 3, "prefetch": 5}, {"prefetch": 0}):
        assert_same(take(training(Numbers(7), 3, 1, **options), 9), expected)


@pytest.mark.parametrize("done", [0, 1, 2, 5, 30])
def test_a_new_iterator_resumes_across_an_epoch(training, done):
    first = training(Numbers(7), 3, 1)
    take(first, done)
    state = json.loads(json.dumps(first.get_state()))
    expected = take(first, 8)
    resumed = training(Numbers(7), 3, 1)
    take(resumed, 4)
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert_same(take(resumed, 8), expected)


def test_an_iterator_goes_back_to_a_state_of_its_own(training):
    iterator = training(Numbers(7), 3, 1)
    take(iterator, 2)
    state = iterator.get_state()
    expected = take(iterator, 5)
    iterator.set_state(state)
    assert_same(take(iterator, 5), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Numbers(7), 4, 1), r"state\['batch_size'\]=3 .*batch_size=4"),
        ((Numbers(7), 3, 2), r"state\['seed'\]=1 .*seed=2"),
        ((Numbers(8), 3, 1), r"state\['num_examples'\]=7 .*num_examples=8"),
    ],
)
def test_a_state_of_another_run_is_refused(training, arguments, message):
    state = training(Numbers(7), 3, 1).get_state()
    with pytest.raises(ValueError, match=message):
        training(*arguments).set_state(state)


def test_a_state_of_something_else_is_refused(training):
    with pytest.raises(ValueError, match=r"keys \['next_index'\]; accepted: \['batch_size'"):
        training(Numbers(7), 3, 1).set_state({"next_index": 2})


def test_closing_ends_the_threads():
    def prefetchers():
        return {thread for thread in threading.enumerate() if "prefetch" in thread.name}

    before = prefetchers()  # of other tests, which may end at any time
    with data.training_iterator(Numbers(7), 3, 1, num_threads=2) as iterator:
        next(iterator)
        own = prefetchers() - before
        assert own
    deadline = time.monotonic() + 10
    while own & prefetchers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not own & prefetchers()
    iterator.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


PROGRAM = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have had it ignored
from jitter_jax import data
iterator = data.training_iterator(data.GeneratedSections(64, 0, (64, 64)), 4, 0)
next(iterator)
print("ready", flush=True)
{rest}
"""


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_open_iterator_does_not_keep_the_process_alive(interrupted):
    # Many short sleeps: one that begins just after the signal came would not be woken by it.
    wait = "for _ in range(6000):\n    time.sleep(0.01)"
    program = PROGRAM.format(rest=wait if interrupted else "")
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            if interrupted:
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert ("KeyboardInterrupt" in errors) == interrupted
    assert (process.returncode != 0) == interrupted


def test_an_error_of_the_source_arrives(training):
    class Broken(Numbers):
        def __getitem__(self, index):
            raise OSError("disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        next(training(Broken(3), 2, 0))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((Numbers(7), 0, 0), {}, "batch_size=0"),
        ((Numbers(7), 2.0, 0), {}, "batch_size=2.0"),
        ((Numbers(7), 8, 0), {}, r"batch_size=8 is larger .* 7 examples.*1\.\.7"),
        ((Numbers(0), 1, 0), {}, "no examples"),
        ((Numbers(7), 1, -1), {}, "seed=-1"),
        ((Numbers(7), 1, 2**32), {}, "seed=4294967296"),
        ((Numbers(7), 1, 0), {"num_threads": -1}, "num_threads=-1"),
        ((Numbers(7), 1, 0), {"prefetch": -1}, "prefetch=-1"),
    ],
)
def test_bad_training_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        data.training_iterator(*arguments, **options)


@pytest.mark.parametrize(
    ("length", "batch_size", "sizes"),
    [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (1, 1, [1])],
)
def test_evaluation_is_in_order_and_ends(length, batch_size, sizes):
    batches = list(data.evaluation_batches(Numbers(length), batch_size))
    assert [len(batch["index"]) for batch in batches] == sizes
    assert indices(batches) == list(range(length))
    for batch in batches:
        assert batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["signal"][:, 0, 0, 0], batch["index"])


@pytest.mark.parametrize(
    ("length", "batch_size", "message"),
    [(0, 1, "no examples"), (3, 0, "batch_size=0"), (3, -1, "batch_size=-1")],
)
def test_bad_evaluation_arguments(length, batch_size, message):
    with pytest.raises(ValueError, match=message):
        data.evaluation_batches(Numbers(length), batch_size)


def test_importing_the_data_room_is_light():
    program = (
        "import sys, jitter_jax.data; print([m for m in ('jax', 'grain') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "[]\n"
