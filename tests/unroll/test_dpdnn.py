"""DPDNN against its published updates: parameters, both forms, training, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import TOLERANCE, check_gradient, close, equal, near, normal

from jitter_jax.data.batch import Batch
from jitter_jax.operators import dense, identity
from jitter_jax.schemes import mse, sgd_jitter
from jitter_jax.unroll import dpdnn, gradient_descent, half_quadratic_gradient, jitter

SHAPE = (6, 5, 1)
NUMBERS = ("delta", "eta")
DELTA, ETA = np.array([0.3, 0.2, 0.5]), np.array([0.4, 0.1, 0.9])
every_form = pytest.mark.parametrize("update", ["denoising", "gradient"])


def denoiser(x):
    """A small denoiser that is not linear; each pixel's result depends on all."""
    return jnp.tanh(x) + 0.1 * jnp.mean(x)


def reconstruct(operator, y, **options):
    options = {"delta": DELTA, "eta": ETA, "num_iterations": 3, **options}
    return half_quadratic_gradient(denoiser, operator, y, **options)


def loop(update, operator, y, x, noises):
    """The published updates, term by term."""
    for delta, eta, w in zip(DELTA, ETA, noises, strict=True):
        v = denoiser(x)
        gradient = operator.adjoint(operator.forward(x) - y) + w
        if update == "gradient":
            x = x - delta * (gradient + eta * (x - v))
        else:
            # Of denoising, where the gradient is x - y + w.
            x = (1 - delta - eta) * v + eta * x + delta * (x - gradient)
        yield x


@every_form
@pytest.mark.parametrize("noisy", [False, True])
def test_is_a_loop_over_the_published_updates(update, noisy):
    with jax.enable_x64(True):
        operator = dense(normal(0, 4, SHAPE[0], dtype="float64") / 3)
        y = normal(1, 4, *SHAPE[1:], dtype="float64")
        noises = normal(2, 3, *SHAPE, dtype="float64") * noisy
        draw = lambda key, iterate, k, num_iterations: noises[k]
        options = {"key": jax.random.key(0), "jitter": draw} if noisy else {}
        run = lambda y: reconstruct(operator, y, update=update, return_trajectory=True, **options)
        start = operator.adjoint(y)
        expected = [start, *loop(update, operator, y, start, noises)]
        near(jax.jit(run)(y), jnp.stack(expected), TOLERANCE["float64"])


def test_denoising_is_the_gradient_form_of_another_weight():
    y = normal(0, *SHAPE)
    published = reconstruct(identity(), y, update="denoising")
    other = reconstruct(identity(), y, update="gradient", eta=(1 - DELTA - ETA) / DELTA)
    close(published, other)
    # And either is gradient descent with a step of its own in every iteration.
    same = gradient_descent(
        lambda x, eta: eta * (x - denoiser(x)),
        identity(),
        y,
        step_size=jnp.asarray(DELTA, "float32"),
        num_iterations=3,
        phases=jnp.asarray((1 - DELTA - ETA) / DELTA, "float32"),
    )
    close(published, same)
    assert float(jnp.abs(published - reconstruct(identity(), y, update="gradient")).max()) > 0.01


@every_form
def test_one_number_is_that_of_every_iteration(update):
    y = normal(0, *SHAPE)
    run = lambda delta, eta: reconstruct(identity(), y, update=update, delta=delta, eta=eta)
    close(run(0.2, 0.7), run(np.full(3, 0.2), np.full(3, 0.7)))
    close(run(0.2, ETA), run(np.full(3, 0.2), ETA))


def test_jitter_sees_the_iterate_after_the_data_step():
    y = normal(0, *SHAPE)
    draw = lambda key, iterate, k, num_iterations: iterate * (k == 0) * num_iterations
    options = {"start": 2 * y, "return_trajectory": True}
    clean = reconstruct(identity(), y, **options)
    noisy = reconstruct(identity(), y, key=jax.random.key(0), jitter=draw, **options)
    shown = 2 * y - DELTA[0] * (2 * y - y)
    near(clean[1] - noisy[1], DELTA[0] * 3 * shown, 10 * TOLERANCE["float32"])  # cancellation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_iterations": 4}, r"delta must be a scalar or have shape \(4,\).* got shape \(3,\)"),
        ({"eta": ETA[:2]}, r"eta must be a scalar or have shape \(3,\).*, got shape \(2,\)"),
        ({"delta": DELTA[:, None]}, r"delta must be a scalar .* got shape \(3, 1\)"),
        ({"delta": 0.1, "eta": np.ones((1, 3))}, r"eta must be a scalar .* got shape \(1, 3\)"),
        ({"delta": DELTA[:1]}, r"delta must be a scalar or .* got shape \(1,\)"),
        ({"update": "deblurring"}, r"one of \('gradient', 'denoising'\), got 'deblurring'"),
        ({"key": jax.random.key(0)}, "key came without jitter"),
        ({"num_iterations": 0}, "num_iterations must be at least 1, got 0"),
        ({"delta": 0.1, "eta": 0.9, "num_iterations": 0}, "num_iterations .* at least 1, got 0"),
        ({"num_iterations": -1}, "num_iterations must be at least 1, got -1"),
        ({"delta": 0.1, "eta": 0.9, "num_iterations": -1}, "num_iterations .* got -1"),
    ],
)
def test_method_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(identity(), normal(0, *SHAPE), **options)


@functools.cache
def small(update="denoising"):
    """A small DPDNN, and parameters under which its U-Net has a say."""
    reconstructor = dpdnn(num_iterations=3, width=4, num_scales=1, update=update)
    shapes = jax.eval_shape(reconstructor.init, jax.random.key(0), identity(), jnp.zeros(SHAPE))
    network = jax.tree.map(lambda leaf: normal(leaf.size, *leaf.shape) / 5, shapes["network"])
    return reconstructor, {
        "network": network,
        "delta": jnp.asarray(DELTA, "float32"),
        "eta": jnp.asarray(ETA, "float32"),
    }


def untrained(params):
    return {**params, "delta": jnp.full(3, 0.1), "eta": jnp.full(3, 0.9)}


def test_published_parameters():
    params = jax.eval_shape(dpdnn().init, jax.random.key(0), identity(), jnp.zeros((40, 40, 1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_363_405
    assert params["delta"].shape == params["eta"].shape == (6,)


@every_form
def test_is_the_method_around_one_network(update):
    reconstructor, params = small(update)
    y = normal(0, *SHAPE)
    denoise = functools.partial(reconstructor.learned_step, params)
    expected = half_quadratic_gradient(
        denoise, identity(), y, delta=DELTA, eta=ETA, update=update, num_iterations=3
    )
    close(jax.jit(reconstructor.apply)(params, identity(), y), expected)
    assert float(jnp.abs(denoise(y) - y).max()) > 1e-3


def test_untrained_it_returns_the_measurement_and_learns_its_numbers_first():
    reconstructor, params = small()
    params, x, y = untrained(params), normal(0, *SHAPE), normal(1, *SHAPE)

    @jax.jit
    def run(params):
        def loss(params):
            estimate = reconstructor.apply(params, identity(), y)
            return jnp.mean((estimate - x) ** 2), estimate

        fresh = reconstructor.init(jax.random.key(0), identity(), y)
        return {name: fresh[name] for name in NUMBERS}, *jax.grad(loss, has_aux=True)(params)

    numbers, slopes, estimate = run(params)
    equal(numbers, {name: params[name] for name in NUMBERS})
    equal(estimate, y)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes["network"]))
    assert all(np.all(slopes[name] != 0) for name in NUMBERS)


def test_vmap_is_a_loop_and_options_reach_the_method():
    reconstructor, params = small()
    operator, ys = dense(normal(0, 4, SHAPE[0]) / 3), normal(1, 2, 4, *SHAPE[1:])
    start, projection = normal(2, *SHAPE), normal(3, *SHAPE)

    @functools.partial(jax.jit, static_argnums=1)
    def run(y, jittered=False):
        options = {"key": jax.random.key(0), "jitter": jitter.absolute(0.2)} if jittered else {}
        return reconstructor.apply(
            params,
            operator,
            y,
            start=start,
            back_projection=projection + operator.adjoint(y),
            return_trajectory=True,
            **options,
        )

    looped = jnp.stack([run(y) for y in ys])
    close(jax.vmap(run)(ys), looped, loosen=10)  # the network's sums are of other lengths
    equal(looped[0, 0], start)
    gradient = operator.adjoint(operator.forward(start) - ys[0]) - projection
    residual = start - reconstructor.learned_step(params, start)
    expected = start - DELTA[0] * gradient - (1 - DELTA[0] - ETA[0]) * residual
    close(looped[0, 1], expected, loosen=10)
    # Of the noise in the gradient, delta is left.
    moved = np.std(run(ys[0], True)[1] - looped[0, 1]) / DELTA[0]
    np.testing.assert_allclose(moved, 0.2, rtol=0.4)  # of 30 draws: three standard errors


@every_form
def test_gradient_against_finite_differences(update):
    with jax.enable_x64(True):
        y, numbers = normal(1, *SHAPE, dtype="float64"), (jnp.asarray(DELTA), jnp.asarray(ETA))

        def value(y, scale, numbers):
            x = half_quadratic_gradient(
                lambda x: denoiser(scale * x),
                identity(),
                y,
                delta=numbers[0],
                eta=numbers[1],
                update=update,
                num_iterations=3,
                key=jax.random.key(0),
                jitter=jitter.absolute(0.1),
            )
            return jnp.sum(jnp.sin(x))

        check_gradient(value, y, jnp.float64(0.8), numbers)


def test_training_with_and_without_jitter_removes_noise():
    """It begins as the identity: delta and eta move first, and then the network."""
    reconstructor, params = small()
    ramp = np.linspace(0, 1, 8, dtype="float32")
    x = jnp.stack([s * ramp[:, None, None] + (1 - s) * ramp[:, None] for s in (0.1, 0.4, 0.8)])
    y = x + 0.2 * normal(0, *x.shape)
    batch = Batch(x, y, identity(), jnp.ones(3), jnp.arange(3))
    optimizer = optax.adam(0.01)

    @jax.jit
    def train(level):
        noise = lambda key, iterate, k, total: level * jax.random.normal(key, iterate.shape)
        loss = sgd_jitter(reconstructor, noise)

        def step(state, key):
            params, inner = state
            (value, _), slopes = jax.value_and_grad(loss, has_aux=True)(params, batch, key)
            updates, inner = optimizer.update(slopes, inner, params)
            return (optax.apply_updates(params, updates), inner), value

        begin = untrained(params)
        keys = jax.random.split(jax.random.key(0), 60)
        return jax.lax.scan(step, (begin, optimizer.init(begin)), keys)

    error = np.mean((x - y) ** 2)
    for level in (0.0, 0.05):
        (trained, _), losses = train(level)
        np.testing.assert_allclose(losses[0], error, rtol=0.02 if level else 1e-5)
        assert losses[-5:].mean() < 0.5 * error
        # And without the jitter that it was trained with.
        assert float(mse(reconstructor)(trained, batch, jax.random.key(1))[0]) < 0.5 * error


@pytest.mark.parametrize("remat", [True, False])
def test_what_the_backward_pass_holds(remat):
    """Rematerialised, an iterate for each iteration; otherwise the activations too."""
    y = jnp.zeros((16, 16, 1))

    def entries(num_iterations):
        reconstructor = dpdnn(num_iterations=num_iterations, width=8, num_scales=1, remat=remat)
        params = jax.eval_shape(reconstructor.init, jax.random.key(0), identity(), y)
        forward = lambda params, y: reconstructor.apply(params, identity(), y)
        held = jax.eval_shape(lambda *args: jax.vjp(forward, *args)[1], params, y)
        return sum(leaf.size for leaf in jax.tree.leaves(held))

    more = (entries(6) - entries(2)) / 4
    # An iterate, k, delta and eta; or seven activations of 8 channels at the least.
    assert y.size <= more < 1.1 * y.size if remat else more > 7 * 8 * y.size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_iterations": 0}, "num_iterations must be at least 1, got 0"),
        ({"num_iterations": -1}, "num_iterations must be at least 1, got -1"),
        ({"num_scales": 0}, "num_scales must be at least 1, got 0"),
        ({"update": "deblurring"}, r"one of \('gradient', 'denoising'\), got 'deblurring'"),
    ],
)
def test_refuses_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        dpdnn(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_iterations": 4}, r"delta must .* shape \(4,\), .* num_iterations, got shape \(3,\)"),
        ({"num_iterations": -1}, "num_iterations must be at least 1, got -1"),
        ({"probe": lambda value, x: value}, "probe needs .* smoothed"),
        ({"jitter": jitter.absolute(0.1)}, "jitter came without key"),
    ],
)
def test_refuses_when_applied(options, message):
    reconstructor, params = small()
    with pytest.raises(ValueError, match=message):
        reconstructor.apply(params, identity(), normal(0, *SHAPE), **options)
