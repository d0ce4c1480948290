"""Several steps in one program, and batches sent one ahead: the loop as if step by step."""

import jax
import numpy as np
import pytest
from test_loop import (
    BATCH,
    DECAY,
    OPTIMIZER,
    Batches,
    bits,
    loss,
    record,
    start,
    validate,
)

from jitter_jax.devices import first_devices
from jitter_jax.train import (
    Checkpoints,
    Feed,
    NonFiniteError,
    StopRequest,
    check_loop_options,
    fit,
    make_step,
    parallel_step,
)

NUM_STEPS, AT_ONCE = 24, 4
SETTINGS = {"log_every": 8, "validate_every": 12, "checkpoint_every": 4, "progress": False}


def run(workdir, at_once=AT_ONCE, batches=None, **changes):
    made = parallel_step(
        lambda reduce: make_step(loss, OPTIMIZER, average_decay=DECAY, reduce=reduce),
        first_devices(1),
        num_steps=at_once,
    )
    return fit(
        made.put_state(start()),
        made.step,
        Feed(batches or Batches(), made.put_batches, steps_at_once=at_once),
        workdir=workdir,
        steps_at_once=at_once,
        validate=validate,
        **{"num_steps": NUM_STEPS, **SETTINGS, **changes},
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return bits(run(workdir)), record(workdir)


def test_the_same_numbers_as_step_by_step(tmp_path, whole):
    state = run(tmp_path, at_once=1)
    # The very same here; a compiler may arrange a loop's body in another way.
    for found, expected in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(run(tmp_path / "b").params), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    steps = [line.split(",")[:2] for line in record(tmp_path)]
    assert steps == [line.split(",")[:2] for line in whole[1]] and len(steps) == 5


def test_stopped_run_continues_bit_for_bit(tmp_path, whole):
    stop = StopRequest()

    def on_next(step):
        if step == 11:  # read ahead while steps 5 to 8 run
            stop.requested = 15

    state = run(tmp_path, batches=Batches(on_next), stop=stop)
    assert int(state.step) == 8
    assert (bits(run(tmp_path)), record(tmp_path)) == whole


def test_a_run_does_not_step_over_its_end(tmp_path):
    """One that was stopped between two multiples is told so, and loses nothing."""
    stop = StopRequest()

    def on_next(step):
        if step == 7:  # read ahead while step 6 runs
            stop.requested = 15

    assert int(run(tmp_path, at_once=1, batches=Batches(on_next), stop=stop).step) == 6
    with pytest.raises(ValueError, match="from step 6, which is no multiple of it; go on with a"):
        run(tmp_path)
    assert int(run(tmp_path, at_once=2).step) == NUM_STEPS


@pytest.mark.parametrize("bad, good", [(3, None), (6, 4), (24, 20)])
def test_the_step_that_is_not_finite_is_named(tmp_path, bad, good, whole):
    with pytest.raises(NonFiniteError, match=f"step {bad} is not finite") as error:
        run(tmp_path, batches=Batches(poisoned=bad))
    assert error.value.step == bad
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.steps() or [None])[-1] == good
    assert (bits(run(tmp_path)), record(tmp_path)) == whole


@pytest.mark.parametrize("name", ["num_steps", "log_every", "validate_every", "checkpoint_every"])
def test_intervals_are_multiples(tmp_path, name):
    message = f"{name} must be a multiple of steps_at_once=4, got 6"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **{name: 6})
    with pytest.raises(ValueError, match="steps_at_once must be at least 1"):
        check_loop_options(
            num_steps=1,
            log_every=1,
            validate_every=1,
            checkpoint_every=1,
            keep=None,
            steps_at_once=0,
        )
    assert not list(tmp_path.iterdir())


def test_the_state_of_a_feed_is_that_of_what_it_gave():
    read = []
    feed = Feed(Batches(on_next=read.append), lambda rows: rows[0]["index"], steps_at_once=2)
    assert feed.get_state() == {"index": 0} and not read
    assert next(feed)[0] == 0 and read == [1, 2, 3, 4]
    state = feed.get_state()
    assert state == {"index": 2 * BATCH}
    assert [next(feed)[0] for _ in range(3)] == [2 * BATCH, 4 * BATCH, 6 * BATCH]
    feed.set_state(state)
    assert feed.get_state() == state and next(feed)[0] == 2 * BATCH


def test_a_feed_ends_after_the_last_batch():
    class Two(Batches):
        def __next__(self):
            if self.index == 2 * BATCH:
                raise StopIteration
            return super().__next__()

    assert len(list(Feed(Two(), lambda rows: rows))) == 2
