"""Single-coil Cartesian MRI: the transform against its definition, the operator, its inverse."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, close, counted, equal, near, normal, precision
from helpers import tolerance as tolerance_of

from jitter_jax.operators import (
    cartesian_mri,
    cartesian_mri_repo,
    centred_fft2,
    centred_ifft2,
    compose,
    dense,
    dot_test,
    identity,
    operator_norm,
)
from jitter_jax.operators import normal as normal_operator
from jitter_jax.solvers import solve_cartesian_mri

SHAPES = [(8, 6), (7, 5), (6, 9), (1, 4)]
every_shape = pytest.mark.parametrize("shape", SHAPES)
both_precisions = pytest.mark.parametrize("dtype", ["complex64", "complex128"])


def mask_of(shape, seed=0):
    """About half of the points, the centre among them."""
    mask = np.random.default_rng(seed).random(shape) < 0.5
    mask[shape[0] // 2, shape[1] // 2] = True
    return mask


def fourier_matrix(n):
    """The centred unitary transform of one axis, entry by entry."""
    position = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(position, position) / n) / np.sqrt(n)


@every_shape
def test_transform_is_its_definition(shape):
    x = normal(0, *shape, 2, dtype="complex64")
    rows, columns = (fourier_matrix(n) for n in shape)
    expected = np.einsum("ai,bj,ijc->abc", rows, columns, np.asarray(x))
    near(centred_fft2(x), expected, TOLERANCE["float32"])
    near(centred_ifft2(centred_fft2(x)), x, TOLERANCE["float32"])
    constant = centred_fft2(jnp.ones((*shape, 1), "complex64"))
    assert abs(constant[shape[0] // 2, shape[1] // 2, 0] - np.sqrt(np.prod(shape))) < 1e-5


@every_shape
@both_precisions
def test_linear_with_exact_adjoint(shape, dtype):
    with precision(dtype):
        operator = cartesian_mri(mask_of(shape))
        x, y = (normal(seed, *shape, 1, dtype=dtype) for seed in (1, 2))
        forward, adjoint = jax.jit(lambda o, x, y: (o.forward(x), o.adjoint(y)))(operator, x, y)
        assert forward.dtype == adjoint.dtype == dtype
        gap = abs(np.vdot(forward, y) - np.vdot(x, adjoint))
        assert gap < tolerance_of(dtype) * np.linalg.norm(x) * np.linalg.norm(y)
        assert (np.asarray(forward)[~mask_of(shape)] == 0).all()
        near(operator.forward(operator.adjoint(y)), mask_of(shape)[..., None] * y, 1e-5)
        error = dot_test(operator, (*shape, 1), key=jax.random.key(0), dtype=dtype)
        assert error < tolerance_of(dtype)
        norm = operator_norm(operator, (*shape, 1), key=jax.random.key(1), dtype=dtype)
        near(norm, 1.0, TOLERANCE["float32"])


def test_mask_for_each_signal():
    masks = np.stack([mask_of((6, 5), seed) for seed in range(3)])
    xs = normal(1, 3, 6, 5, 1, dtype="complex64")
    function, traces = counted(jax.vmap(lambda operator, x: operator.forward(x)))
    batched = jax.jit(function)
    operators = jax.vmap(cartesian_mri)(jnp.asarray(masks))
    looped = jnp.stack([cartesian_mri(m).forward(x) for m, x in zip(masks, xs, strict=True)])
    close(batched(operators, xs), looped)
    batched(jax.vmap(cartesian_mri)(jnp.asarray(~masks)), xs)
    assert len(traces) == 1  # masks are leaves: others compile nothing anew


@pytest.mark.parametrize("axis", [0, 1])
def test_a_side_of_one_stands_for_lines(axis):
    lines = np.array([True, False, True, True, False, False])
    short = lines[:, None] if axis == 0 else lines[None, :]
    x = normal(0, 6, 6, 1, dtype="complex64")
    whole = cartesian_mri(np.broadcast_to(short, (6, 6)))
    close(cartesian_mri(short).forward(x), whole.forward(x))
    close(cartesian_mri(short).adjoint(x), whole.adjoint(x))
    close(
        solve_cartesian_mri(short, x, regularisation=0.5),
        solve_cartesian_mri(whole.leaves, x, regularisation=0.5),
    )


def test_support_is_what_is_sampled():
    mask = mask_of((6, 5))
    equal(cartesian_mri(mask).support(), mask[..., None])
    equal(cartesian_mri(3.0 * mask).support(), mask[..., None])
    assert identity().support() is None and cartesian_mri_repo(mask).support() is None
    assert normal_operator(cartesian_mri(mask)).support() is None
    product = compose(cartesian_mri(mask), dense(jnp.eye(6)))
    equal(product.support(), mask[..., None])
    assert compose(dense(jnp.eye(6)), cartesian_mri(mask)).support() is None


def test_repo_reading_is_not_an_adjoint():
    mask, shape = mask_of((32, 32)), (32, 32, 1)
    operator, right = cartesian_mri_repo(mask), cartesian_mri(mask)
    x, y = (normal(seed, *shape, dtype="complex64") for seed in (1, 2))
    close(operator.forward(x), right.forward(x))
    assert dot_test(operator, shape, key=jax.random.key(0), dtype="complex64") > 1e-3
    # It keeps the whole energy of white noise, of which an adjoint keeps what was sampled.
    ratio = np.linalg.norm(operator.adjoint(y)) / np.linalg.norm(y)
    near(ratio, 1.0, TOLERANCE["float32"])
    share = np.linalg.norm(right.adjoint(y)) / np.linalg.norm(y)
    near(share, np.sqrt(mask.mean()), 0.05)  # a random share of the energy, 512 points of 1024


@every_shape
@both_precisions
@pytest.mark.parametrize("regularisation", [0.05, 1.0])
def test_closed_form_inverse(shape, dtype, regularisation):
    with precision(dtype):
        operator = cartesian_mri(mask_of(shape))
        b = normal(3, *shape, 1, dtype=dtype)
        solve = partial(solve_cartesian_mri, mask_of(shape), b)
        x = solve(regularisation=regularisation)
        again = operator.adjoint(operator.forward(x)) + regularisation * x
        assert x.dtype == dtype
        near(again, b, 10 * tolerance_of(dtype))  # divided by 0.05 and multiplied again
        traced = jax.jit(lambda r: solve(regularisation=r))
        close(traced(jnp.asarray(regularisation, b.real.dtype)), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cartesian_mri(np.ones(4)), r"mask must have shape \(height, width\), got \(4,\)"),
        (lambda: cartesian_mri_repo(np.ones((2, 2, 1))), r"got \(2, 2, 1\)"),
        (
            lambda: solve_cartesian_mri(np.ones((2, 2)), jnp.ones((2, 2, 1)), regularisation=0.0),
            "regularisation must be positive, got 0.0",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
