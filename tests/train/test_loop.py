"""The loop on a linear regression whose noise belongs to the step and to the example."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jitter_jax.train import (
    METRICS_FILE,
    TIMING_FIELDS,
    Checkpoints,
    NonFiniteError,
    StopRequest,
    check_loop_options,
    fit,
    init_state,
    make_optimizer,
    make_step,
    read_metrics,
    restore_params,
    stop_on_signals,
)

SIZE, BATCH, DECAY = 5, 4, 0.9
OPTIMIZER = make_optimizer("adam", learning_rate=0.05, schedule="cosine", num_steps=100)
NUM_STEPS = 23
SETTINGS = dict(log_every=5, validate_every=6, checkpoint_every=7, progress=False)


class Batches:
    """Endless batches of consecutive examples, each made from its own index."""

    def __init__(self, on_next=None, poisoned=None):
        self.index = 0
        self.on_next = on_next
        self.poisoned = poisoned

    def __next__(self):
        if self.on_next is not None:
            self.on_next(self.index // BATCH + 1)
        index = np.arange(self.index, self.index + BATCH)
        self.index += BATCH
        if self.index // BATCH == self.poisoned:
            return {"index": index.astype(np.int32), "x": np.full((BATCH, SIZE), np.nan, "f4")}
        x = np.stack([np.random.default_rng(i).normal(size=SIZE) for i in index])
        return {"index": index.astype(np.int32), "x": x.astype(np.float32)}

    def get_state(self):
        return {"index": self.index}

    def set_state(self, state):
        self.index = state["index"]


def loss(params, batch, key):
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i)))(batch["index"])
    estimate = batch["x"] @ params["weights"] + params["bias"]
    target = batch["x"].sum(1) + 0.1 * noise
    error = estimate - target
    return jnp.mean(error**2), {"bias": params["bias"], "largest": jnp.abs(error).max()}


def validate(params):
    return {"loss": jnp.sum((params["weights"] - 1) ** 2), "undefined": float("nan")}


def start():
    params = {"weights": jnp.zeros(SIZE), "bias": jnp.zeros(())}
    return init_state(params, OPTIMIZER, jax.random.key(7), average_decay=DECAY)


def compiled_step(loss=loss):
    return jax.jit(make_step(loss, OPTIMIZER, average_decay=DECAY), donate_argnums=0)


# One compiled step for all tests; a process that is continued has to compile its own.
shared_step = functools.cache(compiled_step)


def run(workdir, *, num_steps=NUM_STEPS, step=None, batches=None, on_next=None, **changes):
    step = step or shared_step()
    batches = batches or Batches(on_next)
    settings = {**SETTINGS, "validate": validate, **changes}
    return fit(start(), step, batches, workdir=workdir, num_steps=num_steps, **settings)


def raise_at(number, error):
    def on_next(step):
        if step == number:
            raise error

    return on_next


def bits(tree):
    """Returns the bytes of each leaf by path."""

    def data(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()

    return {jax.tree_util.keystr(p): data(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)}


def record(workdir):
    """Returns the lines of the record, as text, without their timing fields."""
    lines = read_metrics(Path(workdir) / METRICS_FILE)
    return [
        json.dumps({name: x for name, x in line.items() if name not in TIMING_FIELDS})
        for line in lines
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    return bits(run(workdir)), record(workdir)


def test_record_and_checkpoints(tmp_path):
    state = run(tmp_path, keep=2)
    lines = read_metrics(tmp_path / METRICS_FILE)
    steps = {s: [x["step"] for x in lines if x["split"] == s] for s in ("train", "validation")}
    assert steps == {"train": [5, 10, 15, 20, 23], "validation": [6, 12, 18, 23]}
    assert lines[0].keys() == {
        *("step", "split", "wall_time", "steps_per_second"),
        *("loss", "grad_norm", "bias", "largest"),
    }
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [21, 23]
    params, step = restore_params(tmp_path)
    assert step == int(state.step) == NUM_STEPS
    assert bits(params) == bits(state.average) != bits(state.params)


def test_record_is_strict_json_of_interval_means(tmp_path):
    run(tmp_path, num_steps=10)
    text = (tmp_path / METRICS_FILE).read_text()
    assert "NaN" not in text and '"undefined": null' in text
    state, step = start(), shared_step()
    batches, losses = Batches(), []
    for _ in range(10):
        state, metrics = step(state, next(batches))
        losses.append(float(metrics["loss"]))
    lines = [x["loss"] for x in read_metrics(tmp_path / METRICS_FILE) if x["split"] == "train"]
    assert lines == [sum(losses[:5]) / 5, sum(losses[5:]) / 5]


@pytest.mark.parametrize("number", [1, 7, 10, 22])
def test_stopped_run_continues_bit_for_bit(tmp_path, number, uninterrupted):
    stop = StopRequest()

    def on_next(step):
        if step == number:
            stop.requested = signal.SIGTERM

    state = run(tmp_path, on_next=on_next, stop=stop)
    assert int(state.step) == number
    final = run(tmp_path)
    assert (bits(final), record(tmp_path)) == uninterrupted


@pytest.mark.parametrize("number", [2, 15])
def test_crashed_run_continues_bit_for_bit(tmp_path, number, uninterrupted):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_next=raise_at(number, KeyboardInterrupt))
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 2')
    final = run(tmp_path)
    assert (bits(final), record(tmp_path)) == uninterrupted


def test_ctrl_c_saves_and_exits(tmp_path, uninterrupted, capfd):
    def on_next(step):
        if step == 9:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit) as error, stop_on_signals() as stop:
        state = run(tmp_path, on_next=on_next, stop=stop)
    assert error.value.code == 130 and int(state.step) == 9
    output = capfd.readouterr()
    assert "stopped at step 9" in output.out and "SIGINT" in output.err
    assert (bits(run(tmp_path)), record(tmp_path)) == uninterrupted


def test_longer_run_takes_up_the_last_interval(tmp_path, uninterrupted):
    run(tmp_path, num_steps=12)
    state = run(tmp_path)
    extra = [x for x in record(tmp_path) if x not in uninterrupted[1]]
    assert bits(state) == uninterrupted[0]
    # The short run closed its interval at step 12, and that line stays.
    assert [json.loads(x)["step"] for x in extra] == [12]


def test_finished_run_does_nothing(tmp_path, uninterrupted, capsys):
    run(tmp_path)
    state = run(tmp_path, on_next=raise_at(24, AssertionError))
    assert "nothing to do: 23 of 23" in capsys.readouterr().out
    assert (bits(state), record(tmp_path)) == uninterrupted


def child(workdir):
    """Starts the run of this file in another process, slowed down so that it can be hit."""
    return subprocess.Popen([sys.executable, __file__, str(workdir)], stdout=subprocess.DEVNULL)


def wait_for_line(process, workdir, step):
    path = Path(workdir) / METRICS_FILE
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be stopped"
        if path.exists() and any(line["step"] >= step for line in read_metrics(path)):
            return
        time.sleep(0.01)
    raise AssertionError("the run is too slow")


def test_terminated_and_killed_processes_continue_bit_for_bit(tmp_path, uninterrupted):
    for step, number, status in ((5, signal.SIGTERM, 143), (15, signal.SIGKILL, -9)):
        process = child(tmp_path)
        try:
            wait_for_line(process, tmp_path, step)
            os.kill(process.pid, number)
            assert process.wait(timeout=30) == status
        finally:
            process.kill()
            process.wait()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps()[-1] < NUM_STEPS
    assert (bits(run(tmp_path)), record(tmp_path)) == uninterrupted


@pytest.mark.parametrize("bad", [4, 9, 23])
def test_nan_stops_the_run(tmp_path, bad, uninterrupted):
    good = 7 * ((bad - 1) // 7)
    saved = f"checkpoints/{good}, of step {good}.*another workdir" if good else "no checkpoint"
    with pytest.raises(NonFiniteError, match=f"step {bad} is not finite.*nan.*{saved}") as error:
        run(tmp_path, batches=Batches(poisoned=bad))
    assert error.value.step == bad and np.isnan(error.value.loss)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [s for s in (7, 14, 21) if s <= good]
    # With the cause removed, the run goes on from the last good checkpoint.
    assert (bits(run(tmp_path)), record(tmp_path)) == uninterrupted


def test_compiled_once_even_if_resumed(tmp_path):
    traces = []

    def counted(params, batch, key):
        traces.append(None)
        return loss(params, batch, key)

    step = compiled_step(counted)
    run(tmp_path, num_steps=5, step=step)
    run(tmp_path, num_steps=9, step=step)
    assert len(traces) == 1


def test_fetches_only_for_lines_and_checkpoints(tmp_path, monkeypatch):
    fetched, taken = [], []
    device_get, step = jax.device_get, shared_step()

    def counted(state, batch):
        taken.append(None)
        return step(state, batch)

    def spy(tree):
        fetched.append(len(taken))
        return device_get(tree)

    monkeypatch.setattr(jax, "device_get", spy)
    run(tmp_path, num_steps=11, step=counted, validate=None, log_every=4, checkpoint_every=6)
    assert set(fetched) == {4, 6, 8, 11}


def test_progress_bar_shows_losses(tmp_path, capsys):
    run(tmp_path, progress=True)
    output = capsys.readouterr()
    assert "first step, with compiling" in output.out
    assert "23/23" in output.err and "loss=" in output.err and "validation=" in output.err


def test_grain_iterator(tmp_path):
    grain = pytest.importorskip("grain")

    def go(workdir, num_steps):
        source = [{"index": np.int32(i), "x": np.full(SIZE, i, np.float32)} for i in range(10)]
        data = grain.MapDataset.source(source).shuffle(seed=3).repeat().batch(BATCH)
        # The default of 16 threads starves the compiler.
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        return run(workdir, num_steps=num_steps, batches=iter(data.to_iter_dataset(options)))

    expected = go(tmp_path / "a", 12)
    go(tmp_path / "b", 8)
    assert bits(go(tmp_path / "b", 12)) == bits(expected)


def test_names_of_the_record_are_taken(tmp_path):
    with pytest.raises(ValueError, match="a metric cannot be named split or step"):
        run(tmp_path, validate=lambda _: {"split": 1.0, "step": 2.0})


def test_ends_with_the_data(tmp_path):
    with pytest.raises(ValueError, match="the batches end after step 3 of 23"):
        run(tmp_path, on_next=raise_at(4, StopIteration))


@pytest.mark.parametrize(
    "name", ["num_steps", "log_every", "validate_every", "checkpoint_every", "keep"]
)
def test_options_are_positive(tmp_path, name):
    message = f"{name} must be at least 1.*, got 0"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **{name: 0})
    options = dict(num_steps=1, log_every=1, validate_every=1, checkpoint_every=1, keep=None)
    check_loop_options(**options)
    with pytest.raises(ValueError, match=message):
        check_loop_options(**{**options, name: 0})
    assert not list(tmp_path.iterdir())


def test_batches_must_be_restorable(tmp_path):
    with pytest.raises(TypeError, match="set_state"):
        run(tmp_path, batches=iter([1]))
    batches = Batches()
    batches.get_state = lambda: {"index": np.int32(3)}
    with pytest.raises(TypeError, match="JSON"):
        run(tmp_path, batches=batches)


if __name__ == "__main__":
    with stop_on_signals() as request:
        run(sys.argv[1], on_next=lambda _: time.sleep(0.05), stop=request)
