"""Half-quadratic splitting against dense matrices, and its three ways to solve the data step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, check_gradient, close, equal, near, normal

from jitter_jax.operators import cartesian_mri, cartesian_mri_repo, dense, normalise_maps, sense
from jitter_jax.unroll import (
    by_conjugate_gradients,
    by_conjugate_gradients_to_tolerance,
    half_quadratic,
    in_closed_form,
    jitter,
)

LAMBDA = 0.4
SHAPE = (5, 4, 1)
MASK = np.random.default_rng(0).random(SHAPE[:2]) < 0.6


def learned(params, x):
    """A small denoiser that is not linear."""
    mixed = jnp.einsum("ij,jwc->iwc", params["weights"].astype(x.dtype), x) + params["bias"]
    return jax.lax.complex(jnp.tanh(mixed.real), jnp.sin(mixed.imag))


def parameters(dtype="float32"):
    return {
        "weights": 0.5 * normal(0, SHAPE[0], SHAPE[0], dtype=dtype),
        "bias": 0.3 * normal(1, *SHAPE, dtype=dtype),
    }


def multi_coil(dtype="complex64"):
    operator = sense(MASK, normalise_maps(normal(2, *SHAPE[:2], 3, dtype=dtype)))
    return operator, normal(3, *SHAPE[:2], 3, dtype=dtype)


def single_coil(dtype="complex64"):
    return cartesian_mri(MASK), normal(3, *SHAPE, dtype=dtype)


def matrix_of(operator, dtype):
    """The matrix of an operator, column by column."""
    size = np.prod(SHAPE)
    basis = jnp.eye(size, dtype=dtype).reshape(size, *SHAPE)
    return np.asarray(jax.vmap(operator.forward)(basis)).reshape(size, -1).T


def reconstruct(operator, y, **options):
    params = parameters(y.real.dtype)
    options = {"regularisation": LAMBDA, "num_iterations": 3, **options}
    return half_quadratic(lambda x: learned(params, x), operator, y, **options)


SOLVES = {
    "fixed": by_conjugate_gradients(2 * SHAPE[0] * SHAPE[1]),
    "to_tolerance": by_conjugate_gradients_to_tolerance(1e-13),
    "closed": in_closed_form,
}


@pytest.mark.parametrize("name", SOLVES)
@pytest.mark.parametrize("noisy", [False, True])
def test_is_a_loop_over_dense_solutions(name, noisy):
    with jax.enable_x64(True):
        problem = single_coil if name == "closed" else multi_coil
        operator, y = problem("complex128")
        draws = normal(7, 3, *SHAPE, dtype="complex128")
        # Knows what the jitter is shown: the denoised iterate, and the number of the iteration.
        draw = lambda key, iterate, k, num_iterations: 0.3 * iterate + draws[k] / num_iterations
        options = dict(key=jax.random.key(0), jitter=draw) if noisy else {}
        run = jax.jit(
            lambda y: reconstruct(
                operator, y, solve=SOLVES[name], return_trajectory=True, **options
            )
        )
        a = matrix_of(operator, "complex128")
        normal_matrix = a.conj().T @ a + LAMBDA * np.eye(a.shape[1])
        back_projection = a.conj().T @ np.ravel(y)
        expected, params = [back_projection], parameters("float64")
        for k in range(3):
            denoised = np.ravel(learned(params, expected[-1].reshape(SHAPE)))
            noise = 0.3 * denoised + np.ravel(draws[k]) / 3 if noisy else 0
            expected.append(
                np.linalg.solve(normal_matrix, back_projection + LAMBDA * denoised - noise)
            )
        near(run(y), np.reshape(expected, (4, *SHAPE)), 1e-10)


def test_data_step_minimises_its_objective():
    with jax.enable_x64(True):
        operator, y = multi_coil("complex128")
        denoised, noise = (normal(seed, *SHAPE, dtype="complex128") for seed in (4, 5))
        x = half_quadratic(
            lambda x: denoised,
            operator,
            y,
            regularisation=LAMBDA,
            num_iterations=1,
            solve=SOLVES["fixed"],
            key=jax.random.key(0),
            jitter=lambda *_: noise,
        )

        def objective(x):
            misfit = jnp.sum(jnp.abs(operator.forward(x) - y) ** 2) / 2
            distance = jnp.sum(jnp.abs(x - denoised) ** 2) / 2
            return misfit + LAMBDA * distance + jnp.sum((noise.conj() * x).real)

        assert np.abs(jax.grad(objective)(x)).max() < 1e-10
        assert np.abs(jax.grad(objective)(x + 0.1)).max() > 1e-2


def test_every_solve_agrees_for_one_coil_also_in_its_gradient():
    operator, y = single_coil()

    def value(y, regularisation, solve):
        x = reconstruct(operator, y, regularisation=regularisation, solve=solve)
        return jnp.sum(jnp.abs(x - 1) ** 2), x

    run = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True), static_argnums=2)
    expected = run(y, jnp.float32(LAMBDA), in_closed_form)
    for solve in (by_conjugate_gradients(4), by_conjugate_gradients_to_tolerance()):
        close(run(y, jnp.float32(LAMBDA), solve), expected, loosen=10)


def test_ten_iterations_from_the_denoised_iterate_by_default():
    operator, y = multi_coil()
    equal(reconstruct(operator, y), reconstruct(operator, y, solve=by_conjugate_gradients(10)))
    starts = []

    def solve(operator, b, regularisation, start):
        starts.append(start)
        return start

    params = parameters()
    x = normal(4, *SHAPE, dtype="complex64")
    close(reconstruct(operator, y, num_iterations=1, start=x, solve=solve), learned(params, x))
    assert len(starts) == 1


def test_gradient_against_finite_differences():
    with jax.enable_x64(True):
        _, y = multi_coil("complex128")

        def value(params, maps, y, regularisation):
            x = half_quadratic(
                lambda x: learned(params, x),
                sense(MASK, maps),
                y,
                regularisation=regularisation,
                num_iterations=2,
                solve=by_conjugate_gradients(3),
                key=jax.random.key(0),
                jitter=jitter.absolute(0.2),
            )
            return jnp.sum(jnp.sin(x.real)) + jnp.sum(x.imag**3)

        maps = normalise_maps(normal(2, *SHAPE[:2], 3, dtype="complex128"))
        check_gradient(value, parameters("float64"), maps, y, jnp.asarray(LAMBDA))


def test_jitter():
    operator, y = multi_coil()

    @jax.jit
    def run(seed, level):
        draw = lambda key, *rest: level * jitter.relative(0.1)(key, *rest)
        return reconstruct(operator, y, key=jax.random.key(seed), jitter=draw)

    clean = jax.jit(lambda y: reconstruct(operator, y))(y)
    close(run(0, 0.0), clean)
    equal(run(0, 1.0), run(0, 1.0))
    near_clean, other = run(0, 1.0), run(1, 1.0)
    assert np.abs(near_clean - clean).min() > 0
    assert np.abs(near_clean - other).min() > 0
    # `w / lambda` moves the first iterate: of the order of the level, not more.
    assert np.abs(near_clean - clean).max() < 2


def test_back_projection_stands_for_the_measurement():
    operator, y = multi_coil()
    other = normal(8, *y.shape, dtype="complex64")
    run = jax.jit(lambda y, x, b: reconstruct(operator, y, start=x, back_projection=b))
    expected = reconstruct(operator, other)
    close(run(y, None, operator.adjoint(other)), expected, loosen=2)
    # The first iterate is the back projection unless a start is given.
    start = operator.adjoint(y)
    close(
        run(y, start, operator.adjoint(other)), reconstruct(operator, other, start=start), loosen=2
    )
    assert np.abs(run(y, start, operator.adjoint(other)) - expected).max() > 1e-3


def test_remat_changes_nothing():
    operator, y = single_coil()

    def value(y, remat):
        x = reconstruct(operator, y, remat=remat, solve=by_conjugate_gradients(2))
        return jnp.sum(jnp.abs(x - 1) ** 2), x

    run = jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=1)
    close(run(y, False), run(y, True))


def test_trajectory_ends_with_the_result():
    operator, y = single_coil()
    start = normal(4, *SHAPE, dtype="complex64")
    trajectory = reconstruct(operator, y, start=start, return_trajectory=True)
    assert trajectory.shape == (4, *SHAPE)
    equal(trajectory[0], start)
    close(reconstruct(operator, y, start=start), trajectory[-1])


def test_step_key_and_aux():
    operator, y = multi_coil()
    params = parameters()

    def noisy(x, key):
        draw = jax.random.normal(key, SHAPE)
        return learned(params, x + 0.1 * draw), jnp.mean(draw)

    run = jax.jit(
        lambda key: half_quadratic(
            noisy,
            operator,
            y,
            regularisation=LAMBDA,
            num_iterations=3,
            step_key=key,
            has_aux=True,
        )
    )
    x, aux = run(jax.random.key(0))
    again, same = run(jax.random.key(0))
    equal((x, aux), (again, same))
    assert x.shape == SHAPE and aux.shape == (3,)
    assert len(set(np.asarray(aux).tolist())) == 3  # new noise in every iteration
    assert np.abs(x - run(jax.random.key(1))[0]).max() > 1e-3


def test_batches_of_masks_maps_and_regularisations():
    masks = jnp.stack([jnp.asarray(MASK), jnp.asarray(~MASK)])
    maps = normalise_maps(normal(2, 2, *SHAPE[:2], 3, dtype="complex64"))
    ys, lambdas = normal(3, 2, *SHAPE[:2], 3, dtype="complex64"), jnp.array([0.1, 2.0])

    @jax.jit
    def run(mask, maps, y, regularisation):
        return reconstruct(sense(mask, maps), y, regularisation=regularisation)

    batch = jax.jit(jax.vmap(run))(masks, maps, ys, lambdas)
    for i in range(2):
        close(batch[i], run(masks[i], maps[i], ys[i], lambdas[i]))
    closed = jax.vmap(
        lambda mask, y: reconstruct(cartesian_mri(mask), y[..., :1], solve=in_closed_form)
    )(masks, ys)
    near(
        closed[1],
        reconstruct(cartesian_mri(~MASK), ys[1, ..., :1], solve=in_closed_form),
        TOLERANCE["float32"],
    )


def test_closed_form_refuses_other_operators():
    for operator, y in (
        multi_coil(),
        (cartesian_mri_repo(MASK), single_coil()[1]),
        (dense(jnp.eye(SHAPE[0])), single_coil()[1]),
    ):
        with pytest.raises(ValueError, match=r"in_closed_form needs an operator of .*cartesian"):
            in_closed_form(operator, operator.adjoint(y), LAMBDA, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regularisation": 0.0}, "regularisation must be positive, got 0.0"),
        ({"regularisation": -1, "solve": in_closed_form}, "regularisation must be positive"),
        ({"num_iterations": 0}, "num_iterations must be at least 1, got 0"),
        ({"jitter": jitter.absolute(0.1)}, "jitter came without key"),
        ({"solve": by_conjugate_gradients(0)}, "num_iterations must be at least 1, got 0"),
        ({"solve": by_conjugate_gradients_to_tolerance(-1.0)}, "tolerance must be positive"),
    ],
)
def test_errors_name_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(*single_coil(), **options)


def test_learned_step_must_keep_the_shape():
    operator, y = single_coil()
    with pytest.raises(ValueError, match="learned_step must keep the shape"):
        half_quadratic(lambda x: x[:1], operator, y, regularisation=LAMBDA)
