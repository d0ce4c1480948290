"""Conjugate gradients: against dense solutions, Krylov spaces and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, check_gradient, close, equal, near, normal

from jitter_jax.operators import cartesian_mri, dense, sense
from jitter_jax.solvers import (
    conjugate_gradients,
    conjugate_gradients_to_tolerance,
    regularised_normal,
    solve_cartesian_mri,
)

LAMBDA = 0.3
SIZE = 6
SOLVERS = {
    "fixed": lambda matvec, b, **options: conjugate_gradients(
        matvec, b, num_iterations=2 * SIZE, **options
    ),
    "to_tolerance": lambda matvec, b, **options: conjugate_gradients_to_tolerance(
        matvec, b, **options
    )[0],
}
every_solver = pytest.mark.parametrize("name", SOLVERS)


def system(dtype="complex64", seed=0):
    """A Hermitian matrix `A^H A + lambda I`, its product as a function, and a right side."""
    operator = dense(normal(seed, SIZE + 2, SIZE, dtype=dtype) / 3)
    matrix = np.asarray(operator.leaves)
    matrix = matrix.conj().T @ matrix + LAMBDA * np.eye(SIZE)
    return matrix, regularised_normal(operator, LAMBDA), normal(seed + 1, SIZE, dtype=dtype)


@every_solver
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_solves_the_system(name, dtype):
    matrix, matvec, b = system(dtype)
    near(matvec(b), matrix @ np.asarray(b), TOLERANCE["float32"])
    expected = np.linalg.solve(matrix, np.asarray(b))
    for start in (None, normal(5, SIZE, dtype=dtype)):
        x = jax.jit(lambda b, start=start: SOLVERS[name](matvec, b, start=start))(b)
        assert x.dtype == dtype
        near(x, expected, 1e-5)


@pytest.mark.parametrize("num_iterations", [1, 2, 3])
def test_iterates_are_optimal_in_their_krylov_space(num_iterations):
    with jax.enable_x64(True):
        matrix, matvec, b = system("complex128")
        start = normal(5, SIZE, dtype="complex128")
        x = conjugate_gradients(matvec, b, start=start, num_iterations=num_iterations)
        residual = b - matrix @ start
        space = np.stack(
            [np.linalg.matrix_power(matrix, i) @ residual for i in range(num_iterations)], axis=1
        )
        # The least error in the norm of M over start + span(r, M r, ...).
        best = np.linalg.solve(space.conj().T @ matrix @ space, space.conj().T @ residual)
        near(x, start + space @ best, 1e-10)


def test_mri_has_the_closed_form():
    mask = np.random.default_rng(0).random((8, 7)) < 0.5
    b = normal(1, 8, 7, 1, dtype="complex64")
    # Two eigenvalues, lambda and 1 + lambda: two iterations.
    matvec = regularised_normal(cartesian_mri(mask), LAMBDA)
    x = conjugate_gradients(matvec, b, num_iterations=2)
    close(x, solve_cartesian_mri(mask, b, regularisation=LAMBDA), loosen=2)


@every_solver
def test_regularisation_and_right_side_for_each_signal(name):
    operator = dense(normal(0, SIZE + 2, SIZE) / 3)
    matrix = np.asarray(operator.leaves)
    lambdas, bs = jnp.array([0.03, 0.3, 30.0]), normal(1, 3, SIZE)
    solve = lambda b, r: SOLVERS[name](regularised_normal(operator, r), b)
    xs = jax.jit(jax.vmap(solve))(bs, lambdas)
    for x, b, r in zip(xs, bs, lambdas, strict=True):
        expected = np.linalg.solve(matrix.T @ matrix + r * np.eye(SIZE), b)
        near(x, expected, 1e-4)  # the condition number is about 100


def through(solve):
    """Returns `f(x, y, lambda, maps, w)`, one data step from `x`, as a function to differentiate.

    `b = A^H y + lambda x + w` starts at `x`; the gradient with respect to `w` is that of `b` alone.
    """
    mask = np.random.default_rng(0).random((4, 3)) < 0.6

    def data_step(x, y, regularisation, maps, w):
        operator = sense(mask, maps)
        b = operator.adjoint(y) + regularisation * x + w
        return solve(regularised_normal(operator, regularisation), b, x)

    return data_step


def data_step_arguments():
    maps = np.asarray(normal(3, 4, 3, 2, dtype="complex128"))
    return (
        normal(1, 4, 3, 1, dtype="complex128"),
        normal(2, 4, 3, 2, dtype="complex128"),
        jnp.asarray(0.2),
        jnp.asarray(maps / np.linalg.norm(maps, axis=-1, keepdims=True)),
        normal(4, 4, 3, 1, dtype="complex128"),
    )


def smooth(x):
    return jnp.sum(jnp.sin(x.real)) + jnp.sum(x.imag**3)


@pytest.mark.parametrize("num_iterations", [1, 3])
def test_gradient_of_few_iterations_is_of_what_they_compute(num_iterations):
    few = through(
        lambda matvec, b, x: conjugate_gradients(matvec, b, start=x, num_iterations=num_iterations)
    )
    with jax.enable_x64(True):
        check_gradient(lambda *args: smooth(few(*args)), *data_step_arguments())


def test_gradient_to_tolerance_is_that_of_the_solution():
    exact = through(
        lambda matvec, b, x: conjugate_gradients_to_tolerance(matvec, b, start=x, tolerance=1e-13)[
            0
        ]
    )
    few = through(lambda matvec, b, x: conjugate_gradients(matvec, b, start=x, num_iterations=3))
    with jax.enable_x64(True):
        arguments = data_step_arguments()
        value = lambda *args: smooth(exact(*args))
        check_gradient(value, *arguments)
        # The two derivatives are different things while the iterations have not converged.
        right = jax.jit(jax.grad(value, 2))(*arguments)
        wrong = jax.jit(jax.grad(lambda *args: smooth(few(*args)), 2))(*arguments)
        assert abs(right - wrong) > 1e-3 * abs(right)


def test_forward_mode_agrees():
    with jax.enable_x64(True):
        matrix, matvec, b = system("float64")
        start, direction = normal(5, SIZE, dtype="float64"), normal(6, SIZE, dtype="float64")
        for name in SOLVERS:
            solve = lambda b, name=name: SOLVERS[name](matvec, b, start=start)
            _, tangent = jax.jvp(solve, (b,), (direction,))
            near(tangent, np.linalg.solve(matrix, direction), 1e-5)


def gradients(solve, matvec):
    """Returns `(b, start, weights) -> (x, gradients)` of `<weights, solve(b)>`."""

    def value(b, start, weights):
        x = solve(matvec, b, start=start)
        return jnp.sum((weights * x).real), x

    run = jax.value_and_grad(value, (0, 1), has_aux=True)

    def both(b, start, weights):
        (_, x), gradient = run(b, start, weights)
        return x, gradient

    return jax.jit(jax.vmap(both))


@every_solver
def test_degenerate_signals_harm_neither_themselves_nor_their_neighbours(name):
    matrix, matvec, b = system()
    solution = jnp.asarray(np.linalg.solve(matrix, b))
    zero, other = jnp.zeros(SIZE, "complex64"), normal(5, SIZE, dtype="complex64")
    # Usual; b = 0; b = 0 from elsewhere; converged at the start; no weight on the result.
    bs = jnp.stack([b, zero, zero, b, b])
    starts = jnp.stack([other, zero, other, solution, other])
    weights = jnp.stack([other, other, other, other, zero])
    solve = lambda matvec, b, start: (
        conjugate_gradients(matvec, b, start=start, num_iterations=60)
        if name == "fixed"
        else conjugate_gradients_to_tolerance(matvec, b, start=start)[0]
    )
    xs, (by_b, by_start) = gradients(solve, matvec)(bs, starts, weights)
    for array in (xs, by_b, by_start):
        assert np.isfinite(array).all()
    for i in (0, 3, 4):
        near(xs[i], solution, 1e-5)
    equal(xs[1], zero)
    # JAX's gradient of a real function is the conjugate of the usual one.
    expected = np.linalg.solve(matrix.T, other)
    near(by_b[0], expected, 1e-4)
    near(by_b[3], expected, 1e-4)
    equal(by_b[4], zero)
    assert np.abs(by_start[0]).max() < 1e-4  # a converged solution forgets its start
    if name == "to_tolerance":
        equal(xs[2], zero)
        near(by_b[1], expected, 1e-4)
        equal(by_start, jnp.zeros_like(by_start))
    else:
        assert np.abs(xs[2]).max() < 1e-5
        equal(by_b[1], zero)  # frozen from the first iteration on


def test_zero_stops_at_once():
    # Two iterations are too few from elsewhere: a solve that began at `start` would show.
    _, matvec, b = system()
    start = jnp.ones(SIZE, "complex64")
    solve = lambda b: conjugate_gradients_to_tolerance(matvec, b, start=start, max_iterations=2)
    x, info = solve(jnp.zeros_like(b))
    equal(x, jnp.zeros_like(b))
    assert info.relative_residual == 0 and info.converged
    _, pullback = jax.vjp(lambda b: solve(b)[0], b)
    equal(pullback(jnp.zeros_like(b))[0], jnp.zeros_like(b))


@every_solver
@pytest.mark.parametrize("unit", [1e-30, 1e18])
def test_unit_does_not_matter(name, unit):
    # In float32 the squares of the first are zero, those of the second near the largest number;
    # twelve iterations bring residuals down to where a squared divisor would be lost.
    _, matvec, b = system()
    run = gradients(SOLVERS[name], matvec)
    start, weights = normal(5, 1, SIZE, dtype="complex64"), normal(6, 1, SIZE, dtype="complex64")
    x, (by_b, _) = run(b[None], start, weights)
    scaled_x, (scaled_by_b, _) = run(unit * b[None], unit * start, weights)
    near(scaled_x / unit, x, TOLERANCE["float32"])
    near(scaled_by_b, by_b, 1e-4)
    _, (by_b_of_scaled, _) = run(b[None], start, unit * weights)
    near(by_b_of_scaled / unit, by_b, 1e-4)


@every_solver
def test_nan_is_not_hidden(name):
    _, matvec, b = system()
    start = jnp.ones_like(b)
    assert np.isnan(SOLVERS[name](matvec, b.at[1].set(jnp.nan), start=start)).any()
    _, info = conjugate_gradients_to_tolerance(matvec, b.at[1].set(jnp.nan))
    assert np.isnan(info.relative_residual) and not info.converged


def test_start_correct_up_to_rounding_keeps_the_derivative():
    # Data that the start explains: what is left of the residual is rounding noise.
    mask = np.random.default_rng(0).random((8, 6)) < 0.5
    operator = cartesian_mri(mask)
    y = operator.forward(normal(1, 8, 6, 1, dtype="complex64"))
    weights = normal(2, 8, 6, 1, dtype="complex64")

    def value(y, solve):
        start = operator.adjoint(y)
        b = operator.adjoint(y) + LAMBDA * start
        return jnp.sum((weights * solve(b, start)).real)

    matvec = regularised_normal(operator, LAMBDA)
    by_iterations = jax.jit(
        jax.grad(lambda y: value(y, lambda b, x: conjugate_gradients(matvec, b, start=x)))
    )(y)
    in_closed_form = jax.grad(
        lambda y: value(y, lambda b, _: solve_cartesian_mri(mask, b, regularisation=LAMBDA))
    )(y)
    near(by_iterations, in_closed_form, 1e-4)


def test_info_tells_the_truth():
    matrix, matvec, b = system()
    norm = np.linalg.norm(b)

    def solved(**options):
        x, info = conjugate_gradients_to_tolerance(matvec, b, **options)
        true = np.linalg.norm(b - matrix @ np.asarray(x)) / norm
        np.testing.assert_allclose(info.relative_residual, true, rtol=1e-3, atol=1e-7)
        return true, bool(info.converged)

    true, converged = solved(max_iterations=2)
    assert true > 1e-3 and not converged
    true, converged = solved(tolerance=1e-3)
    assert 1e-6 < true <= 1e-3 and converged
    true, converged = solved()
    assert true <= 1e-6 and converged
    true, converged = solved(tolerance=1e-9)
    assert 0 < true < 1e-6 and not converged  # out of reach of float32

    residual = lambda b: conjugate_gradients_to_tolerance(matvec, b)[1].relative_residual
    equal(jax.grad(residual)(b), jnp.zeros_like(b))


def test_each_signal_stops_on_its_own():
    _, matvec, b = system()
    bs = jnp.stack([b, normal(9, SIZE, dtype="complex64")])
    solve = lambda b, start: conjugate_gradients_to_tolerance(
        matvec, b, start=start, tolerance=1e-2
    )[0]
    first, second = solve(bs[0], jnp.zeros_like(b)), solve(bs[1], jnp.zeros_like(b))
    # Beside an easy neighbour, and a hard one.
    close(jax.vmap(solve)(bs, jnp.stack([jnp.zeros_like(b), second]))[0], first)
    close(jax.vmap(solve)(bs, jnp.stack([first, jnp.zeros_like(b)]))[1], second)


def identity(x):
    return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda b: conjugate_gradients(identity, b, num_iterations=0),
            "num_iterations must be at least 1, got 0",
        ),
        (
            lambda b: conjugate_gradients_to_tolerance(identity, b, tolerance=0.0),
            "tolerance must be positive, got 0.0",
        ),
        (
            lambda b: conjugate_gradients_to_tolerance(identity, b, max_iterations=0),
            "max_iterations must be at least 1, got 0",
        ),
        (
            lambda b: regularised_normal(dense(jnp.eye(3)), -1),
            "regularisation must be positive, got -1",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones(3))
