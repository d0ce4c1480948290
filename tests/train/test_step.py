import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jitter_jax.train import eval_params, init_state, make_step

LEARNING_RATE = 0.1


def loss(params, batch, key):
    """A quadratic whose gradient is (weights - batch + noise of the step)."""
    noise = jax.random.normal(key, params["weights"].shape)
    value = 0.5 * jnp.sum((params["weights"] - batch) ** 2) + params["weights"] @ noise
    return value, {"first": params["weights"][0]}


def start(**options):
    optimizer = optax.sgd(LEARNING_RATE)
    params = {"weights": jnp.arange(3.0)}
    return init_state(params, optimizer, jax.random.key(5), **options), optimizer


def test_step_is_the_gradient_step_of_its_own_key():
    state, optimizer = start()
    batch = jnp.ones(3)
    new, metrics = make_step(loss, optimizer)(state._replace(step=jnp.int32(4)), batch)
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(5), 4), (3,))
    gradient = jnp.arange(3.0) - batch + noise
    np.testing.assert_allclose(
        new.params["weights"], jnp.arange(3.0) - LEARNING_RATE * gradient, rtol=1e-6
    )
    np.testing.assert_allclose(metrics["grad_norm"], jnp.linalg.norm(gradient), rtol=1e-6)
    assert metrics.keys() == {"loss", "grad_norm", "first", "finite"}
    assert int(new.step) == 5 and bool(metrics["finite"]) and new.average is None
    np.testing.assert_array_equal(jax.random.key_data(new.key), jax.random.key_data(state.key))


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.9999])
def test_average_is_the_normalised_exponential_mean(decay):
    state, optimizer = start(average_decay=decay)
    step = jax.jit(make_step(loss, optimizer, average_decay=decay))
    visited = []
    for number in range(1, 8):
        state, _ = step(state, jnp.full(3, number))
        visited.append(np.asarray(state.params["weights"], np.float64))
        weights = decay ** np.arange(number - 1, -1, -1.0)
        expected = (weights[:, None] * visited).sum(0) / weights.sum()
        np.testing.assert_allclose(state.average["weights"], expected, rtol=1e-5)
    assert eval_params(state) is state.average
    assert eval_params(start()[0])["weights"].shape == (3,)


def poisoned_value(params, batch, key):
    return jnp.sum(params["weights"]) * batch, {}


def poisoned_gradient(params, batch, key):
    # Finite at zero, with an infinite slope.
    return jnp.sum(jnp.sqrt(params["weights"] - params["weights"])) + batch, {}


def overflowing_update(params, batch, key):
    return 1e18 * jnp.sum(params["weights"]), {}


@pytest.mark.parametrize(
    "bad, batch, rate",
    [
        (poisoned_value, np.nan, 0.1),
        (poisoned_value, np.inf, 0.1),
        (poisoned_gradient, 0.0, 0.1),
        (overflowing_update, 0.0, 1e38),
    ],
)
def test_step_that_is_not_finite_changes_only_the_counter(bad, batch, rate):
    optimizer = optax.sgd(rate, momentum=0.9)
    params = {"weights": jnp.arange(3.0)}
    state = init_state(params, optimizer, jax.random.key(0), average_decay=0.9)
    new, metrics = jax.jit(make_step(bad, optimizer, average_decay=0.9))(state, batch)
    assert not metrics["finite"] and int(new.step) == 1
    for field in ("params", "opt_state", "average"):
        jax.tree.map(np.testing.assert_array_equal, getattr(new, field), getattr(state, field))


def test_optimizer_state_with_a_key_survives_the_choice():
    optimizer = optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(1)), optax.sgd(0.1))
    state = init_state({"weights": jnp.ones(3)}, optimizer, jax.random.key(0))
    new, metrics = jax.jit(make_step(loss, optimizer))(state, jnp.ones(3))
    assert metrics["finite"]
    assert jax.tree.structure(new) == jax.tree.structure(state)


def test_compiled_once_for_weakly_typed_params():
    traces = []

    def counted(params, batch, key):
        traces.append(None)
        return (params - batch) ** 2, {}

    optimizer = optax.adam(0.1)
    state = init_state(0.5, optimizer, jax.random.key(0), average_decay=0.9)
    step = jax.jit(make_step(counted, optimizer, average_decay=0.9))
    for _ in range(3):
        state, _ = step(state, np.float32(1.0))
    assert len(traces) == 1


def test_donated_state_leaves_the_caller_its_arrays():
    optimizer, key, params = optax.adam(0.1), jax.random.key(0), {"weights": jnp.ones(3)}
    state = init_state(params, optimizer, key, average_decay=0.9)
    step = jax.jit(make_step(loss, optimizer, average_decay=0.9), donate_argnums=0)
    step(state, jnp.ones(3))
    assert not params["weights"].is_deleted() and not jax.random.key_data(key).is_deleted()


def shard_loss(params, batch, key):
    return jnp.mean((batch @ params["weights"] - 1) ** 2), {"largest": jnp.max(batch)}


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
@pytest.mark.parametrize("way", ["jit", "shard_map", "pmap"])
def test_devices_agree_with_one(way):
    devices = 2
    batch = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    state, optimizer = start()
    expected, metrics = jax.jit(make_step(shard_loss, optimizer))(state, batch)
    mesh = jax.make_mesh((devices,), ("devices",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("devices")
    mean = functools.partial(jax.lax.pmean, axis_name="devices")
    step = make_step(shard_loss, optimizer, reduce=None if way == "jit" else mean)
    if way == "jit":
        new, found = jax.jit(step)(state, jax.device_put(batch, NamedSharding(mesh, spec)))
    elif way == "shard_map":
        specs = dict(in_specs=(PartitionSpec(), spec), out_specs=PartitionSpec())
        # With check_vma the gradients arrive summed, and the mean would be too large.
        new, found = jax.jit(jax.shard_map(step, mesh=mesh, check_vma=False, **specs))(state, batch)
    else:
        mapped = jax.pmap(
            step,
            axis_name="devices",
            in_axes=(None, 0),
            out_axes=None,
            devices=jax.devices()[:devices],
        )
        new, found = mapped(state, batch.reshape(devices, 2, 3))
    np.testing.assert_allclose(new.params["weights"], expected.params["weights"], rtol=1e-5)
    np.testing.assert_allclose(found["loss"], metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(found["grad_norm"], metrics["grad_norm"], rtol=1e-6)


def test_errors_say_what_is_accepted():
    state, optimizer = start()
    with pytest.raises(TypeError, match=r"typed key, as jax\.random\.key"):
        init_state(state.params, optimizer, jnp.zeros(2, jnp.uint32))
    for decay in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match=r"average_decay must be None or in \(0, 1\)"):
            init_state(state.params, optimizer, state.key, average_decay=decay)
        with pytest.raises(ValueError, match=r"average_decay must be None or in \(0, 1\)"):
            make_step(loss, optimizer, average_decay=decay)
    with pytest.raises(ValueError, match="same average_decay"):
        make_step(loss, optimizer, average_decay=0.9)(state, jnp.ones(3))
    with pytest.raises(ValueError, match="'loss' in its aux"):
        make_step(lambda p, b, k: (jnp.sum(p["weights"]), {"loss": 1.0}), optimizer)(state, 0)
    with pytest.raises(ValueError, match=r"aux\['x'\] must be a scalar, got shape \(3,\)"):
        make_step(lambda p, b, k: (jnp.sum(p["weights"]), {"x": p["weights"]}), optimizer)(state, 0)
