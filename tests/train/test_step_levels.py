"""Several losses a batch, each with an optimizer step of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import close, counted, normal

from jitter_jax.data.batch import Batch
from jitter_jax.operators import identity
from jitter_jax.schemes import smt_grad_levels
from jitter_jax.smoothing import Smoothing
from jitter_jax.train import init_state, make_step
from jitter_jax.unroll import Reconstructor

LEVELS = 3
KEY = jax.random.key(5)


def key():
    return jax.random.clone(KEY)


def loss(params, batch, key, level):
    """A quadratic around another point in every level; the point has noise of the level."""
    noise = jax.random.normal(jax.random.fold_in(key, level), params["weights"].shape)
    target = batch * (level + 1) + noise
    value = 0.5 * jnp.sum((params["weights"] - target) ** 2)
    return value, {"first": params["weights"][0], "noise": noise[0]}


def start(optimizer, **options):
    return init_state({"weights": jnp.arange(3.0)}, optimizer, key(), **options)


@functools.cache
def by_hand(num_batches):
    """Adam without `make_step`: what was seen at every level, and the last state."""
    optimizer = optax.adam(0.1)
    params = {"weights": jnp.arange(3.0)}
    inner, seen = optimizer.init(params), []
    of_level = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for number in range(num_batches):
        for level in range(LEVELS):
            step_key = jax.random.fold_in(key(), number)
            batch = jnp.full(3, 1.0 + number)
            (value, aux), slopes = of_level(params, batch, step_key, jnp.int32(level))
            updates, inner = optimizer.update(slopes, inner, params)
            params = optax.apply_updates(params, updates)
            seen.append((params, {**aux, "loss": value, "grad_norm": optax.tree.norm(slopes)}))
    return seen, inner


def test_takes_an_optimizer_step_for_every_level_and_counts_them_as_one():
    optimizer, decay = optax.adam(0.1), 0.7
    seen, inner = by_hand(2)
    step = jax.jit(make_step(loss, optimizer, num_levels=LEVELS, average_decay=decay))
    state = start(optimizer, average_decay=decay)
    for number in range(2):
        state, metrics = step(state, jnp.full(3, 1.0 + number))
        assert int(state.step) == number + 1
        assert metrics.keys() == {"loss", "grad_norm", "first", "noise", "finite"}
        own = [entry for _, entry in seen[number * LEVELS : (number + 1) * LEVELS]]
        for name in own[0]:  # means over the levels
            expected = np.mean([entry[name] for entry in own])
            np.testing.assert_allclose(metrics[name], expected, rtol=1e-5)
        assert metrics["finite"].shape == () and metrics["finite"].dtype == bool
        assert len({float(entry["noise"]) for entry in own}) == LEVELS
    close(state.params, seen[-1][0])
    close(state.opt_state, inner)
    assert int(state.opt_state[0].count) == 2 * LEVELS
    # The average is over the parameters after every optimizer step.
    weights = decay ** np.arange(2 * LEVELS - 1, -1, -1.0)
    visited = np.stack([params["weights"] for params, _ in seen])
    np.testing.assert_allclose(
        state.average["weights"], weights @ visited / weights.sum(), rtol=1e-5
    )
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(KEY))


def test_one_level_is_a_step_without_levels():
    optimizer = optax.adam(0.1)
    alone = make_step(lambda p, b, k: loss(p, b, k, jnp.int32(0)), optimizer)
    expected, reported = jax.jit(alone)(start(optimizer), jnp.ones(3))
    found, metrics = jax.jit(make_step(loss, optimizer, num_levels=1))(
        start(optimizer), jnp.ones(3)
    )
    close(metrics, reported)
    close(found._replace(key=None), expected._replace(key=None))


def test_one_level_that_is_not_finite_is_left_out():
    def broken(params, batch, key, level):
        value = 0.5 * jnp.sum((params["weights"] - batch) ** 2)
        return jnp.where(level == 1, jnp.nan, 1.0) * value, {}

    optimizer = optax.adam(0.1)
    step = jax.jit(make_step(broken, optimizer, num_levels=LEVELS))
    state, metrics = step(start(optimizer), jnp.full(3, 9.0))
    assert not metrics["finite"] and np.isnan(metrics["loss"]) and int(state.step) == 1
    assert int(state.opt_state[0].count) == LEVELS - 1
    # The two others moved Adam by 0.1 each.
    np.testing.assert_allclose(state.params["weights"], np.arange(3.0) + 0.2, rtol=1e-3)


def test_reduces_at_every_level_and_compiles_once():
    optimizer = optax.sgd(0.1)
    halved = lambda tree: jax.tree.map(lambda leaf: leaf / 2, tree)
    traced, calls = counted(loss)
    step = jax.jit(make_step(traced, optimizer, num_levels=LEVELS, reduce=halved))
    state, batch = start(optimizer), jnp.ones(3)
    expected, grad_norms = np.arange(3.0), []
    for level in range(LEVELS):
        step_key = jax.random.fold_in(jax.random.fold_in(key(), 0), level)
        slope = (expected - (level + 1) - np.asarray(jax.random.normal(step_key, (3,)))) / 2
        grad_norms.append(np.linalg.norm(slope))
        expected = expected - 0.1 * slope
    state, metrics = step(state, batch)
    np.testing.assert_allclose(state.params["weights"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.mean(grad_norms), rtol=1e-5)
    traces = len(calls)
    step(state, batch)
    assert len(calls) == traces


def test_levels_of_smoothed_gradients_draw_their_own_noise():
    """The step of `smt_grad_levels`, whose key is one and whose draws are not."""
    reconstructor = Reconstructor(
        lambda key, operator, y: (), lambda params, operator, y, **_: y * params["weights"]
    )
    of_level = smt_grad_levels(reconstructor, Smoothing(1.0, 1), num_levels=LEVELS)
    zero = jnp.zeros((2, 3))
    batch = Batch(zero, normal(0, 2, 3), identity(), jnp.ones(2), jnp.arange(2))
    optimizer = optax.sgd(0.1)
    state = init_state({"weights": jnp.ones(3)}, optimizer, key())
    new, metrics = jax.jit(make_step(of_level, optimizer, num_levels=LEVELS))(state, batch)

    params, values, shapes = state.params, [], []
    run = jax.jit(jax.value_and_grad(of_level, has_aux=True))
    for level in range(LEVELS):
        step_key = jax.random.fold_in(key(), 0)
        (value, _), slopes = run(params, batch, step_key, jnp.int32(level))
        noise = np.sqrt(np.asarray(slopes["weights"]) * 3 / 2 / np.asarray(params["weights"]))
        values.append(value)
        shapes.append(noise)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slopes)
    close(new.params, params)
    np.testing.assert_allclose(metrics["loss"], np.mean(values), rtol=1e-5)
    for one, other in ((0, 1), (1, 2)):  # not a multiple of the same draw
        ratio = shapes[one] / shapes[other]
        assert np.ptp(ratio) > 0.05


@pytest.mark.parametrize("num_levels", [0, -1])
def test_refuses_at_once(num_levels):
    with pytest.raises(ValueError, match=f"num_levels must be .*at least 1, got {num_levels}"):
        make_step(loss, optax.sgd(0.1), num_levels=num_levels)


@pytest.mark.parametrize(
    ("aux", "message"),
    [({"loss": 1.0}, "'loss' in its aux"), ({"x": jnp.ones(2)}, r"aux\['x'\] must be a scalar")],
)
def test_what_a_level_reports_is_checked(aux, message):
    bad = lambda params, batch, key, level: (jnp.sum(params["weights"]), aux)
    with pytest.raises(ValueError, match=message):
        make_step(bad, optax.sgd(0.1), num_levels=2)(start(optax.sgd(0.1)), 0)
