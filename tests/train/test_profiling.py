"""Traces parse, hold what they say, and name what an unrolled reconstruction does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traces import COMPILING, event_names, trace_events

from jitter_jax import operators, unroll
from jitter_jax.attacks import Threat, pgd, reconstruction_error
from jitter_jax.profiling import TracedSteps, trace
from jitter_jax.train import init_state, make_optimizer, make_step

OPTIMIZER = make_optimizer("adam", learning_rate=0.05, schedule="constant", num_steps=10)
OPERATOR = operators.dense(np.eye(3, 4, dtype=np.float32))
Y = jnp.arange(3.0)


def reconstruct(scale, y=Y):
    return unroll.gradient_descent(
        lambda x: scale * jnp.tanh(x), OPERATOR, y, step_size=0.1, num_iterations=2
    )


def loss(params, batch, key):
    return jnp.sum((reconstruct(params["scale"]) - batch) ** 2), {}


def take(steps, number):
    state = init_state({"scale": jnp.ones(())}, OPTIMIZER, jax.random.key(0))
    for _ in range(number):
        state, _ = steps(state, jnp.zeros(4))
    return state


@pytest.fixture(scope="module")
def step():
    step = jax.jit(make_step(loss, OPTIMIZER), donate_argnums=0)
    take(step, 1)
    return step


def step_numbers(folder):
    return [int(e["args"]["step_num"]) for e in trace_events(folder) if e.get("name") == "train"]


def test_only_the_steps_asked_for_are_traced(tmp_path, step):
    with TracedSteps(step, tmp_path, skip=2, count=3) as traced:
        state = take(traced, 8)
    assert (traced.traced, int(state.step)) == (3, 8)
    assert step_numbers(tmp_path) == [2, 3, 4]
    assert state.params == take(step, 8).params


def test_trace_ends_with_a_run_that_is_short_or_fails(tmp_path, step):
    with TracedSteps(step, tmp_path / "short", skip=2, count=3) as traced:
        take(traced, 3)
    assert traced.traced == 1 and step_numbers(tmp_path / "short") == [2]
    failed = TracedSteps(step, tmp_path / "failed", skip=1, count=3)
    with pytest.raises(KeyboardInterrupt), failed:
        take(failed, 3)
        raise KeyboardInterrupt
    assert failed.traced == 2 and step_numbers(tmp_path / "failed") == [1, 2]


def test_nothing_is_traced_before_everything_is_compiled(tmp_path, step):
    with TracedSteps(step, tmp_path) as traced:
        take(traced, 2)
    assert traced.traced == 0 and not list(tmp_path.iterdir())


def test_trace_for_xprof_names_the_parts(tmp_path):
    function = jax.jit(reconstruct)
    function(1.0)
    with trace(tmp_path):
        jax.block_until_ready(function(1.0))
    (file,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    names = {plane.name for plane in jax.profiler.ProfileData.from_file(str(file)).planes}
    assert "/host:CPU" in names
    # The compiled program goes with the trace.
    for name in (b"iteration/data_step", b"iteration/learned_step"):
        assert name in file.read_bytes()


def test_compiling_shows_in_a_trace(tmp_path):
    """As other tests, which look for it and must not find it, rely on."""
    with trace(tmp_path):
        jax.jit(lambda x: 2 * x)(1.0)
    assert [name for name in event_names(tmp_path) if COMPILING in name]


def test_steps_of_an_attack_have_a_name():
    x, start = jnp.zeros(4), jnp.zeros(3)
    objective = reconstruction_error(lambda y: reconstruct(1.0, y), OPERATOR, x, Y)
    attack = pgd(Threat(0.1).ball(Y), num_steps=2)
    text = jax.jit(attack, static_argnums=0).lower(objective, start, jax.random.key(0))
    names = text.as_text(debug_info=True)
    assert "attack_step" in names and "learned_step" in names
