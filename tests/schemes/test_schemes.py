"""Every training loss: what it reduces to, whose neighbours it ignores, its closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, close, counted, near, normal
from scipy.optimize import minimize_scalar

from jitter_jax.attacks import Threat, fgsm, pgd, reconstruction_error
from jitter_jax.data.batch import Batch
from jitter_jax.operators import convolution, dense, identity
from jitter_jax.schemes import adversarial, input_jitter, krainovic_level, mse, sgd_jitter
from jitter_jax.unroll import Reconstructor, gradient_descent, jitter, scalar, unrolled

SHAPE = (5, 2)
BATCH = 4
RADIUS = 0.8


class Small:
    """A learned step without a library: two small matrices and tanh."""

    @staticmethod
    def init(key, x):
        return {"weights": jax.random.normal(key, (x.shape[-1], x.shape[-1]))}

    @staticmethod
    def apply(params, x):
        return jnp.tanh(x @ params["weights"])


RECONSTRUCTOR = unrolled(
    gradient_descent, Small, {"step_size": scalar.exponential()}, num_iterations=3
)
PGD = functools.partial(pgd, num_steps=3)
SCHEMES = {
    "mse": mse(RECONSTRUCTOR),
    "input jitter": input_jitter(RECONSTRUCTOR, 0.3),
    "SGD jitter": sgd_jitter(RECONSTRUCTOR, jitter.relative(0.3)),
    "adversarial": adversarial(RECONSTRUCTOR, Threat(RADIUS), PGD),
    "adversarial, signal space": adversarial(RECONSTRUCTOR, Threat(0.1, "signal", "linf"), fgsm),
}
REDUCED = {  # to mse
    "input jitter": input_jitter(RECONSTRUCTOR, 0.0),
    "SGD jitter": sgd_jitter(RECONSTRUCTOR, jitter.absolute(0.0)),
    "adversarial": adversarial(RECONSTRUCTOR, Threat(0.0), PGD),
    "adversarial, signal space": adversarial(
        RECONSTRUCTOR, Threat(0.0, "signal", "linf", "relative"), fgsm
    ),
}


def make_batch(signal, measurement, operator, index, operator_axes=None):
    return Batch(signal, measurement, operator, jnp.ones(len(index)), index, operator_axes)


every_scheme = pytest.mark.parametrize("name", SCHEMES)


def problem(dtype="float32"):
    operator = convolution(normal(0, 3, dtype=dtype) / 2)
    batch = make_batch(
        normal(1, BATCH, *SHAPE, dtype=dtype),
        normal(2, BATCH, *SHAPE, dtype=dtype),
        operator,
        jnp.array([7, 3, 11, 0]),
    )
    params = RECONSTRUCTOR.init(jax.random.key(0), operator, batch.measurement[0])
    return params, batch


@functools.cache
def compiled(name, table="SCHEMES"):
    """The value and gradient of a loss, compiled once for all tests, and its list of traces."""
    loss, traces = counted(globals()[table][name])
    return jax.jit(jax.value_and_grad(loss, has_aux=True)), traces


@every_scheme
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_finite_real_and_compiled_once(name, dtype):
    params, batch = problem(dtype)
    run, traces = compiled(name)
    (value, aux), gradient = run(params, batch, jax.random.key(1))
    assert value.shape == () and value.dtype == jnp.float32 and aux == {}
    assert np.isfinite(value) and value > 0
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all() and float(jnp.abs(leaf).max()) > 0
    before = len(traces)
    run(params, batch, jax.random.key(2))
    assert len(traces) == before


# The attacks are compared eagerly in their own tests.
@pytest.mark.parametrize("name", ["mse", "input jitter", "SGD jitter"])
def test_jit_equals_eager(name):
    params, batch = problem()
    eager = SCHEMES[name](params, batch, jax.random.key(1))
    close(compiled(name)[0](params, batch, jax.random.key(1))[0], eager)


@pytest.mark.parametrize("name", REDUCED)
def test_reduces_to_mse(name):
    params, batch = problem()
    reduced = compiled(name, "REDUCED")[0](params, batch, jax.random.key(1))
    close(reduced, compiled("mse")[0](params, batch, jax.random.key(1)))


def test_mse_is_the_mean_squared_error():
    params, batch = problem("complex64")
    apply = functools.partial(RECONSTRUCTOR.apply, params, batch.operator)
    estimates = np.stack([apply(y) for y in batch.measurement])
    expected = np.mean(np.abs(estimates - np.asarray(batch.signal)) ** 2)
    near(SCHEMES["mse"](params, batch, jax.random.key(0))[0], expected, TOLERANCE["float32"])


@pytest.mark.parametrize("name", ["input jitter", "SGD jitter"])
def test_noise_depends_on_the_key(name):
    params, batch = problem()
    (one, _), (other, _) = (compiled(name)[0](params, batch, jax.random.key(i))[0] for i in (1, 2))
    assert one != other


@every_scheme
def test_an_example_is_its_index_and_not_its_place_or_its_neighbours(name):
    params, batch = problem()
    run = lambda batch, key: compiled(name)[0](params, batch, key)[0][0]

    def rows(*order):
        order = jnp.array(order)
        return make_batch(
            batch.signal[order], batch.measurement[order], batch.operator, batch.index[order]
        )

    key = lambda: jax.random.key(1)
    near(run(rows(2, 0, 3, 1), key()), run(batch, key()), TOLERANCE["float32"])
    # Of a batch that holds one example four times, the loss is that example's own.
    own = [run(rows(i, i, i, i), key()) for i in range(BATCH)]
    near(np.mean(own), run(batch, key()), TOLERANCE["float32"])


def test_equal_examples_of_other_index_get_other_noise():
    params, batch = problem()
    same = [jnp.repeat(a[:1], 2, 0) for a in (batch.signal, batch.measurement)]
    run = lambda *index: SCHEMES["input jitter"](
        params, make_batch(*same, batch.operator, jnp.array(index)), jax.random.key(1)
    )[0]
    one, other = run(5, 5), run(6, 6)
    assert one != other
    near(run(5, 6), (one + other) / 2, TOLERANCE["float32"])


def test_every_example_can_have_its_own_operator():
    params, batch = problem()
    wavelets = normal(5, BATCH, 4)
    operators = jax.vmap(convolution)(wavelets)
    own = make_batch(batch.signal, batch.measurement, operators, batch.index, operator_axes=0)
    value = SCHEMES["mse"](params, own, jax.random.key(0))[0]
    apply = jax.jit(RECONSTRUCTOR.apply)
    parts = zip(wavelets, batch.measurement, batch.signal, strict=True)
    errors = [np.mean((apply(params, convolution(w), y) - x) ** 2) for w, y, x in parts]
    near(value, np.mean(errors), TOLERANCE["float32"])


def test_adversarial_loss_is_no_smaller_and_holds_its_perturbation_fixed():
    params, batch = problem()
    (value, _), gradient = compiled("adversarial")[0](params, batch, jax.random.key(1))
    assert value > compiled("mse")[0](params, batch, jax.random.key(1))[0][0]

    def find(x, y, index):
        reconstruct = functools.partial(RECONSTRUCTOR.apply, params, batch.operator)
        objective = reconstruction_error(reconstruct, batch.operator, x, y)
        key = jax.random.fold_in(jax.random.key(1), index)
        return PGD(Threat(RADIUS).ball(y))(objective, jnp.zeros_like(y), key)[0]

    deltas = jax.jit(jax.vmap(find))(batch.signal, batch.measurement, batch.index)

    def manual(params, deltas):
        apply = functools.partial(RECONSTRUCTOR.apply, params, batch.operator)
        return jnp.mean((jax.vmap(apply)(batch.measurement + deltas) - batch.signal) ** 2)

    expected = jax.jit(jax.value_and_grad(manual))(params, deltas)
    close((value, gradient), expected, loosen=10)  # the perturbations were searched for twice


def linear(matrix):
    """`H(y) = B y`, whatever the parameters."""
    return Reconstructor(lambda key, operator, y: (), lambda params, operator, y, **_: matrix @ y)


DRAWS = 3000


def test_expected_loss_of_input_jitter_on_a_linear_reconstructor():
    matrix, x, y = normal(0, 4, 4), normal(1, 4), normal(2, 4)
    loss = input_jitter(linear(matrix), 0.5)
    batch = make_batch(
        *(jnp.broadcast_to(a, (DRAWS, 4)) for a in (x, y)), identity(), jnp.arange(DRAWS)
    )
    value = float(jax.jit(loss)((), batch, jax.random.key(0))[0])
    bias, spread = np.asarray(matrix @ y - x), 0.5 * np.asarray(matrix)
    expected = (np.sum(bias**2) + np.sum(spread**2)) / 4
    # Variance of |b + S w|^2 for standard normal w.
    variance = 4 * np.sum((spread.T @ bias) ** 2) + 2 * np.sum((spread.T @ spread) ** 2)
    assert abs(value - expected) < 5 * np.sqrt(variance / DRAWS) / 4


def test_expected_loss_of_sgd_jitter_on_a_linear_reconstructor():
    """x_K = M^K x_0 + ... - eta sum_k M^(K-1-k) w_k with M = I - eta (A^H A + F)."""
    eta, sigma, num_iterations, n = 0.2, 2.0, 4, 3
    a, f, x, y = normal(0, n, n) / 2, normal(1, n, n) / 2, normal(2, n), normal(3, n)

    class Linear:
        init = staticmethod(lambda key, x: f)
        apply = staticmethod(lambda params, x: params @ x)

    reconstructor = unrolled(
        gradient_descent, Linear, {"step_size": scalar.fixed(eta)}, num_iterations=num_iterations
    )
    batch = make_batch(
        *(jnp.broadcast_to(v, (DRAWS, n)) for v in (x, y)), dense(a), jnp.arange(DRAWS)
    )
    loss = sgd_jitter(reconstructor, jitter.absolute(sigma))
    value = float(jax.jit(loss)({"network": f}, batch, jax.random.key(0))[0])

    a, f, x, y = (np.asarray(v, np.float64) for v in (a, f, x, y))
    step = np.eye(n) - eta * (a.T @ a + f)
    mean = a.T @ y
    for _ in range(num_iterations):
        mean = step @ mean + eta * a.T @ y
    powers = [np.linalg.matrix_power(step, k) for k in range(num_iterations)]
    covariance = (eta * sigma) ** 2 * sum(p @ p.T for p in powers)
    bias = mean - x
    expected = (bias @ bias + np.trace(covariance)) / n
    variance = 4 * bias @ covariance @ bias + 2 * np.trace(covariance @ covariance)
    assert np.trace(covariance) > 2 * 5 * np.sqrt(variance / DRAWS)  # the noise shows
    assert abs(value - expected) < 5 * np.sqrt(variance / DRAWS) / n


def test_input_jitter_of_complex_measurements_has_its_level_in_each_part():
    x, y = jnp.zeros(4, jnp.complex64), jnp.zeros(4, jnp.complex64)
    batch = make_batch(
        *(jnp.broadcast_to(v, (DRAWS, 4)) for v in (x, y)), identity(), jnp.arange(DRAWS)
    )
    loss = input_jitter(linear(jnp.eye(4, dtype=jnp.complex64)), 0.5)
    value = jax.jit(loss)((), batch, jax.random.key(0))[0]
    np.testing.assert_allclose(value, 2 * 0.25, rtol=5 * np.sqrt(2 / (8 * DRAWS)))


@pytest.mark.parametrize(
    ("epsilon", "noise_std", "n", "d"),
    [(0.3, 0.01, 3000, 1000), (0.1, 0.03, 2000, 2000), (0.8, 0.02, 4000, 1500)],
)
def test_krainovic_level_is_worst_case_optimal(epsilon, noise_std, n, d):
    """The denoiser that jitter of this level trains has the least worst-case risk.

    `H = c P`, with P the projection on the signals' subspace, minimises the risk under noise of
    standard deviation `sqrt(noise_std^2 + sigma_w^2)` at the Wiener value of c. An attack of radius
    epsilon on it lengthens the error `c P (x + z) - x`, which lies in the subspace, by
    `c epsilon`: the worst-case risk is the mean of the square of the two together.
    """
    energy = 1.3
    level = krainovic_level(
        epsilon, noise_std=noise_std, signal_energy=energy, measurement_size=n, signal_dimension=d
    )
    trained = energy / (energy + d * (noise_std**2 + level**2))

    # In coordinates of the subspace, P z has d entries.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, d)) * np.sqrt(energy / d)
    z = rng.normal(size=(200, d)) * noise_std

    def worst_case_risk(c):
        return np.mean((np.linalg.norm(c * (x + z) - x, axis=1) + c * epsilon) ** 2)

    best = minimize_scalar(worst_case_risk, bounds=(0, 1), method="bounded")
    # 200 samples of a norm that concentrates as 1 / sqrt(d).
    np.testing.assert_allclose(trained, best.x, rtol=0.01)

    # In the limit of many dimensions the norm is its root mean square, and the optimum exact.
    def limit(c):
        return np.sqrt((1 - c) ** 2 * energy + c**2 * noise_std**2 * d) + c * epsilon

    slope = (limit(trained + 1e-6) - limit(trained - 1e-6)) / 2e-6
    assert abs(slope) < 1e-6 and limit(trained) <= limit(best.x)


def test_krainovic_level_without_attack_or_without_noise_is_zero():
    sizes = dict(signal_energy=1.0, measurement_size=10, signal_dimension=5)
    assert krainovic_level(0.0, noise_std=0.1, **sizes) == 0
    assert krainovic_level(0.5, noise_std=0.0, **sizes) == 0


def level(**changes):
    arguments = dict(
        epsilon=0.1, noise_std=0.1, signal_energy=1.0, measurement_size=4, signal_dimension=2
    )
    return krainovic_level(**(arguments | changes))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: input_jitter(RECONSTRUCTOR, -0.1), "sigma must be .*non-negative, got -0.1"),
        (lambda: input_jitter(RECONSTRUCTOR, float("nan")), "sigma must be finite.*got nan"),
        (lambda: level(signal_dimension=5), "signal_dimension .* measurement_size=4, got 5"),
        (lambda: level(signal_dimension=0), "signal_dimension .* got 0"),
        (lambda: level(noise_std=-1.0), "noise_std must be non-negative, got -1.0"),
        (lambda: level(epsilon=1.0), r"sqrt\(signal_energy\) = 1; got 1.0"),
        (lambda: level(epsilon=-0.1), "epsilon must lie .*got -0.1"),
        (lambda: level(signal_energy=-4.0), r"sqrt\(signal_energy\) = 0; got 0.1"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
