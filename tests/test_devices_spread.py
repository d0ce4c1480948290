"""Signals of an evaluation and draws of a certificate, spread over devices: the same numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import tiny_config

from jitter_jax import certify, data, experiment, operators, train
from jitter_jax.commands.evaluate import evaluate, run_conditions
from jitter_jax.commands.runs import comparable_configs, init_params
from jitter_jax.devices import choose_devices, fetch, first_devices, spread_vmap
from jitter_jax.smoothing import Smoothing, smooth

Y = jnp.linspace(-1, 1, 6)
OPERATOR = operators.dense(jax.random.normal(jax.random.key(9), (6, 6)))


def f(y):
    return jnp.tanh(y) + 0.1 * jnp.cumsum(y)


@pytest.mark.parametrize("num_samples", [1, 16, 50, 64])
def test_draws(num_samples):
    def drawn(devices):
        return jax.jit(
            lambda y, key: certify.statistics(
                f,
                OPERATOR,
                y,
                sigma=0.1,
                num_samples=num_samples,
                key=key,
                chunk=16,
                devices=devices,
            )
        )(Y, jax.random.key(1))

    expected = drawn(None)
    assert expected.shape == (num_samples, 6)
    for num in (1, 8):
        np.testing.assert_allclose(drawn(first_devices(num)), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["discrepancy", "error", "pixels", "centre"])
def test_certificates(kind):
    budget = certify.Budget(0.05, 0.1, num_samples=200, confidence=0.9, pixel_range=None)
    options = {"budget": budget, "key": jax.random.key(2), "chunk": 24}
    make = {
        "discrepancy": certify.certified_discrepancy,
        "error": lambda *given, **more: certify.certified_error(*given, f(Y) + 0.1, **more),
        "pixels": certify.certified_pixels,
        "centre": lambda *given, **more: certify.certified_centre(
            *given, num_predict=1000, num_candidates=5, **more
        ),
    }[kind]

    def certified(devices):
        return jax.jit(lambda y: make(f, OPERATOR, y, devices=devices, **options))(Y)

    for one, other in zip(certified(first_devices(8)), certified(None), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_chunks_that_devices_do_not_divide_are_refused():
    budget = certify.Budget(0.05, 0.1, num_samples=200, pixel_range=None)
    with pytest.raises(ValueError, match=r"chunk must be a multiple .* 8; got 12"):
        certify.certified_discrepancy(
            f, OPERATOR, Y, budget=budget, key=jax.random.key(2), chunk=12, devices=first_devices(8)
        )
    with pytest.raises(ValueError, match=r"chunk=12 is not accepted with devices\.num=8"):
        choose_devices(8, 12, name="chunk")


def test_spread_functions_have_derivatives():
    def total(scale, devices):
        return spread_vmap(lambda x: jnp.sin(scale * x), devices)(jnp.arange(8.0)).sum()

    for order in (jax.grad, lambda g: jax.grad(jax.grad(g))):
        found, expected = (
            jax.jit(order(lambda scale, d=devices: total(scale, d)))(0.3)
            for devices in (first_devices(4), None)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("chunk", [None, 8])
def test_smoothing_and_its_gradient(chunk):
    def energy(x, devices):
        smoothed = smooth(f, Smoothing(0.1, 24, chunk), devices=devices)
        return jnp.sum(smoothed(x, jax.random.key(3)) ** 2)

    found, expected = (
        jax.jit(jax.value_and_grad(lambda x, d=devices: energy(x, d)))(Y)
        for devices in (first_devices(8), None)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), found, expected)
    with pytest.raises(ValueError, match=r"num_samples must be a multiple of .* 5; got 24"):
        energy(Y, first_devices(5))


def test_evaluation():
    """Images of several coils, each with a mask of its own, attacked through smoothing."""

    def table(num):
        config = tiny_config("step")
        config.data.num_test = 3
        config.data.sampling.draw = "example"
        config.evaluate.num_draws = 2
        config.devices.num = num
        built = experiment.build(config)
        assert built.devices.count == num
        params = init_params(built.config, built.reconstructor)
        worst = [row for row in run_conditions(built) if row.attack == "worst"]
        return evaluate(built, params, worst, progress=False)

    (report, results), (expected, alone) = table(2), table(1)
    assert report["definitions"] == expected["definitions"]
    for name, result in results.items():
        for found, wanted in zip(
            jax.tree.leaves(result), jax.tree.leaves(alone[name]), strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_all_signals_get_a_device_by_default():
    config = tiny_config()
    assert experiment.build(config).devices.count == 4  # of at most 4 signals
    config.devices.num = 9
    with pytest.raises(ValueError, match=r"devices\.num=9"):
        experiment.build(config)


def test_parts_of_batches_are_the_batch():
    source = [{"signal": np.float32(i)} for i in range(10)]
    whole, *parts = (
        data.training_iterator(source, 4, 3, shard=shard) for shard in ((0, 1), (0, 2), (1, 2))
    )
    for _ in range(6):
        expected = next(whole)
        found = [next(part) for part in parts]
        for name in ("index", "signal"):
            joined = np.concatenate([part[name] for part in found])
            np.testing.assert_array_equal(joined, expected[name])
    assert parts[0].get_state() == parts[1].get_state() == whole.get_state()
    parts[1].set_state({**whole.get_state(), "next_index": 0})
    assert next(parts[1])["index"].shape == (2,)
    for iterator in (whole, *parts):
        iterator.close()
    with pytest.raises(ValueError, match="cannot be cut into 3"):
        data.training_iterator(source, 4, 3, shard=(0, 3))
    with pytest.raises(ValueError, match=r"shard=\(2, 2\) is not accepted"):
        data.training_iterator(source, 4, 3, shard=(2, 2))


def test_fetch_takes_what_is_spread():
    devices = first_devices(4)
    tree = {"a": np.arange(8), "b": np.ones((4, 2))}
    for laid_out in (devices.split(tree), devices.whole(tree)):
        jax.tree.map(np.testing.assert_array_equal, fetch(laid_out), tree)
    assert devices.at_once(5) == 8 and devices.at_once(4) == 4


def test_a_run_of_many_devices_is_judged_on_what_there_is(tmp_path):
    config = tiny_config()
    config.devices.num = 64
    train.save_config(tmp_path, config)
    assert comparable_configs([tmp_path], {})[tmp_path.name].devices.num == 0
    assert comparable_configs([tmp_path], {"devices.num": 2})[tmp_path.name].devices.num == 2
