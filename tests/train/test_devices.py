"""One device, eight of them by `jit` and by `pmap`: the same noise, the same training."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import mri_phantom, points
from jitter_jax import data, experiment, operators, train
from jitter_jax.commands.runs import first_state, step_of
from jitter_jax.commands.train import train_only, training_devices
from jitter_jax.data.batch import Batch
from jitter_jax.devices import first_devices
from jitter_jax.schemes.lift import batched
from jitter_jax.train import init_state, make_step, parallel_step

NUM_STEPS, BATCH = 20, 8


def tiny(kind="points"):
    config = (points if kind == "points" else mri_phantom).get_config()
    config.data.update({"num_train": 20, "num_validation": 3, "num_test": 3})
    config.data.out_of_distribution = ()
    config.network.update({"width": 4, "depth": 2})
    config.unroll.num_iterations = 2
    config.scheme.name = "sgd_jitter"
    config.train.update({"batch_size": BATCH, "num_steps": NUM_STEPS, "average_decay": 0.9})
    config.train.update({"log_every": 5, "validate_every": 10, "checkpoint_every": 10})
    config.optimizer.learning_rate = 1e-2
    if kind == "mri":
        config.data.images.shape = (16, 16)
        config.network.num_groups = 1
    return config


@cache
def built(kind="points"):
    return experiment.build(tiny(kind))


def trained(num_devices, parallel="jit", num_steps=1):
    """Returns state and every step's metrics after 20 steps."""
    made = parallel_step(
        partial(step_of, built()),
        first_devices(num_devices),
        parallel=parallel,
        num_steps=num_steps,
    )
    state, metrics = made.put_state(first_state(built())), []
    with data.training_iterator(built().sources["train"], BATCH, 0) as batches:
        feed = train.Feed(batches, made.put_batches, steps_at_once=num_steps)
        for _ in range(NUM_STEPS // num_steps):
            state, of_steps = made.step(state, next(feed))
            metrics.append(np.atleast_1d(of_steps["loss"]))
    return jax.device_get((state.params, state.average)), np.concatenate(metrics)


@pytest.fixture(scope="module")
def alone():
    return trained(1)


def assert_close(found, expected):
    # Sums in another order, after 20 steps of Adam, which divides by small numbers.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize(
    "num_devices, parallel, num_steps",
    [(8, "jit", 1), (8, "pmap", 1), (4, "jit", 5), (4, "pmap", 5)],
)
def test_devices_train_as_one_does(alone, num_devices, parallel, num_steps):
    assert_close(trained(num_devices, parallel, num_steps), alone)


def test_steps_in_one_program_train_as_one_by_one(alone):
    assert_close(trained(1, num_steps=10), alone)


def test_jitter_matters_to_these_tests(alone):
    config = tiny()
    config.scheme.jitter.sigma = 0.0
    quiet = experiment.build(config)
    step = jax.jit(step_of(quiet))
    with data.training_iterator(quiet.sources["train"], BATCH, 0) as batches:
        _, metrics = step(first_state(quiet), next(batches))
    assert abs(metrics["loss"] - alone[1][0]) > 1e-3 * alone[1][0]


def noise_drawn(num_devices, parallel):
    """Returns the sum over 3 steps of the noise that each of 16 examples drew."""

    # The gradient of the table is the noise, in the row of its example.
    def example_loss(table, x, y, operator, key):
        del x, operator
        return jnp.vdot(table[y], jax.random.normal(key, (5,)))

    optimizer = optax.sgd(1.0)
    made = parallel_step(
        lambda reduce: make_step(batched(example_loss), optimizer, reduce=reduce),
        first_devices(num_devices),
        parallel=parallel,
    )
    state = made.put_state(init_state(jnp.zeros((16, 5)), optimizer, jax.random.key(0)))
    for start in (0, 3, 8):
        index = np.arange(start, start + 8, dtype=np.int32)
        batch = Batch(index, index, operators.identity(), np.ones(8, np.float32), index)
        state, _ = made.step(state, made.put_batches([batch]))
    return np.asarray(state.params)


def test_noise_is_the_same_bit_for_bit():
    expected = noise_drawn(1, "jit")
    assert len(np.unique(expected)) == 16 * 5
    for num_devices in (2, 8):
        for parallel in ("jit", "pmap"):
            np.testing.assert_array_equal(noise_drawn(num_devices, parallel), expected)


def test_fourier_transforms_stay_on_their_device():
    made = parallel_step(partial(step_of, built("mri")), first_devices(4))
    state = made.put_state(first_state(built("mri")))
    with data.training_iterator(built("mri").sources["train"], BATCH, 0) as batches:
        program = made.step.lower(state, made.put_batches([next(batches)])).compile().as_text()
    collectives = set(re.findall(r"(all-[a-z]+|collective-[a-z]+) ?\(", program))
    assert "fft(" in program and collectives == {"all-reduce"}


def test_compiles_once_and_donates():
    traces = []

    def make(reduce):
        step = step_of(built(), reduce)

        def counted(*arguments):
            traces.append(None)
            return step(*arguments)

        return counted

    for parallel in ("jit", "pmap"):
        traces.clear()
        made = parallel_step(make, first_devices(2), parallel=parallel)
        first = state = made.put_state(first_state(built()))
        with data.training_iterator(built().sources["train"], BATCH, 0) as batches:
            for _ in range(3):
                state, _ = made.step(state, made.put_batches([next(batches)]))
        assert len(traces) == 1
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first.params))


def test_a_run_goes_on_with_other_devices(tmp_path, capsys):
    def run(workdir, num_steps, **devices):
        config = tiny()
        config.devices.update(devices)
        config.train.num_steps = num_steps
        config.train.steps_at_once = 5 if devices else 1
        return jax.device_get(train_only(config, workdir, progress=False)[1].params)

    expected = run(tmp_path / "a", 20, num=1)
    run(tmp_path / "b", 10, num=4, parallel="pmap")
    assert "4 of 8 devices, 2 examples of a batch on each" in capsys.readouterr().out
    assert_close(run(tmp_path / "b", 20), expected)
    lines = [
        [
            (x["step"], round(x["loss"], 4))
            for x in train.read_metrics(tmp_path / r / "metrics.jsonl")
        ]
        for r in "ab"
    ]
    assert len(lines[0]) == 6 and lines[0] == lines[1]


@pytest.mark.parametrize("batch, expected", [(4, 4), (6, 6), (7, 7), (9, 3), (11, 1), (200, 8)])
def test_by_default_the_most_devices_that_divide_the_batch(batch, expected):
    config = tiny()
    config.train.batch_size = batch
    assert training_devices(config).count == expected


def test_bad_numbers_are_refused():
    config = tiny()
    config.train.batch_size, config.devices.num = 6, 4
    message = r"train.batch_size=6 .* devices.num=4: .* one of \[1, 2, 3, 6\]"
    with pytest.raises(ValueError, match=message):
        training_devices(config)
    for num in (9, -1):
        config.devices.num = num
        with pytest.raises(ValueError, match=f"devices.num={num} is not accepted: .* up to 8"):
            training_devices(config)
    with pytest.raises(ValueError, match="from 1 to 8"):
        first_devices(9)
    with pytest.raises(ValueError, match="parallel='pjit' is not accepted"):
        parallel_step(partial(step_of, built()), first_devices(1), parallel="pjit")
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        parallel_step(partial(step_of, built()), first_devices(1), num_steps=0)


def test_jitter_of_the_whole_batch_takes_one_device():
    config = tiny()
    config.scheme.jitter.kind = "repo"
    assert training_devices(config).count == 1
    config.devices.num = 2
    with pytest.raises(ValueError, match=r"scheme.jitter.kind='repo' .* devices.num=1"):
        training_devices(config)
