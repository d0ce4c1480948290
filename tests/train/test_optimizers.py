import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jitter_jax.train import make_optimizer, make_schedule

RTOL = 1e-5


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "exponential"])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_every_optimizer_descends(name, schedule, clip_norm):
    optimizer = make_optimizer(
        name,
        learning_rate=0.1,
        schedule=schedule,
        num_steps=200,
        warmup_steps=5,
        final_scale=0.1,
        clip_norm=clip_norm,
    )

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(2 * (params - 1), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jnp.array([3.0, -2.0])
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=200)
    np.testing.assert_allclose(params, 1.0, atol=0.02)


def first_update(gradient, params, **options):
    optimizer = make_optimizer(**options)
    return optimizer.update(gradient, optimizer.init(params), params)[0]


def test_first_updates_follow_their_formulas():
    params, gradient = jnp.array([2.0, -1.0]), jnp.array([3.0, 4.0])
    rate = 0.1
    table = {
        "sgd": -rate * gradient,
        "adam": -rate * jnp.sign(gradient),
        "adamw": -rate * (jnp.sign(gradient) + 0.5 * params),
    }
    for name, expected in table.items():
        options = {"weight_decay": 0.5} if name == "adamw" else {}
        update = first_update(gradient, params, name=name, learning_rate=rate, **options)
        # Adam's 1 - b2 keeps four digits in float32.
        np.testing.assert_allclose(update, expected, rtol=1e-4)
    update = first_update(gradient, params, name="sgd", learning_rate=rate, weight_decay=0.5)
    np.testing.assert_allclose(update, -rate * (gradient + 0.5 * params), rtol=RTOL)
    update = first_update(gradient, params, name="sgd", learning_rate=rate, clip_norm=1.0)
    np.testing.assert_allclose(update, -rate * gradient / 5, rtol=RTOL)
    for clip_norm in (None, 0, 0.0):
        options = dict(name="sgd", learning_rate=rate, clip_norm=clip_norm)
        update = first_update(1e6 * gradient, params, **options)
        np.testing.assert_allclose(update, -rate * 1e6 * gradient, rtol=RTOL)


def test_momentum_and_betas_are_passed_on():
    for options, reference in (
        (dict(name="sgd", momentum=0.5), optax.sgd(0.1, momentum=0.5)),
        (dict(b1=0.5, b2=0.9, eps=1e-3), optax.adam(0.1, b1=0.5, b2=0.9, eps=1e-3)),
    ):
        optimizer = make_optimizer(learning_rate=0.1, **options)
        params = jnp.ones(2)
        ours, theirs = optimizer.init(params), reference.init(params)
        for gradient in (jnp.array([1.0, 2.0]), jnp.array([-1.0, 3.0])):
            found, ours = optimizer.update(gradient, ours, params)
            expected, theirs = reference.update(gradient, theirs, params)
            np.testing.assert_allclose(found, expected, rtol=RTOL)


@pytest.mark.parametrize(
    "name, middle",
    [("cosine", 0.55), ("linear", 0.55), ("exponential", 0.1**0.5), ("constant", 1.0)],
)
def test_schedule_warms_up_holds_and_decays(name, middle):
    options = dict(schedule=name, num_steps=100, final_scale=0.1)
    rate = make_schedule(2.0, warmup_steps=10, hold_steps=30, **options)
    last = 1.0 if name == "constant" else 0.1
    for step, expected in ((0, 0), (5, 0.5), (10, 1), (39, 1), (70, middle), (100, last)):
        np.testing.assert_allclose(rate(step), 2 * expected, rtol=RTOL, err_msg=f"step {step}")
    np.testing.assert_allclose(rate(150), 2 * last, rtol=RTOL)
    np.testing.assert_allclose(make_schedule(2.0, **options)(0), 2.0, rtol=RTOL)
    np.testing.assert_allclose(make_schedule(2.0, hold_steps=9, **options)(9), 2.0, rtol=RTOL)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(name="lion"), "'lion' is not known; choose from adam, adamw, sgd"),
        (dict(schedule="step"), "choose from constant, cosine, linear, exponential"),
        (dict(learning_rate=0.0), "learning_rate must be positive"),
        (dict(schedule="cosine"), "needs num_steps above .* = 0, got None"),
        (dict(schedule="linear", num_steps=5, warmup_steps=5), "= 5, got 5"),
        (dict(schedule="exponential", num_steps=5), "positive final_scale"),
        (dict(final_scale=2.0), r"final_scale must be in \[0, 1\]"),
        (dict(warmup_steps=-1), "warmup_steps must not be negative"),
        (dict(hold_steps=-1), "hold_steps must not be negative"),
        (dict(clip_norm=-1.0), "clip_norm must be positive, or 0 or None for none, got -1"),
        (dict(weight_decay=-1.0), "weight_decay must not be negative"),
        (dict(weight_decay=0.1), "use 'adamw'"),
        (dict(momentum=0.9), "momentum belongs to 'sgd'"),
        (dict(b1=1.0), r"b1 must be in \[0, 1\)"),
    ],
)
def test_errors_say_what_is_accepted(options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(**{"learning_rate": 0.1, **options})


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_stored_statistics_do_not_decay(name):
    params = {"params": {"kernel": jnp.ones(2)}, "batch_stats": {"mean": jnp.ones(2)}}
    gradient = jax.tree.map(jnp.zeros_like, params)
    update = first_update(gradient, params, name=name, learning_rate=0.1, weight_decay=0.5)
    assert (update["params"]["kernel"] < 0).all()
    assert (update["batch_stats"]["mean"] == 0).all()
