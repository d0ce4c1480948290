"""Both unrolled methods against a Python loop, and under every transformation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from helpers import TOLERANCE, check_gradient, close, counted, equal, normal

from jitter_jax.operators import convolution, dense, identity
from jitter_jax.unroll import gradient_descent, jitter, proximal_gradient, unroll

ETA = 0.2
SHAPE = (6, 2)


def gradient_loop(f, operator, y, noises, x):
    """`x <- x - eta (A^H (A x - y) + f(x) + w)`, written again."""
    for w in noises:
        x = x - ETA * (operator.adjoint(operator.forward(x) - y) + f(x) + w)
        yield x


def proximal_loop(f, operator, y, noises, x):
    """`x <- f(x - eta (A^H (A x - y) + w))`, written again."""
    for w in noises:
        x = f(x - ETA * (operator.adjoint(operator.forward(x) - y) + w))
        yield x


METHODS = {
    "gradient": (gradient_descent, gradient_loop),
    "proximal": (proximal_gradient, proximal_loop),
}
every_method = pytest.mark.parametrize("name", METHODS)


def learned(params, x):
    """A small nonlinear step of real or complex signals."""
    mixed = jnp.tensordot(params["weights"].astype(x.dtype), x, axes=1) + params["bias"]
    return (
        jnp.tanh(mixed.real) + 1j * jnp.tanh(mixed.imag) if jnp.iscomplexobj(x) else jnp.tanh(mixed)
    )


def parameters(dtype="float32"):
    return {
        "weights": 0.5 * normal(0, SHAPE[0], SHAPE[0], dtype=dtype),
        "bias": 0.3 * normal(1, *SHAPE, dtype=dtype),
    }


def fixed_noise(scale=0.5, dtype="float32"):
    """A jitter that ignores its key: the noise of every iteration is known to the test."""
    draws = scale * normal(7, 12, *SHAPE, dtype=dtype)
    return draws, lambda key, iterate, k, num_iterations: draws[k]


def reconstruct(name, params, operator, y, **options):
    method, _ = METHODS[name]
    return method(lambda x: learned(params, x), operator, y, step_size=ETA, **options)


def problem(dtype="float32"):
    operator = convolution(normal(3, 4, dtype=dtype) / 2)
    return (
        parameters("float64" if dtype == "float64" else "float32"),
        operator,
        normal(4, *SHAPE, dtype=dtype),
    )


@every_method
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("num_iterations", [1, 10])
@pytest.mark.parametrize("noisy", [False, True])
def test_scan_equals_python_loop(name, dtype, num_iterations, noisy):
    params, operator, y = problem(dtype)
    draws, draw = fixed_noise(dtype=dtype)
    noises = draws[:num_iterations] if noisy else jnp.zeros_like(draws[:num_iterations])
    options = dict(key=jax.random.key(0), jitter=draw) if noisy else {}
    run = jax.jit(
        lambda y: reconstruct(name, params, operator, y, num_iterations=num_iterations, **options)
    )
    loop = METHODS[name][1]
    start = operator.adjoint(y)
    expected = [*loop(lambda x: learned(params, x), operator, y, noises, start)][-1]
    close(run(y), expected)


@every_method
def test_trajectory_holds_every_iterate(name):
    params, operator, y = problem()
    start = normal(9, *SHAPE)
    run = lambda **options: reconstruct(name, params, operator, y, start=start, **options)
    trajectory = run(num_iterations=4, return_trajectory=True)
    assert trajectory.shape == (5, *SHAPE)
    equal(trajectory[0], start)
    loop = METHODS[name][1]
    expected = [*loop(lambda x: learned(params, x), operator, y, jnp.zeros((4, *SHAPE)), start)]
    close(trajectory[1:], jnp.stack(expected))
    close(run(num_iterations=4), trajectory[-1])
    close(run(num_iterations=2), trajectory[2])


@every_method
def test_first_jittered_iterates_do_not_depend_on_how_many_follow(name):
    params, operator, y = problem()

    def run(num_iterations, seed):
        return reconstruct(
            name,
            params,
            operator,
            y,
            num_iterations=num_iterations,
            key=jax.random.key(seed),
            jitter=jitter.absolute(0.3),
            return_trajectory=True,
        )

    short, long = run(3, 1), run(7, 1)
    close(short, long[:4])
    assert float(jnp.abs(run(3, 2)[1:] - short[1:]).min()) > 0  # the key matters from the first on


@every_method
@pytest.mark.parametrize("kind", ["absolute", "relative", "unit_norm", "repo"])
def test_jitter_of_level_zero_is_no_jitter(name, kind):
    params, operator, y = problem()
    draw = getattr(jitter, kind)(0.0)

    def run(y, **options):
        return reconstruct(name, params, operator, y, num_iterations=3, **options)

    noisy = jax.vmap(lambda y: run(y, key=jax.random.key(0), jitter=draw), axis_name="batch")
    # Operation by operation: two compiled programs may fuse, and so round, differently.
    with jax.disable_jit():
        equal(noisy(y[None])[0], jax.vmap(run)(y[None])[0])


@every_method
@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_gradient_against_finite_differences(name, kind):
    with jax.enable_x64(True):
        params, operator, y = problem("float64")
        draw = getattr(jitter, kind)(0.0 if kind == "relative" else 0.2)

        def value(params, operator, y, eta):
            method, _ = METHODS[name]
            x = method(
                lambda x: learned(params, x),
                operator,
                y,
                step_size=eta,
                num_iterations=4,
                key=jax.random.key(0),
                jitter=draw,
            )
            return jnp.sum(jnp.sin(x))

        check_gradient(value, params, operator, y, jnp.asarray(ETA, jnp.float64))


@every_method
def test_gradient_of_a_complex_reconstruction(name):
    with jax.enable_x64(True):
        _, operator, y = problem("complex128")
        params = parameters("float64")

        def value(params, y):
            x = reconstruct(name, params, operator, y, num_iterations=3)
            return jnp.sum(jnp.abs(x - 1) ** 2)

        check_gradient(value, params, y)


@every_method
def test_remat_changes_nothing(name):
    params, operator, y = problem()

    def value(params, y, remat):
        x = reconstruct(
            name,
            params,
            operator,
            y,
            num_iterations=5,
            remat=remat,
            key=jax.random.key(3),
            jitter=jitter.relative(0.1),
        )
        return jnp.sum(x**2), x

    run = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True), static_argnums=2)
    close(run(params, y, True), run(params, y, False))


@every_method
def test_vmap_equals_loop_and_jit_equals_eager(name):
    params, operator, _ = problem()
    ys = normal(5, 3, *SHAPE)
    keys = lambda: jax.random.split(jax.random.key(2), 3)

    def run(y, key):
        return reconstruct(
            name, params, operator, y, num_iterations=3, key=key, jitter=jitter.relative(0.2)
        )

    looped = jnp.stack([run(y, key) for y, key in zip(ys, keys(), strict=True)])
    close(jax.vmap(run)(ys, keys()), looped)
    function, traces = counted(run)
    compiled = jax.jit(function)
    close(jnp.stack([compiled(y, key) for y, key in zip(ys, keys(), strict=True)]), looped)
    assert len(traces) == 1


class LinenStep(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.tanh(nn.Dense(x.shape[-1])(x))


def linen_step():
    module = LinenStep()
    params = module.init(jax.random.key(0), jnp.ones(SHAPE))
    return params, module.apply


def equinox_step():
    module = eqx.nn.Linear(SHAPE[1], SHAPE[1], key=jax.random.key(0))
    return module, lambda module, x: jnp.tanh(jax.vmap(module)(x))


def nnx_step():
    graph, state = nnx.split(nnx.Linear(SHAPE[1], SHAPE[1], rngs=nnx.Rngs(0)))
    return state, lambda state, x: jnp.tanh(nnx.merge(graph, state)(x))


def lambda_step():
    return jnp.float32(0.3), lambda scale, x: jnp.tanh(scale * x)


STEPS = {"lambda": lambda_step, "linen": linen_step, "equinox": equinox_step, "nnx": nnx_step}


@every_method
@pytest.mark.parametrize("library", STEPS)
def test_any_library_gives_the_learned_step(name, library):
    params, apply = STEPS[library]()
    operator, y = dense(normal(0, 4, SHAPE[0])), normal(1, 4, SHAPE[1])
    method, loop = METHODS[name]

    @eqx.filter_jit
    def run(params):
        return method(lambda x: apply(params, x), operator, y, step_size=ETA, num_iterations=3)

    noises, start = jnp.zeros((3, *SHAPE)), operator.adjoint(y)
    close(run(params), [*loop(lambda x: apply(params, x), operator, y, noises, start)][-1])
    gradient = eqx.filter_grad(lambda params: jnp.sum(run(params) ** 2))(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))


def test_bound_modules_are_learned_steps():
    linear = nnx.Linear(SHAPE[1], SHAPE[1], rngs=nnx.Rngs(0))
    y = normal(0, *SHAPE)
    expected = [*gradient_loop(linear, identity(), y, jnp.zeros((2, *SHAPE)), y)][-1]
    close(gradient_descent(linear, identity(), y, step_size=ETA, num_iterations=2), expected)


@every_method
@pytest.mark.parametrize("remat", [False, True])
def test_forward_mode_equals_reverse_mode(name, remat):
    params, operator, y = problem()
    direction = normal(8, *SHAPE)
    run = lambda y: jnp.sum(
        reconstruct(name, params, operator, y, num_iterations=3, remat=remat) ** 2
    )
    _, forward = jax.jvp(run, (y,), (direction,))
    np.testing.assert_allclose(
        forward, jnp.vdot(jax.grad(run)(y), direction), rtol=TOLERANCE["float32"]
    )


def test_unroll_counts_and_splits_its_key():
    seen = unroll(
        lambda x, k, key: (x + 10.0**k + jax.random.uniform(key), None),
        jnp.zeros(()),
        num_iterations=3,
        key=jax.random.key(0),
        return_trajectory=True,
    )
    fractions = jnp.diff(seen) - jnp.array([1.0, 10.0, 100.0])
    assert (fractions > 0).all() and (fractions < 1).all()
    assert len(set(np.asarray(fractions).tolist())) == 3
    without = unroll(lambda x, k, key: (x + (key is None), None), jnp.zeros(()), num_iterations=2)
    assert without == 2


@pytest.mark.parametrize("remat", [True, False])
def test_unroll_collects_what_iterations_give_beside_the_iterate(remat):
    def iteration(x, k, key):
        return 2 * x, {"before": x, "number": k}

    options = dict(num_iterations=3, remat=remat, has_aux=True)
    x, aux = unroll(iteration, jnp.ones(2), **options)
    equal(x, np.full(2, 8.0))
    equal(aux, {"before": np.array([[1, 1], [2, 2], [4, 4]]), "number": np.arange(3)})
    iterates, _ = unroll(iteration, jnp.ones(2), return_trajectory=True, **options)
    equal(iterates[:-1], aux["before"])


@every_method
def test_errors_name_the_value(name):
    params, operator, y = problem()
    with pytest.raises(ValueError, match="num_iterations must be at least 1, got 0"):
        reconstruct(name, params, operator, y, num_iterations=0)
    with pytest.raises(ValueError, match="key came without jitter"):
        reconstruct(name, params, operator, y, key=jax.random.key(0))
    with pytest.raises(ValueError, match="jitter came without key"):
        reconstruct(name, params, operator, y, jitter=jitter.absolute(1.0))


WRONG_STEPS = {
    "one entry for all": (lambda x: jnp.ones(1, x.dtype), r"\(6, 2\) float32, got \(1,\) float32"),
    "a scalar": (lambda x: 0.0, r"\(6, 2\) float32, got \(\) float32"),
    "more channels": (lambda x: jnp.concatenate([x, x], -1), r"got \(6, 4\) float32"),
    "a batch axis": (lambda x: x[None], r"got \(1, 6, 2\) float32"),
    "a narrower type": (lambda x: x.astype("bfloat16"), r"got \(6, 2\) bfloat16"),
    "an integer": (lambda x: jnp.ones(x.shape, int), r"got \(6, 2\) int32"),
    "a complex result": (lambda x: x + 0j, r"got \(6, 2\) complex64"),
}


@every_method
@pytest.mark.parametrize("wrong", WRONG_STEPS)
def test_learned_step_keeps_shape_and_dtype(name, wrong):
    step, message = WRONG_STEPS[wrong]
    run = lambda y: METHODS[name][0](step, identity(), y, step_size=ETA)
    y = normal(0, *SHAPE)
    message = "learned_step must keep the shape and dtype of the iterate, .*" + message
    for transformed in (run, jax.jit(run), lambda y: jax.vmap(run)(y[None])):
        with pytest.raises(ValueError, match=message):
            transformed(y)
    with pytest.raises(ValueError, match=message):
        jax.grad(lambda y: run(y).real.sum())(y)


@every_method
def test_learned_step_keeps_the_type_of_a_wide_or_complex_iterate(name):
    run = lambda step, y: METHODS[name][0](step, identity(), y, step_size=ETA)
    with jax.enable_x64(True):
        y = normal(0, *SHAPE, dtype="float64")
        with pytest.raises(ValueError, match=r"float64, got \(6, 2\) float32"):
            run(lambda x: x.astype("float32"), y)
        with pytest.raises(ValueError, match=r"float32, got \(6, 2\) float64"):
            run(lambda x: x * np.float64(2), y.astype("float32"))
    with pytest.raises(ValueError, match=r"complex64, got \(6, 2\) float32"):
        run(lambda x: x.real, normal(0, *SHAPE, dtype="complex64"))


@every_method
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_learned_steps_of_python_numbers_and_numpy_keep_the_type(name, dtype):
    wide = dtype in ("float64", "complex128")
    with jax.enable_x64(wide):
        y = normal(0, *SHAPE, dtype=dtype)
        run = lambda step, y: METHODS[name][0](step, identity(), y, step_size=ETA)
        zero = run(jnp.zeros_like, y)
        assert zero.dtype == dtype
        close(run(lambda x: 0 * x, y), zero)
        close(run(lambda x: 0.0 * x, y), zero)
        close(run(lambda x: np.zeros(x.shape, dtype), y), zero)
    # A start whose type is weak, as of an array filled with a Python number.
    y = jnp.full(SHAPE, 1.0)
    assert y.weak_type
    assert run(lambda x: jnp.tanh(0.5 * x), y).dtype == "float32"


@pytest.mark.parametrize("factor", [0.0, 0.7])
def test_jitter_of_the_proximal_method_has_its_own_factor(factor):
    params, operator, y = problem()
    draws, draw = fixed_noise()
    run = lambda **options: reconstruct(
        "proximal",
        params,
        operator,
        y,
        num_iterations=4,
        key=jax.random.key(0),
        jitter=draw,
        **options,
    )
    # The loop multiplies all by ETA.
    start, noises = operator.adjoint(y), factor / ETA * draws[:4]
    expected = [*proximal_loop(lambda x: learned(params, x), operator, y, noises, start)][-1]
    close(run(noise_step_size=factor), expected)
    equal(run(), run(noise_step_size=ETA))


def test_factor_of_the_jitter_is_learned():
    params, operator, y = problem()
    _, draw = fixed_noise()

    def value(p):
        x = reconstruct(
            "proximal",
            params,
            operator,
            y,
            num_iterations=2,
            key=jax.random.key(0),
            jitter=draw,
            noise_step_size=jnp.exp(p),
        )
        return jnp.sum(x**2)

    slope = jax.jit(jax.grad(value))(jnp.float32(-1))
    assert np.isfinite(slope) and slope != 0
