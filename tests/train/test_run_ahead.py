"""When the loop waits for the device: at lines and checkpoints, and two steps behind."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.train import fit, init_state, make_optimizer

OPTIMIZER = make_optimizer("sgd", learning_rate=0.1, schedule="constant", num_steps=10)


class Scalar:
    """A number on a device, which notes when the host waits for it or asks for it."""

    def __init__(self, events, step, value):
        self.events, self.step, self.value = events, step, value

    def block_until_ready(self):
        self.events.append(f"wait {self.step}")
        return self

    def __array__(self, dtype=None, copy=None):
        self.events.append(f"fetch {self.step}")
        return np.asarray(self.value, dtype)


class Batches:
    def __next__(self):
        return None

    def get_state(self):
        return 0

    def set_state(self, state):
        pass


def waits(tmp_path, monkeypatch, *, seconds, num_steps, log_every, validate_every):
    """What happens in a run whose steps take so long by the clock."""
    events, now = [], [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def step(state, batch):
        number = int(state.step) + 1
        now[0] += seconds
        events.append(f"step {number}")
        metrics = {"loss": 1.0, "grad_norm": 1.0, "finite": Scalar(events, number, True)}
        return state._replace(step=jnp.int32(number)), metrics

    state = init_state({"weights": jnp.zeros(2)}, OPTIMIZER, jax.random.key(0))
    fit(
        state,
        step,
        Batches(),
        workdir=tmp_path,
        num_steps=num_steps,
        log_every=log_every,
        validate=lambda params: events.append("validate") or {"loss": 0.0},
        validate_every=validate_every,
        checkpoint_every=100,
        progress=False,
    )
    return events


def test_host_waits_only_for_the_step_before_last(tmp_path, monkeypatch):
    events = waits(tmp_path, monkeypatch, seconds=0.05, num_steps=9, log_every=6, validate_every=8)
    assert events == [
        *("step 1", "wait 1", "step 2", "step 3", "wait 1"),
        *("step 4", "wait 2", "step 5", "wait 3", "step 6", "wait 4"),
        *(f"fetch {number}" for number in range(1, 7)),  # a line
        *("step 7", "step 8", "fetch 7", "fetch 8", "validate"),
        *("step 9", "fetch 9", "validate"),
    ]


def test_host_waits_for_short_steps_in_groups(tmp_path, monkeypatch):
    events = waits(
        tmp_path, monkeypatch, seconds=0.001, num_steps=60, log_every=60, validate_every=60
    )
    at = [i for i, event in enumerate(events) if event.startswith("wait")]
    assert [(events[i - 1], events[i]) for i in at] == [
        ("step 1", "wait 1"),
        ("step 3", "wait 1"),
        ("step 19", "wait 17"),
        ("step 35", "wait 33"),
        ("step 51", "wait 49"),
    ]
