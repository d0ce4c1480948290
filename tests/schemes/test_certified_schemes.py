"""The schemes of certified defences against loops, closed forms, dense Jacobians, differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, check_gradient, near, normal, precision

from jitter_jax.attacks import Threat, pgd
from jitter_jax.data.batch import Batch
from jitter_jax.keys import subkey
from jitter_jax.operators import cartesian_mri, dense, identity
from jitter_jax.schemes import jacobian, mse, smt_adv, smt_adv_fresh, smt_grad, smt_grad_levels
from jitter_jax.smoothing import Smoothing
from jitter_jax.unroll import Reconstructor, end_to_end

LINEAR = Reconstructor(lambda key, operator, y: (), lambda params, operator, y, **_: params @ y)
N, M, EXAMPLES = 4, 3, 2
INDEX = jnp.array([7, 3])
STEPS, STEP_SIZE, RADIUS = 3, 0.7, 0.5
SMOOTHING = Smoothing(0.3, 3)
# Each space and each kind of numbers once; compiling is what the tests cost.
every_space = pytest.mark.parametrize(
    ("space", "dtype"), [("signal", "complex128"), ("measurement", "float64")]
)


def K(seed):
    return jax.random.key(seed)


def batch_of(x, y, operator, index=INDEX):
    return Batch(x, y, operator, jnp.ones(len(index)), index)


def problem(dtype="float64"):
    """A matrix `A`, a linear reconstruction, and two signals, one far larger than the other."""
    a, weights = normal(0, M, N, dtype=dtype), normal(1, N, M, dtype=dtype)
    sizes = jnp.array([[1.0], [20.0]], weights.real.dtype)
    x = sizes * normal(2, EXAMPLES, N, dtype=dtype)
    y = sizes * normal(3, EXAMPLES, M, dtype=dtype)
    return a, weights, batch_of(x, y, dense(a))


def example_keys(key):
    return [jax.random.fold_in(key, index) for index in INDEX.tolist()]


@functools.partial(jax.jit, static_argnums=(1, 2))
def drawn(key, size, dtype):
    """Noise of three samples of a key, with standard deviation 1 in each part."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(3))
    draws = jax.vmap(lambda key: jax.random.normal(key, (size,), dtype))(keys)
    return draws * (2**0.5 if jnp.iscomplexobj(draws) else 1)


def noise(key, a, space):
    """What the three samples add to the measurement: `A w`, or `w` in measurement space."""
    draws = np.asarray(drawn(jax.random.clone(key), N if space == "signal" else M, str(a.dtype)))
    return draws @ np.asarray(a).T if space == "signal" else draws


def algorithm_1(a, weights, x, y, key, space, radius, fresh):
    """Returns the error, its derivative to the weights (`df = Re sum(g dW)`), the perturbation.

    Written for one signal without differentiation: the gradient of `|b + W B xi|^2 / n` points
    along `(W B)^H (b + W B xi)`, with `B = A` or `I`.
    """
    a, weights, x, y = (np.asarray(v) for v in (a, weights, x, y))
    carry = a if space == "signal" else np.eye(M)
    sigma = SMOOTHING.sigma
    attack_key = subkey(jax.random.clone(key), "attacked smoothing")
    if fresh:
        keys = jax.random.split(attack_key, STEPS)
        threat = Threat(radius, space)
        like = jnp.asarray(x if space == "signal" else y)
        xi = np.asarray(threat.ball(like).sample(subkey(jax.random.clone(key), "start"), like))
    else:
        keys, xi = [attack_key] * STEPS, np.zeros_like(x if space == "signal" else y)
    for step_key in keys:
        seen = y + carry @ xi + sigma * noise(step_key, a, space).mean(axis=0)
        gradient = (weights @ carry).conj().T @ (weights @ seen - x)
        xi = xi + STEP_SIZE * radius * gradient / np.linalg.norm(gradient)
        xi = xi * min(1, radius / np.linalg.norm(xi))
    own = subkey(jax.random.clone(key), "smoothing")
    seen = y + carry @ xi + sigma * noise(own, a, space).mean(axis=0)
    error = weights @ seen - x
    return np.mean(np.abs(error) ** 2), 2 / N * np.outer(error.conj(), seen), xi


def search(ball):
    return pgd(ball, num_steps=STEPS, step_size=STEP_SIZE, first="given", keep_best=False)


def smoothed_adversarial(fresh, threat, smoothing=SMOOTHING, reconstructor=LINEAR):
    if fresh:
        return smt_adv_fresh(reconstructor, threat, smoothing, num_steps=STEPS, step_size=STEP_SIZE)
    return smt_adv(reconstructor, threat, search, smoothing)


def value_and_gradient(loss, *arguments):
    (value, aux), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(*arguments)
    assert value.shape == () and aux == {}
    return value, gradient


@pytest.mark.parametrize(
    ("fresh", "space", "dtype"),
    [
        (False, "signal", "complex128"),
        (False, "measurement", "float64"),
        (True, "signal", "float64"),
        (True, "measurement", "complex128"),
    ],
)
def test_smoothed_adversarial_is_algorithm_1(fresh, space, dtype):
    """Value and derivative: noise, steps, ball, target and the perturbation that is held fixed."""
    with precision(dtype):
        a, weights, batch = problem(dtype)
        loss = smoothed_adversarial(fresh, Threat(RADIUS, space))
        run = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (value, aux), gradient = run(weights, batch, K(5))
        assert value.shape == () and aux == {}

        def by_hand(fresh):
            keys = example_keys(K(5))
            signals = zip(batch.signal, batch.measurement, keys, strict=True)
            each = [algorithm_1(a, weights, x, y, k, space, RADIUS, fresh) for x, y, k in signals]
            return [np.stack(part) for part in zip(*each, strict=True)]

        values, slopes, found = by_hand(fresh)
        near(value, np.mean(values), TOLERANCE["float64"])
        near(gradient, np.mean(slopes, axis=0), TOLERANCE["float64"])
        # Each signal's perturbation fills the ball, not both of them together.
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), RADIUS, rtol=1e-2)
        # Fixed draws find another one than fresh draws; either is the key's own.
        assert np.abs(found - by_hand(not fresh)[2]).max() > 1e-4
        assert run(weights, batch, K(5))[0][0] == value != run(weights, batch, K(6))[0][0]


def test_the_perturbation_carries_no_gradient():
    """The derivative of the search itself would show: the loss alone has another slope."""
    with precision("float64"):
        _, weights, batch = problem()
        loss = smt_adv(LINEAR, Threat(3.0, "signal"), search, SMOOTHING)
        run = jax.jit(jax.value_and_grad(loss, has_aux=True))
        direction = normal(9, *weights.shape, dtype="float64")
        _, gradient = run(weights, batch, K(5))
        up, down = (run(weights + step * direction, batch, K(5))[0][0] for step in (1e-5, -1e-5))
        whole = (up - down) / 2e-5
        fixed = jnp.sum(gradient * direction)
        assert abs(whole - fixed) > 1e-4 * abs(fixed)


@pytest.mark.parametrize(("fresh", "norm"), [(False, "l2"), (True, "linf")])
def test_every_signal_has_its_own_ball(fresh, norm):
    """With `H = A = I` and no noise, the error is that of the perturbation on the boundary."""
    count = 5
    x = jnp.zeros((count, N))
    threat = Threat(RADIUS, "signal", norm)
    loss = smoothed_adversarial(fresh, threat, Smoothing(0.0, 2))
    # A start that is not a stationary point, and signals of very unequal slopes.
    y = x.at[:, 0].set(jnp.array([0.001, 0.002, 0.01, 0.1, 0.5]))
    value, _ = jax.jit(loss)(jnp.eye(N), batch_of(x, y, identity(), jnp.arange(count)), K(1))
    base, entries = np.asarray(y[:, 0]), (1 if norm == "l2" else N)
    # At most each of the errors y + xi has its xi along y (`linf`: and in all other entries).
    largest = ((base + RADIUS) ** 2 + (entries - 1) * RADIUS**2) / N
    # Had all signals one ball together, it would be below this.
    together = np.mean(base**2) / N + RADIUS * (RADIUS + 2 * np.linalg.norm(base)) / N / count
    assert together * 1.5 < value <= largest.mean() * (1 + 1e-5)
    if norm == "l2" and not fresh:
        np.testing.assert_allclose(value, largest.mean(), rtol=1e-5)


def test_without_a_ball_it_is_the_error_of_the_smoothed_reconstruction():
    a, weights, batch = problem("float32")
    loss = smoothed_adversarial(True, Threat(0.0, "signal"))
    value, _ = jax.jit(loss)(weights, batch, K(1))
    errors = [
        weights @ (y + SMOOTHING.sigma * noise(subkey(key, "smoothing"), a, "signal").mean(0)) - x
        for x, y, key in zip(batch.signal, batch.measurement, example_keys(K(1)), strict=True)
    ]
    near(value, np.mean(np.square(errors)), TOLERANCE["float32"])


@every_space
def test_levels_of_smoothed_gradients(space, dtype):
    """Level t has t/T of the noise and its own draws; the whole is the mean of all levels."""
    levels = 3
    with precision(dtype):
        a, weights, batch = problem(dtype)
        smoothing = SMOOTHING
        of_level = smt_grad_levels(LINEAR, smoothing, num_levels=levels, space=space)
        run = jax.jit(jax.value_and_grad(of_level, has_aux=True))
        found = [run(weights, batch, K(5), jnp.int32(t))[:2] for t in range(levels)]
        values = [value for (value, _), _ in found]
        whole, gradient = value_and_gradient(
            smt_grad(LINEAR, smoothing, num_levels=levels, space=space), weights, batch, K(5)
        )
        near(whole, np.mean(values), TOLERANCE["float64"])
        near(gradient, np.mean([slope for _, slope in found], axis=0), TOLERANCE["float64"])

        keys = example_keys(K(5))
        for t, value in enumerate(values):
            errors = []
            for x, y, key in zip(batch.signal, batch.measurement, keys, strict=True):
                draws = noise(jax.random.fold_in(jax.random.clone(key), t), a, space)
                seen = np.asarray(y) + smoothing.sigma * (t + 1) / levels * draws
                errors.append(np.mean(np.abs(seen @ np.asarray(weights).T - np.asarray(x)) ** 2))
            near(value, np.mean(errors), TOLERANCE["float64"])


DRAWS = 3000


@pytest.mark.parametrize(("space", "dtype"), [("signal", "complex64"), ("measurement", "float32")])
def test_expected_loss_of_smoothed_gradients(space, dtype):
    """`(|W y - x|^2 + s^2 (T + 1) (2 T + 1) / (6 T^2) ||W B||_F^2) / n`, `B = A` or `I`.

    Of complex numbers the noise, and so the second term, counts twice.
    """
    levels, sigma = 3, 0.8
    a, weights, _ = problem(dtype)
    x, y = normal(2, N, dtype=dtype), normal(3, M, dtype=dtype)
    every = [jnp.broadcast_to(v, (DRAWS, *v.shape)) for v in (x, y)]
    batch = batch_of(*every, dense(a), jnp.arange(DRAWS))
    loss = smt_grad(LINEAR, Smoothing(sigma, 1), num_levels=levels, space=space)
    value = float(jax.jit(loss)(weights, batch, K(0))[0])
    a, weights, x, y = (np.asarray(v) for v in (a, weights, x, y))
    parts = 2 if np.iscomplexobj(x) else 1
    spread = sigma * (weights @ a if space == "signal" else weights)
    bias = weights @ y - x
    shares = (np.arange(1, levels + 1) / levels) ** 2
    energy = parts * np.sum(np.abs(spread) ** 2)
    share = (levels + 1) * (2 * levels + 1) / (6 * levels**2)
    expected = (np.sum(np.abs(bias) ** 2) + share * energy) / N
    # Variance of |b + S w|^2, whose real covariance repeats the eigenvalues of a complex one.
    gram = spread.conj().T @ spread
    straight = 4 * np.sum(np.abs(spread.conj().T @ bias) ** 2)
    curved = 2 * parts * np.sum(np.abs(gram) ** 2)
    variance = np.mean(shares * straight + shares**2 * curved) / levels
    error = np.sqrt(variance / DRAWS) / N
    assert energy * (1 - shares.mean()) / N > 2 * 5 * error  # that levels have less noise shows
    assert abs(value - expected) < 5 * error


def network(params, operator, y, **_):
    """Two layers on real and imaginary parts; of complex measurements nothing is linear."""
    parts = jnp.concatenate([y.real, y.imag]) if jnp.iscomplexobj(y) else y
    z = params["out"] @ jnp.tanh(params["in"] @ parts)
    return jax.lax.complex(z[:N], z[N:]) if jnp.iscomplexobj(y) else z


NETWORK = Reconstructor(lambda key, operator, y: (), network)
BETA = 0.4


def small_network(dtype):
    parts = 2 if np.issubdtype(dtype, np.complexfloating) else 1
    real = "float32" if dtype in ("float32", "complex64") else "float64"
    return {
        "in": normal(4, 5, parts * M, dtype=real) / 2,
        "out": normal(5, parts * N, 5, dtype=real) / 2,
    }


def small_batch(dtype):
    a = normal(0, M, N, dtype=dtype)
    return batch_of(
        normal(2, EXAMPLES, N, dtype=dtype), normal(3, EXAMPLES, M, dtype=dtype), dense(a)
    )


def dense_norm(params, operator, y, space):
    """The largest singular value of the Jacobian of real numbers to real numbers."""

    def moved(parts):
        delta = jax.lax.complex(parts[0], parts[1]) if jnp.iscomplexobj(y) else parts[0]
        z = network(params, operator, y + (operator.forward(delta) if space == "signal" else delta))
        return jnp.concatenate([z.real, z.imag])

    parts = 2 if jnp.iscomplexobj(y) else 1
    zero = jnp.zeros((parts, N if space == "signal" else M), y.real.dtype)
    matrix = jax.jacfwd(moved)(zero).reshape(-1, zero.size)
    return jnp.linalg.svd(matrix, compute_uv=False)[0]


@every_space
def test_jacobian_penalty_is_the_spectral_norm(space, dtype):
    """Value and weights' derivative, which the public code leaves out, against a dense SVD."""
    with precision(dtype):
        params, batch = small_network(dtype), small_batch(dtype)
        loss = jacobian(NETWORK, BETA, space=space, num_iterations=400)

        def by_hand(params):
            run = jax.vmap(lambda y: dense_norm(params, batch.operator, y, space))
            return mse(NETWORK)(params, batch, K(1))[0] + BETA * jnp.mean(run(batch.measurement))

        value, gradient = value_and_gradient(loss, params, batch, K(1))
        expected = jax.jit(jax.value_and_grad(by_hand))(params)
        near(value, expected[0], TOLERANCE["float64"])
        for name in params:  # the singular vectors converge half as fast as the value
            near(gradient[name], expected[1][name], 1e-8)
        bare, slopes = value_and_gradient(mse(NETWORK), params, batch, K(1))
        assert value > bare + 0.1
        for name in params:
            assert np.abs(gradient[name] - slopes[name]).max() > 1e-2
        check_gradient(lambda params: loss(params, batch, K(1))[0], params)


def test_jacobian_without_weight_is_the_error():
    params, batch = small_network("float32"), small_batch("float32")
    value, gradient = value_and_gradient(jacobian(NETWORK, 0.0), params, batch, K(1))
    expected = value_and_gradient(mse(NETWORK), params, batch, K(1))
    near(value, expected[0], TOLERANCE["float32"])
    for name in params:
        near(gradient[name], expected[1][name], TOLERANCE["float32"])


def test_jacobian_starts_anew_with_every_key_and_is_a_lower_bound():
    with precision("float64"):
        params, batch = small_network("float64"), small_batch("float64")
        loss = jax.jit(lambda key: jacobian(NETWORK, 1.0, num_iterations=1)(params, batch, key)[0])
        exact = jax.jit(
            lambda key: jacobian(NETWORK, 1.0, num_iterations=400)(params, batch, key)[0]
        )(K(0))
        values = [float(loss(K(seed))) for seed in (0, 1)]
        assert values[0] != values[1] and max(values) < exact
        assert float(loss(K(0))) == values[0]


MRI_SHAPE = (4, 6, 1)


def mri_apply(params, operator, y, **_):
    """A learned step on the back projection, with weights that mix real and imaginary parts."""
    x = operator.adjoint(y)
    parts = jnp.concatenate([x.real, x.imag], axis=-1)
    z = parts + jnp.tanh(parts @ params)
    return jax.lax.complex(z[..., :1], z[..., 1:])


MRI = Reconstructor(lambda key, operator, y: (), mri_apply)
ON_MRI = {
    "smt_adv": smt_adv(MRI, Threat(0.2, unit="relative"), search, SMOOTHING),
    "smt_grad": smt_grad(MRI, SMOOTHING, num_levels=2, space="measurement"),
    "jacobian": jacobian(MRI, BETA),
}


@pytest.mark.parametrize("name", ON_MRI)
def test_complex_masked_operator_in_batches(name):
    """Finite and at work, whatever the order of the batch."""
    mask = np.random.default_rng(0).uniform(size=MRI_SHAPE[:2]) < 0.5
    operator = cartesian_mri(mask)
    x = normal(1, EXAMPLES, *MRI_SHAPE, dtype="complex64")
    y = jax.vmap(operator.forward)(x)
    params = normal(2, 2, 2) / 2
    run = jax.jit(jax.value_and_grad(ON_MRI[name], has_aux=True))
    (value, _), gradient = run(params, batch_of(x, y, operator), K(1))
    assert value.dtype == jnp.float32 and np.isfinite(value)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    error, _ = mse(MRI)(params, batch_of(x, y, operator), K(1))
    assert abs(value - error) > 1e-3 * error
    again = jnp.array([1, 0])
    (turned, _), _ = run(params, batch_of(x[again], y[again], operator, INDEX[again]), K(1))
    near(turned, value, TOLERANCE["float32"])


SMOOTHED = end_to_end(LINEAR, SMOOTHING)
CUT = Smoothing(0.3, 2, clamp=1.0)
SIGNAL = Threat(RADIUS, "signal")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smt_adv(SMOOTHED, SIGNAL, search, SMOOTHING), "smoothed already"),
        (lambda: smt_adv(LINEAR, SIGNAL, search, CUT), "clamp must be None .*got 1.0"),
        (lambda: smt_adv_fresh(SMOOTHED, SIGNAL, SMOOTHING, num_steps=2), "smoothed already"),
        (lambda: smt_adv_fresh(LINEAR, SIGNAL, CUT, num_steps=2), "clamp must be None .*got 1.0"),
        (
            lambda: smt_adv_fresh(LINEAR, SIGNAL, SMOOTHING, num_steps=0),
            "num_steps must be at least 1, got 0",
        ),
        (
            lambda: smt_adv_fresh(LINEAR, SIGNAL, SMOOTHING, num_steps=-2, step_size=0.1),
            "num_steps must be at least 1, got -2",
        ),
        (
            lambda: smt_adv_fresh(LINEAR, SIGNAL, SMOOTHING, num_steps=2, step_size=0.0),
            "step_size must be positive, got 0.0",
        ),
        *(
            row
            for scheme in (smt_grad, smt_grad_levels)
            for row in [
                (lambda s=scheme: s(SMOOTHED, SMOOTHING), "smoothed already"),
                (lambda s=scheme: s(LINEAR, CUT), "clamp must be None.*got 1.0"),
                (
                    lambda s=scheme: s(LINEAR, CUT, space="measurement"),
                    "clamp must be None.*got 1.0",
                ),
                (
                    lambda s=scheme: s(LINEAR, SMOOTHING, num_levels=0),
                    "num_levels must be at least 1, got 0",
                ),
                (lambda s=scheme: s(LINEAR, SMOOTHING, space="moon"), "space must be .*'moon'"),
                (lambda s=scheme: s(LINEAR, SMOOTHING, space="start"), "space must be .*'start'"),
            ]
        ),
        (lambda: jacobian(LINEAR, -0.1), "weight must be .*non-negative, got -0.1"),
        (lambda: jacobian(LINEAR, float("nan")), "weight must be .*non-negative, got nan"),
        (lambda: jacobian(LINEAR, float("inf")), "weight must be finite.*got inf"),
        (
            lambda: jacobian(LINEAR, 1.0, num_iterations=0),
            "num_iterations must be at least 1, got 0",
        ),
        (lambda: jacobian(LINEAR, 1.0, space="start"), "space must be .*'start'"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
