"""Iterations that share neither weights nor step sizes, against a Python loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import check_gradient, close, counted, equal, normal

from jitter_jax.operators import convolution
from jitter_jax.unroll import gradient_descent, jitter, proximal_gradient, unroll

SHAPE, K = (6, 2), 3
METHODS = {"gradient": gradient_descent, "proximal": proximal_gradient}
every_method = pytest.mark.parametrize("name", METHODS)


def learned(x, phase):
    return jnp.tanh(phase["weights"].astype(x.dtype) @ x + phase["bias"].astype(x.dtype))


def problem(dtype="float32"):
    phases = {
        "weights": 0.5 * normal(0, K, SHAPE[0], SHAPE[0], dtype=dtype),
        "bias": 0.3 * normal(1, K, *SHAPE, dtype=dtype),
    }
    operator = convolution(normal(2, 4, dtype=dtype) / 2)
    return phases, operator, normal(3, *SHAPE, dtype=dtype), jnp.asarray([0.1, 0.2, 0.3], dtype)


def reconstruct(name, phases, operator, y, step_size, **options):
    return METHODS[name](
        learned, operator, y, step_size=step_size, num_iterations=K, phases=phases, **options
    )


def loop(name, phases, operator, y, step_sizes, noises):
    """Yields the iterates, written again."""
    x = operator.adjoint(y)
    for k, (eta, w) in enumerate(zip(step_sizes, noises, strict=True)):
        own = jax.tree.map(lambda leaf, k=k: leaf[k], phases)
        gradient = operator.adjoint(operator.forward(x) - y) + w
        if name == "gradient":
            x = x - eta * (gradient + learned(x, own))
        else:
            x = learned(x - eta * gradient, own)
        yield x


@every_method
@pytest.mark.parametrize(
    ("noisy", "own_step_sizes", "dtype"),
    [(False, False, "float32"), (True, True, "float32"), (True, True, "complex64")],
)
def test_phases_equal_a_python_loop(name, noisy, own_step_sizes, dtype):
    phases, operator, y, step_sizes = problem(dtype)
    step_sizes = step_sizes.real
    noises = normal(4, K, *SHAPE, dtype=dtype) if noisy else jnp.zeros((K, *SHAPE), dtype)
    options = {}
    if noisy:
        options = dict(key=jax.random.key(0), jitter=lambda key, x, k, num_iterations: noises[k])
    eta = step_sizes if own_step_sizes else 0.2
    run = jax.jit(
        lambda y: reconstruct(name, phases, operator, y, eta, return_trajectory=True, **options)
    )
    expected = loop(name, phases, operator, y, step_sizes if own_step_sizes else [0.2] * K, noises)
    close(run(y), jnp.stack([operator.adjoint(y), *expected]))


@every_method
def test_own_step_sizes_need_no_phases(name):
    _, operator, y, step_sizes = problem()
    step = lambda x: 0.5 * x
    run = lambda eta, **options: METHODS[name](
        step, operator, y, step_size=eta, num_iterations=K, **options
    )
    phases = {"factor": jnp.full(K, 0.5)}
    own = METHODS[name](
        lambda x, phase: phase["factor"] * x,
        operator,
        y,
        step_size=step_sizes,
        num_iterations=K,
        phases=phases,
    )
    close(run(step_sizes), own)
    close(run(jnp.full(K, 0.2)), run(0.2))
    assert float(jnp.abs(run(step_sizes) - run(0.2)).max()) > 0.01


@every_method
def test_gradients_reach_every_phase_and_remat_changes_none(name):
    phases, operator, y, step_sizes = problem()

    def value(phases, step_sizes, remat):
        x = reconstruct(
            name,
            phases,
            operator,
            y,
            step_sizes,
            remat=remat,
            key=jax.random.key(0),
            jitter=jitter.relative(0.1),
        )
        return jnp.sum(jnp.sin(x))

    slopes = jax.jit(jax.grad(value, (0, 1)), static_argnums=2)
    kept, recomputed = slopes(phases, step_sizes, False), slopes(phases, step_sizes, True)
    close(kept, recomputed)
    for leaf in jax.tree.leaves(kept):
        assert len(leaf) == K and (jnp.abs(leaf.reshape(K, -1)).max(-1) > 0).all()


@every_method
def test_gradient_against_finite_differences(name):
    with jax.enable_x64(True):
        phases, operator, y, step_sizes = problem("float64")
        value = lambda *args: jnp.sum(jnp.sin(reconstruct(name, *args)))
        check_gradient(value, phases, operator, y, step_sizes)


@every_method
def test_phases_come_before_the_key_of_a_learned_step(name):
    phases, operator, y, _ = problem()
    seen = []

    def step(x, phase, key):
        seen.append((phase["bias"].shape, jnp.issubdtype(key.dtype, jax.dtypes.prng_key)))
        return x + jax.random.normal(key, x.shape), phase["bias"][0, 0]

    x, aux = METHODS[name](
        step,
        operator,
        y,
        step_size=0.1,
        num_iterations=K,
        phases=phases,
        step_key=jax.random.key(0),
        has_aux=True,
    )
    assert seen[0] == (SHAPE, True) and x.shape == SHAPE
    equal(aux, phases["bias"][:, 0, 0])


def test_batches_share_phases_and_compile_once():
    phases, operator, _, step_sizes = problem()
    ys = normal(5, 4, *SHAPE)
    run, traces = counted(
        jax.vmap(lambda y: reconstruct("proximal", phases, operator, y, step_sizes))
    )
    compiled = jax.jit(run)
    looped = [reconstruct("proximal", phases, operator, y, step_sizes) for y in ys]
    close(compiled(ys), jnp.stack(looped))
    compiled(ys + 1)
    assert len(traces) == 1


@every_method
@pytest.mark.parametrize("length", [2, 4])
def test_other_numbers_of_iterations_are_refused(name, length):
    phases, operator, y, step_sizes = problem()
    resized = jax.tree.map(lambda leaf: jnp.resize(leaf, (length, *leaf.shape[1:])), phases)
    message = rf"phases must have a leading axis of num_iterations=3, got .* \[\({length},\)\]"
    with pytest.raises(ValueError, match=message):
        reconstruct(name, resized, operator, y, step_sizes)
    with pytest.raises(ValueError, match=r"got leading axes \[\(\)\]"):
        reconstruct(name, phases | {"scalar": 1.0}, operator, y, step_sizes)
    message = rf"step_size must be a scalar or have shape \(3,\).*, got shape \({length},\)"
    with pytest.raises(ValueError, match=message):
        reconstruct(name, phases, operator, y, jnp.ones(length))
    with pytest.raises(ValueError, match=r"step_size must be .*, got shape \(3, 1\)"):
        reconstruct(name, phases, operator, y, jnp.ones((3, 1)))


def test_unroll_hands_each_iteration_its_own():
    def iteration(x, k, key, phase):
        assert key is None
        return x * phase["factor"] + k, phase["factor"]

    factors = jnp.asarray([2.0, 3.0, 5.0])
    x, aux = unroll(
        iteration, jnp.float32(1), num_iterations=3, phases={"factor": factors}, has_aux=True
    )
    assert x == ((1 * 2 + 0) * 3 + 1) * 5 + 2
    np.testing.assert_array_equal(aux, factors)
