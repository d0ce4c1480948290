"""Every attack: inside its ball, never weaker than clean, exact where the answer is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, check_gradient, close, counted, equal, near, normal

from jitter_jax.attacks import (
    Ball,
    Threat,
    expectation,
    fgsm,
    perturbed,
    pgd,
    random,
    reconstruction_error,
)
from jitter_jax.operators import dense
from jitter_jax.smoothing import Smoothing, smooth

ATTACKS = {
    "random in the ball": random,
    "random on the sphere": lambda ball: random(ball, on_sphere=True),
    "fgsm": fgsm,
    "pgd": lambda ball: pgd(ball, num_steps=5),
    "pgd with restarts": lambda ball: pgd(ball, num_steps=3, restarts=3),
    "pgd from a random start": lambda ball: pgd(ball, num_steps=5, first="random"),
    "pgd from the start": lambda ball: pgd(ball, num_steps=5, first="given"),
    "last pgd": lambda ball: pgd(ball, num_steps=5, keep_best=False),
}
# They return the better of what they saw and no perturbation.
NEVER_WEAKER = ("pgd", "pgd with restarts", "pgd from a random start", "pgd from the start")
NORMS = ("l2", "linf")
DTYPES = ("float32", "complex64")
RADIUS = 0.7
SHAPE = (4, 2)
every_norm = pytest.mark.parametrize("norm", NORMS)
real_and_complex = pytest.mark.parametrize("dtype", DTYPES)


def size(norm, delta):
    """The norm of an array as a vector of its real and imaginary parts."""
    parts = np.stack([np.real(delta), np.imag(delta)]).astype(np.float64)
    return np.linalg.norm(parts) if norm == "l2" else np.abs(parts).max()


def ball(norm, radius=RADIUS):
    return Ball(jnp.float32(radius), norm)


def network(y):
    """A small nonlinear reconstruction."""
    first, second = normal(0, 8, SHAPE[0], dtype=y.dtype), normal(1, SHAPE[0], 8, dtype=y.dtype)
    hidden = first @ y
    if jnp.iscomplexobj(y):
        return second @ jax.lax.complex(jnp.tanh(hidden.real), jnp.sin(hidden.imag)) / 3
    return second @ jnp.tanh(hidden) / 3


def problem(dtype):
    x, y = normal(2, *SHAPE, dtype=dtype), normal(3, *SHAPE, dtype=dtype)
    return reconstruction_error(network, dense(jnp.eye(SHAPE[0])), x, y), y


def run(attack, objective, like, seed=0):
    """Compiled: an attack is a loop of many small steps."""
    go = jax.jit(lambda key: attack(objective, jnp.zeros_like(like), key))
    return go(jax.random.key(seed))


def attacked(name, norm, gain, radius, x, y, key):
    """One signal under one attack; `gain` scales the objective."""
    error = reconstruction_error(network, dense(jnp.eye(SHAPE[0])), x, y)
    return ATTACKS[name](Ball(radius, norm))(
        lambda delta: gain * error(delta), jnp.zeros_like(y), key
    )


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in ATTACKS),
        *((name, "complex64") for name in list(ATTACKS)[:4]),
    ],
)
@every_norm
def test_inside_the_ball_and_honest_about_its_value(name, norm, dtype):
    # A usual problem, another size, no size at all, no gradient at all.
    gains, radii = jnp.array([1.0, 1.0, 1.0, 0.0]), jnp.array([0.7, 0.1, 0.0, 0.7])
    xs, ys = normal(0, 4, *SHAPE, dtype=dtype), normal(1, 4, *SHAPE, dtype=dtype)
    keys = lambda: jax.random.split(jax.random.key(0), 4)
    one = functools.partial(attacked, name, norm)
    deltas, infos = jax.jit(jax.vmap(one))(gains, radii, xs, ys, keys())
    assert deltas.shape == ys.shape and deltas.dtype == ys.dtype
    sizes = np.array([size(norm, delta) for delta in deltas])
    assert (sizes <= radii * (1 + TOLERANCE["float32"])).all() and (sizes[:2] > 0).all()
    for gain, x, y, delta, info in zip(
        gains,
        xs,
        ys,
        deltas,
        (jax.tree.map(lambda a, i=i: a[i], infos) for i in range(4)),
        strict=True,
    ):
        error = reconstruction_error(network, dense(jnp.eye(SHAPE[0])), x, y)
        near(info.clean, gain * error(jnp.zeros_like(y)), TOLERANCE["float32"])
        near(info.value, gain * error(delta), TOLERANCE["float32"])
        if name in NEVER_WEAKER:
            assert info.value >= info.clean and info.value == max(info.clean, info.history.max())
        if name == "last pgd":
            assert info.value == info.history[-1, -1]
    points = {"pgd with restarts": (3, 4)}.get(name, (1, 6) if "pgd" in name else (2,))
    assert infos.history.shape == (4, *points)
    assert infos.value[2] == infos.clean[2] and infos.value[3] == infos.clean[3] == 0
    if name == "fgsm":
        equal(deltas[3], jnp.zeros_like(ys[3]))  # no gradient, no step
    if dtype == "float32":
        parts = zip(gains, radii, xs, ys, keys(), strict=True)
        single = jax.jit(one)
        looped = jax.tree.map(lambda *a: jnp.stack(a), *(single(*part) for part in parts))
        # Steps repeat rounding errors: values agree better than the points do.
        close((deltas, infos), looped, loosen=10)


@pytest.mark.parametrize("name", NEVER_WEAKER)
@every_norm
def test_never_weaker_than_clean_at_a_maximum(name, norm):
    # Every perturbation lowers this objective: the best is none.
    objective = lambda delta: -jnp.sum(jnp.square(delta + 0.0))
    delta, info = run(ATTACKS[name](ball(norm)), objective, jnp.zeros(SHAPE))
    equal(delta, jnp.zeros(SHAPE))
    assert info.value == info.clean == 0


@every_norm
def test_more_steps_and_more_restarts_are_never_weaker(norm):
    objective, y = problem("float32")

    # Steps this long jump about, so that the last point is often not the best.
    def values(**options):
        attack = pgd(ball(norm), step_size=1.3, first="random", **options)
        value = lambda key: attack(objective, jnp.zeros_like(y), key)[1].value
        return np.asarray(jax.jit(jax.vmap(value))(jax.random.split(jax.random.key(0), 20)))

    for weak, strong in [
        (values(num_steps=1), values(num_steps=6)),
        (values(num_steps=2), values(num_steps=2, restarts=4)),
    ]:
        assert (strong >= weak).all() and (strong > weak).any()


@every_norm
@real_and_complex
def test_order_of_strength(norm, dtype):
    objective, y = problem(dtype)
    value = lambda attack: float(run(attack, objective, y)[1].value)
    strong, one_step = value(pgd(ball(norm), num_steps=40, restarts=2)), value(fgsm(ball(norm)))
    assert strong >= one_step > value(random(ball(norm)))


def linear_problem(matrix, y):
    """`H(y) = B y` and the truth `B y`: the error is `||B delta||^2 / n`."""
    return reconstruction_error(lambda y: matrix @ y, dense(jnp.eye(len(y))), matrix @ y, y)


@real_and_complex
def test_closed_form_l2(dtype):
    matrix, y = normal(0, 5, 4, dtype=dtype), normal(1, 4, dtype=dtype)
    singular = np.linalg.svd(matrix, compute_uv=False)
    expected = RADIUS**2 * singular[0] ** 2 / 5
    attack = pgd(ball("l2"), num_steps=60, step_size=0.5)
    delta, info = run(attack, linear_problem(matrix, y), y)
    # Ascent on a quadratic approaches its top singular vector geometrically.
    near(info.value, expected, 1e-4)
    top = np.linalg.svd(matrix)[2][0].conj()
    np.testing.assert_allclose(abs(np.vdot(top, delta)), RADIUS, rtol=1e-3)


@real_and_complex
def test_closed_form_linf(dtype):
    diagonal, y = jnp.array([0.5, -2.0, 1.0, 3.0]), normal(1, 4, dtype=dtype)
    objective = linear_problem(jnp.diag(diagonal).astype(dtype), y)
    parts = 2 if dtype == "complex64" else 1  # each part is bounded by itself
    expected = parts * RADIUS**2 * np.sum(np.square(diagonal)) / 4
    delta, info = run(pgd(ball("linf"), num_steps=10), objective, y)
    near(info.value, expected, TOLERANCE["float32"])
    for part in (np.real(delta), np.imag(delta))[:parts]:
        np.testing.assert_allclose(np.abs(part), RADIUS, rtol=TOLERANCE["float32"])


@every_norm
@real_and_complex
def test_fgsm_is_exact_on_a_linear_objective(norm, dtype):
    slope = normal(0, *SHAPE, dtype=dtype)
    objective = lambda delta: jnp.sum(jnp.real(slope.conj() * delta)) + 1
    delta, info = run(fgsm(ball(norm)), objective, slope)
    dual = {
        "l2": lambda: size("l2", slope),
        "linf": lambda: np.abs(np.stack([np.real(slope), np.imag(slope)])).sum(),
    }[norm]()
    near(info.value, 1 + RADIUS * dual, TOLERANCE["float32"])
    equal(info.history, jnp.stack([info.clean, info.value]))
    if norm == "l2":
        near(delta, RADIUS * np.asarray(slope) / size("l2", slope), TOLERANCE["float32"])


@every_norm
@real_and_complex
@pytest.mark.parametrize("scale", [1e-25, 1e-36, 1e25])
def test_tiny_and_huge_gradients_give_full_steps(norm, dtype, scale):
    # The square of 1e-25 is zero in float32, and that of 1e25 infinite.
    slope = normal(0, *SHAPE, dtype=dtype)
    step = ball(norm).steepest(scale * slope)
    near(step, ball(norm).steepest(slope), TOLERANCE["float32"])
    np.testing.assert_allclose(size(norm, step), 1, rtol=TOLERANCE["float32"])
    equal(ball(norm).steepest(0 * slope), 0 * slope)


@pytest.mark.parametrize("first", ["given", "random"])
@every_norm
def test_an_objective_that_breaks_counts_as_the_strongest(norm, first):
    # Finite at zero, rising, and not a number further out.
    def objective(delta):
        total = jnp.sum(delta)
        return jnp.where(jnp.abs(total) > 0.2, jnp.nan, total + 0.01)

    attack = pgd(ball(norm), num_steps=8, step_size=0.3, first=first)
    delta, info = run(attack, objective, jnp.zeros(SHAPE))
    assert np.isnan(info.value) and np.isfinite(info.clean)
    assert np.isfinite(delta).all() and np.isnan(objective(delta))
    assert size(norm, delta) <= RADIUS * (1 + TOLERANCE["float32"])


@pytest.mark.parametrize("name", ["fgsm", "pgd from the start"])
@every_norm
def test_a_gradient_that_breaks_leaves_the_perturbation_finite(name, norm):
    # The norm has no derivative at zero; JAX gives not-a-number.
    objective = lambda delta: jnp.sqrt(jnp.sum(jnp.square(delta)))
    delta, info = run(ATTACKS[name](ball(norm)), objective, jnp.zeros(SHAPE))
    assert np.isfinite(delta).all() and np.isfinite(info.value)


def test_one_compilation_for_all_sizes():
    def attacked(threat, key):
        objective, y = problem("float32")
        return pgd(threat.ball(y), num_steps=3)(objective, jnp.zeros_like(y), key)[1].value

    function, traces = counted(attacked)
    compiled = jax.jit(function)
    values = [compiled(Threat(epsilon), jax.random.key(0)) for epsilon in (0.0, 0.1, 1.0)]
    assert len(traces) == 1
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("space", ["measurement", "signal"])
def test_gradient_of_the_objective_against_finite_differences(dtype, space):
    with jax.enable_x64(True):
        matrix = normal(4, SHAPE[0], 6, dtype=dtype)
        x, y = normal(2, *SHAPE, dtype=dtype), normal(3, *SHAPE, dtype=dtype)
        objective = reconstruction_error(network, dense(matrix), x, y, space=space)
        delta = 0.1 * normal(5, *(SHAPE if space == "measurement" else (6, 2)), dtype=dtype)
        check_gradient(objective, delta)


@real_and_complex
def test_ascent_points_uphill(dtype):
    objective, y = problem(dtype)
    gradient = jax.grad(objective)(jnp.zeros_like(y))
    step = 1e-3 * ball("l2").steepest(gradient.conj())
    clean = float(objective(jnp.zeros_like(y)))
    expected = 1e-3 * size("l2", gradient)
    assert objective(step) - clean == pytest.approx(expected, rel=0.05)  # first order, float32


def test_perturbation_spaces():
    matrix, y, z = normal(0, 4, 6), normal(1, 4, 2), normal(2, 6, 2)
    near(perturbed(dense(matrix), y, z, "signal"), y + matrix @ z, TOLERANCE["float32"])
    equal(perturbed(dense(matrix), y, y, "measurement"), y + y)
    x = normal(3, 4, 2)
    objective = reconstruction_error(network, dense(matrix), x, y, space="signal")
    expected = np.mean(np.square(network(y + matrix @ z) - x))
    near(objective(z), expected, TOLERANCE["float32"])


def test_objective_of_complex_signals_is_the_mean_square_modulus():
    x, y = normal(2, *SHAPE, dtype="complex64"), normal(3, *SHAPE, dtype="complex64")
    objective = reconstruction_error(network, dense(jnp.eye(SHAPE[0])), x, y)
    delta = 0.1 * y
    expected = np.mean(np.abs(np.asarray(network(y + delta) - x)) ** 2)
    near(objective(delta), expected, TOLERANCE["float32"])


@real_and_complex
def test_radius_in_every_unit(dtype):
    reference = normal(0, 3, 4, dtype=dtype)
    flat = np.asarray(reference).ravel()
    largest = size("linf", reference)
    expected = {
        ("absolute", "l2"): 0.5,
        ("absolute", "linf"): 0.5,
        ("relative", "l2"): 0.5 * np.linalg.norm(flat),
        ("relative", "linf"): 0.5 * largest,
        ("per_pixel", "l2"): 0.5 * np.sqrt(12),
        ("per_pixel", "linf"): 0.5,
    }
    for (unit, norm), radius in expected.items():
        made = Threat(0.5, norm=norm, unit=unit).ball(reference)
        assert made.norm == norm and made.radius.dtype == jnp.float32
        np.testing.assert_allclose(made.radius, radius, rtol=TOLERANCE["float32"])


def test_relative_linf_takes_the_larger_part_of_a_complex_reference():
    threat = Threat(1.0, norm="linf", unit="relative")
    for reference in (3 - 4j, -4 + 3j, 4j, -4):
        assert threat.ball(jnp.array([reference, 1 + 1j], jnp.complex64)).radius == 4


@every_norm
@real_and_complex
def test_projection(norm, dtype):
    inside, outside = 0.01 * normal(0, *SHAPE, dtype=dtype), 5 * normal(1, *SHAPE, dtype=dtype)
    equal(ball(norm).project(inside), inside)
    point = ball(norm).project(outside)
    np.testing.assert_allclose(size(norm, point), RADIUS, rtol=TOLERANCE["float32"])
    wide = np.asarray(outside)
    nearest = (
        wide * RADIUS / size("l2", wide)
        if norm == "l2"
        else np.clip(wide.real, -RADIUS, RADIUS)
        + (1j * np.clip(wide.imag, -RADIUS, RADIUS) if dtype == "complex64" else 0)
    )
    near(point, nearest, TOLERANCE["float32"])
    near(ball(norm).project(point), point, TOLERANCE["float32"])


SAMPLES = 4000


@every_norm
@real_and_complex
@pytest.mark.parametrize("on_sphere", [False, True])
def test_samples_are_uniform(norm, dtype, on_sphere):
    like = jnp.zeros((3,), dtype)
    n = 3 * (2 if dtype == "complex64" else 1)
    sample = jax.jit(jax.vmap(lambda key: ball(norm).sample(key, like, on_sphere=on_sphere)))
    draws = np.asarray(sample(jax.random.split(jax.random.key(0), SAMPLES)))
    assert draws.dtype == dtype
    parts = np.concatenate([draws.real, draws.imag][: n // 3], -1).astype(np.float64) / RADIUS
    sizes = np.linalg.norm(parts, axis=1) if norm == "l2" else np.abs(parts).max(1)
    if on_sphere:
        np.testing.assert_allclose(sizes, 1, rtol=TOLERANCE["float32"])
    else:
        assert sizes.max() <= 1 + TOLERANCE["float32"]
        # P(size <= r) = r^n, so size^n is uniform; in particular E r^2 / R^2 = n / (n + 2).
        np.testing.assert_allclose(np.mean(sizes**2), n / (n + 2), atol=5 / np.sqrt(12 * SAMPLES))
        np.testing.assert_allclose(np.mean(sizes**n), 0.5, atol=5 / np.sqrt(12 * SAMPLES))
    # Directions: no entry and no sign is preferred.
    assert np.abs(parts.mean(0)).max() < 5 / np.sqrt(SAMPLES)
    second = (parts**2).mean(0)
    np.testing.assert_allclose(second, second.mean(), atol=5 / np.sqrt(SAMPLES))
    moments = {
        ("l2", True): 1 / n,
        ("l2", False): 1 / (n + 2),
        ("linf", False): 1 / 3,
        # One entry of n is at its bound, the others are uniform.
        ("linf", True): (1 + (n - 1) / 3) / n,
    }
    np.testing.assert_allclose(second.mean(), moments[norm, on_sphere], atol=5 / np.sqrt(SAMPLES))


def test_random_attack_draws_what_its_ball_draws():
    objective, y = problem("float32")
    delta, _ = run(random(ball("linf"), on_sphere=True), objective, y, seed=4)
    close(delta, ball("linf").sample(jax.random.key(4), y, on_sphere=True))


def test_start_is_used_without_a_random_start():
    objective = lambda delta: jnp.sum(delta)
    start = 0.1 * normal(0, *SHAPE)
    attack = pgd(ball("l2"), num_steps=2, restarts=2, first="given")
    _, info = attack(objective, start, jax.random.key(0))
    near(info.history[0, 0], jnp.sum(start), TOLERANCE["float32"])
    assert info.history[1, 0] != info.history[0, 0]


def test_first_point_is_that_of_fgsm():
    objective, y = problem("float32")
    _, step = run(fgsm(ball("l2")), objective, y)
    _, climb = run(pgd(ball("l2"), num_steps=2, restarts=2), objective, y)
    near(climb.history[0, 0], step.value, TOLERANCE["float32"])
    assert climb.value >= step.value and climb.history[1, 0] != climb.history[0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pgd(ball("l2"), num_steps=0), "num_steps must be at least 1, got 0"),
        (lambda: pgd(ball("l2"), first="zero"), "first must be one of .*'random'.*got 'zero'"),
        (lambda: pgd(ball("l2"), restarts=0), "restarts must be at least 1, got 0"),
        (lambda: pgd(ball("l2"), step_size=0.0), "step_size must be positive, got 0.0"),
        (lambda: pgd(ball("l2"), step_size=float("nan")), "step_size must be positive, got nan"),
        (lambda: Threat(1.0, norm="l1"), "norm must be one of .*'linf'.*got 'l1'"),
        (lambda: Threat(1.0, space="image"), "space must be one of .*'signal'.*got 'image'"),
        (lambda: Threat(1.0, unit="percent"), "unit must be one of .*'relative'.*got 'percent'"),
        (lambda: Threat(-1.0), "epsilon must be finite and non-negative, got -1.0"),
        (lambda: Threat(float("inf")), "epsilon must be finite and non-negative, got inf"),
        (lambda: Threat(np.array([1.0, -2.0])), "epsilon must be finite and non-negative"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_expectation_is_the_mean_of_objectives_and_of_their_gradients():
    """Of a smoothed reconstruction, whose noise is the same in every step of the attack."""
    x, y = normal(2, *SHAPE), normal(3, *SHAPE)
    smoothed = smooth(network, Smoothing(0.5, 2))

    def objective_of(key):
        reconstruct = lambda measurement: smoothed(measurement, key)
        return reconstruction_error(reconstruct, dense(jnp.eye(SHAPE[0])), x, y)

    objective = expectation(objective_of, key=jax.random.key(0), num_draws=3)
    each = jax.vmap(
        lambda s, delta: jax.value_and_grad(objective_of(jax.random.fold_in(jax.random.key(0), s)))(
            delta
        ),
        (0, None),
    )
    delta = 0.1 * normal(4, *SHAPE)
    values, gradients = jax.jit(each)(jnp.arange(3), delta)
    assert np.ptp(values) > 0
    run = jax.jit(jax.value_and_grad(objective))
    close(run(delta), (values.mean(), gradients.mean(axis=0)))
    equal(run(delta), run(delta))
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        expectation(objective_of, key=jax.random.key(0), num_draws=0)
