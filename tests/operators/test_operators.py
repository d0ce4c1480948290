"""Every operator of a table: linear, with its exact adjoint, under every transformation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, check_gradient, close, counted, equal, near, normal, precision
from helpers import tolerance as tolerance_of

from jitter_jax.operators import (
    LinearOperator,
    block_sampling,
    blur,
    compose,
    convolution,
    convolution_matrix,
    dense,
    dot_test,
    identity,
    inpainting,
    operator_norm,
    ricker,
    super_resolution,
)
from jitter_jax.operators import normal as normal_operator


def convolved(taps):
    return lambda dtype: convolution(normal(2, taps, dtype=dtype))


def matrix(rows, columns):
    return lambda dtype: dense(normal(1, rows, columns, dtype=dtype))


def composition(dtype):
    return compose(matrix(5, 12)(dtype), convolved(4)(dtype))


def of_an_image(dtype):
    return dense(normal(1, 4, 15, dtype=dtype), shape=(3, 5))


def blocks(dtype):
    return block_sampling(normal(1, 3, 4, dtype=dtype), shape=(3, 5), rows=2)


def blurred(boundary):
    return lambda dtype: blur(normal(1, 2, 3, dtype=dtype), shape=(3, 5), boundary=boundary)


def every_second(dtype):
    return super_resolution(normal(1, 2, 3, dtype=dtype), 2, shape=(3, 5))


# name: (dtype of the leaves -> operator, shape of a signal)
OPERATORS = {
    "identity": (lambda dtype: identity(), (7, 3)),
    "square": (matrix(6, 6), (6, 2)),
    "tall": (matrix(9, 4), (4,)),
    "wide": (matrix(3, 8), (8, 2, 1)),
    "one tap": (convolved(1), (5,)),
    "odd wavelet": (convolved(5), (12, 2)),
    "even wavelet": (convolved(6), (11, 2, 1)),
    "odd wavelet, longer than the signal": (convolved(31), (12,)),
    "even wavelet, longer than the signal": (convolved(30), (13, 2)),
    "odd wavelet by FFT": (convolved(51), (1030, 2)),
    "even wavelet by FFT": (convolved(52), (1029,)),
    "even wavelet by FFT, longer than the signal": (convolved(1300), (1025, 1)),
    "composition": (composition, (12, 2)),
    "composition by FFT": (lambda d: compose(convolved(8)(d), convolved(51)(d)), (1027,)),
    "normal": (lambda dtype: normal_operator(composition(dtype)), (12, 2)),
    "matrix of an image": (of_an_image, (3, 5, 2)),
    "blocks": (blocks, (3, 5, 2)),
    "blur": (blurred("zero"), (3, 5, 2)),
    "periodic blur": (blurred("periodic"), (3, 5, 2)),
    "super-resolution": (every_second, (3, 5, 2)),
    "inpainting": (lambda dtype: inpainting(np.eye(3, 5)), (3, 5, 2)),
}
WITH_LEAVES = [name for name in OPERATORS if name != "identity"]
# Every operator in real arithmetic, one of each form in complex arithmetic too.
COMPLEX_TOO = ["wide", "even wavelet", "odd wavelet by FFT", "composition", "blocks", "blur"]
# (name, dtype of the leaves, dtype of the signal)
CASES = [
    *[(name, dtype, dtype) for name in OPERATORS for dtype in ("float32", "complex64")],
    *[(name, dtype, dtype) for name in COMPLEX_TOO for dtype in ("float64", "complex128")],
    *[(name, "float32", "complex64") for name in COMPLEX_TOO],
]
real_and_some_complex = pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float32") for name in OPERATORS] + [(name, "complex64") for name in COMPLEX_TOO],
)


def made(name, dtype):
    make, shape = OPERATORS[name]
    return make(dtype), shape


def pair(operator, x, y):
    return operator.forward(x), operator.adjoint(y)


def like_measurement(operator, x, seed):
    out = jax.eval_shape(operator.forward, x)
    return normal(seed, *out.shape, dtype=out.dtype)


jitted_pair = jax.jit(pair)
jitted_dot_test = jax.jit(dot_test, static_argnames=("shape", "dtype"))


@pytest.mark.parametrize(("name", "leaves", "dtype"), CASES)
def test_linear_with_exact_adjoint(name, leaves, dtype):
    with precision(dtype):
        operator, shape = made(name, leaves)
        x, other = (normal(seed, *shape, dtype=dtype) for seed in (3, 4))
        y = like_measurement(operator, x, 5)
        scalar = np.asarray(-1.7 + 0.6j if np.iscomplexobj(x) else -1.7, dtype)
        mixed, adjoint = jitted_pair(operator, scalar * x + other, y)
        (of_x, _), (of_other, _) = jitted_pair(operator, x, y), jitted_pair(operator, other, y)
        close(mixed, scalar * of_x + of_other)
        assert mixed.dtype == adjoint.dtype == dtype and adjoint.shape == shape
        size = max(
            np.linalg.norm(of_x) * np.linalg.norm(y), np.linalg.norm(x) * np.linalg.norm(adjoint)
        )
        assert abs(np.vdot(of_x, y) - np.vdot(x, adjoint)) < tolerance_of(dtype) * size


@real_and_some_complex
def test_dot_test_passes(name, dtype):
    operator, shape = made(name, dtype)
    error = jitted_dot_test(operator, shape, key=jax.random.key(5), dtype=dtype)
    assert error.dtype == jnp.float32 and 0 <= error < TOLERANCE["float32"]


@pytest.mark.parametrize("name", ["square", "odd wavelet", "even wavelet by FFT"])
def test_complex_operator_on_a_real_signal(name):
    operator, shape = made(name, "complex64")
    assert operator.forward(normal(0, *shape)).dtype == jnp.complex64
    assert jitted_dot_test(operator, shape, key=jax.random.key(0)) < TOLERANCE["float32"]


def test_matrix_of_an_image_takes_its_pixels_row_by_row():
    matrix, x, y = normal(0, 4, 15), normal(1, 3, 5, 2), normal(2, 4, 2)
    forward, adjoint = pair(dense(matrix, shape=(3, 5)), x, y)
    near(forward, np.asarray(matrix) @ np.asarray(x).reshape(15, 2), TOLERANCE["float32"])
    near(adjoint, (np.asarray(matrix).T @ np.asarray(y)).reshape(3, 5, 2), TOLERANCE["float32"])


def test_dot_test_finds_a_wrong_adjoint():
    right = dense(normal(0, 6, 6))
    wrong = LinearOperator(right.forward_function, right.forward_function, right.leaves)
    assert dot_test(wrong, (6,), key=jax.random.key(0)) > 0.01
    unconjugated = dense(normal(0, 6, 6, dtype="complex64"))
    unconjugated = LinearOperator(
        unconjugated.forward_function, lambda m, y: m.T @ y, unconjugated.leaves
    )
    assert dot_test(unconjugated, (6,), key=jax.random.key(0), dtype="complex64") > 0.01


@real_and_some_complex
def test_jit_equals_eager_and_compiles_once(name, dtype):
    operator, shape = made(name, dtype)
    x = normal(3, *shape, dtype=dtype)
    y = like_measurement(operator, x, 4)
    function, traces = counted(pair)
    compiled = jax.jit(function)
    close(compiled(operator, x, y), pair(operator, x, y))
    compiled(made(name, dtype)[0], 2 * x, y)  # an operator made again is the same to jit
    assert len(traces) == 1


@real_and_some_complex
def test_vmap_equals_loop(name, dtype):
    operator, shape = made(name, dtype)
    xs = normal(3, 3, *shape, dtype=dtype)
    ys = jnp.stack([like_measurement(operator, xs[0], seed) for seed in range(3)])
    batched = jax.jit(jax.vmap(pair, in_axes=(None, 0, 0)))(operator, xs, ys)
    looped = [jitted_pair(operator, x, y) for x, y in zip(xs, ys, strict=True)]
    close(batched, jax.tree.map(lambda *parts: jnp.stack(parts), *looped))


@pytest.mark.parametrize("name", WITH_LEAVES)
def test_vmap_over_operators_equals_loop(name):
    operator, shape = made(name, "float32")
    scales = jnp.array([1.0, -2.0, 0.5])
    operators = [jax.tree.map(lambda leaf, s=s: s * leaf, operator) for s in scales]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *operators)
    xs = normal(3, 3, *shape)
    ys = jnp.stack([like_measurement(operator, xs[0], seed) for seed in range(3)])
    batched = jax.jit(jax.vmap(pair))(stacked, xs, ys)
    looped = [jitted_pair(*parts) for parts in zip(operators, xs, ys, strict=True)]
    close(batched, jax.tree.map(lambda *parts: jnp.stack(parts), *looped))


def test_wavelet_for_each_signal():
    wavelets, xs = normal(0, 3, 4), normal(1, 3, 9)
    results = jax.vmap(LinearOperator.forward)(jax.vmap(convolution)(wavelets), xs)
    for result, wavelet, x in zip(results, wavelets, xs, strict=True):
        near(result, same_convolution(wavelet, x), TOLERANCE["float32"])


@pytest.mark.parametrize("leaves", ["float64", "complex128"])
@pytest.mark.parametrize(
    "name", ["wide", "even wavelet", "even wavelet by FFT", "composition", "normal"]
)
def test_gradient_by_the_leaves(name, leaves):
    with jax.enable_x64(True):
        operator, shape = made(name, leaves)
        x = normal(3, *shape, dtype=leaves)
        y = like_measurement(operator, x, 4)

        def value(operator, x):
            forward, adjoint = pair(operator, x, y)
            return jnp.mean(jnp.abs(forward - 1) ** 2) + jnp.mean(jnp.abs(adjoint * x) ** 2)

        check_gradient(value, operator, x)


def same_convolution(wavelet, x):
    """The central part, as long as x, of NumPy's full convolution in float64."""
    wide = [np.asarray(a, np.result_type(a.dtype, np.float64)) for a in (wavelet, x)]
    centre = (len(wide[0]) - 1) // 2
    return np.convolve(*wide)[centre : centre + len(wide[1])]


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize(
    ("taps", "length"),
    [
        *[(1, 1), (2, 1), (40, 1), (1, 16), (2, 16), (7, 16), (16, 16), (41, 16), (40, 16)],
        *[(8, 1024), (7, 1025), (8, 1025), (1200, 1025), (1201, 1025)],
    ],
)
def test_convolution_equals_numpy(taps, length, dtype):
    wavelet, x = normal(0, taps, dtype=dtype), normal(1, length, dtype=dtype)
    expected = same_convolution(wavelet, x)
    near(jax.jit(LinearOperator.forward)(convolution(wavelet), x), expected, TOLERANCE["float32"])


def test_matrix_and_fft_forms_agree(monkeypatch):
    module = __import__("jitter_jax.operators.convolution", fromlist=["_"])
    for taps in (4, 21):
        operator, x = convolution(normal(0, taps)), normal(1, 9, 2)
        by_matrix = pair(operator, x, x)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_LONGEST_MATRIX", 0)
            close(pair(operator, x, x), by_matrix)


def test_convolution_matrix_is_the_operator():
    wavelet = normal(0, 6, dtype="complex64")
    toeplitz = convolution_matrix(wavelet, 9)
    close(toeplitz, convolution(wavelet).forward(jnp.eye(9, dtype=jnp.complex64)))


def test_dense_and_identity_are_what_they_say():
    a, x, y = (normal(i, *s, dtype="complex64") for i, s in enumerate([(3, 4), (4, 2), (3, 2)]))
    near(dense(a).forward(x), np.asarray(a) @ np.asarray(x), TOLERANCE["float32"])
    near(dense(a).adjoint(y), np.asarray(a).conj().T @ np.asarray(y), TOLERANCE["float32"])
    equal(identity().forward(x), x)
    equal(identity().adjoint(y), y)


def test_compose_applies_the_inner_one_first():
    outer, inner, x = normal(0, 2, 3), normal(1, 3, 4), normal(2, 4)
    product = compose(dense(outer), dense(inner))
    near(product.forward(x), np.asarray(outer) @ (np.asarray(inner) @ x), TOLERANCE["float32"])


@pytest.mark.parametrize("num_points", [1, 2, 51, 80])
@pytest.mark.parametrize("width", [0.7, 4.0])
def test_ricker_formula(num_points, width):
    t = np.array([i - (num_points - 1) / 2 for i in range(num_points)])
    values = (1 - (t / width) ** 2) * np.exp(-0.5 * (t / width) ** 2)
    wavelet = ricker(num_points, width)
    assert wavelet.dtype == np.float32
    near(wavelet, values / values.max(), TOLERANCE["float32"])


def test_ricker_crosses_zero_at_its_width():
    wavelet = ricker(51, 4)
    assert wavelet[25] == 1 and wavelet.argmax() == 25
    assert wavelet[25 - 4] == wavelet[25 + 4] == 0
    assert (wavelet[22:29] > 0).all() and (wavelet[:21] < 0).all() and (wavelet[30:] < 0).all()
    equal(convolution().leaves, jnp.asarray(wavelet))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64"])
@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7)])
def test_operator_norm_of_a_matrix(shape, dtype):
    with precision(dtype):
        a = normal(sum(shape), *shape, dtype=dtype)
        norm = operator_norm(
            dense(a), (shape[1],), key=jax.random.key(0), dtype=dtype, num_iterations=500
        )
        assert norm.dtype == jnp.finfo(dtype).dtype
        np.testing.assert_allclose(norm, np.linalg.norm(a, 2), rtol=tolerance_of(dtype))


def test_operator_norm_of_a_composition_and_of_zero():
    a, b = normal(0, 4, 6), normal(1, 6, 3)
    options = dict(key=jax.random.key(1), num_iterations=500)
    norm = operator_norm(compose(dense(a), dense(b)), (3,), **options)
    np.testing.assert_allclose(norm, np.linalg.norm(a @ b, 2), rtol=TOLERANCE["float32"])
    assert operator_norm(dense(jnp.zeros((4, 3))), (3, 2), key=jax.random.key(2)) == 0
    below = operator_norm(dense(a), (6,), key=jax.random.key(3), num_iterations=1)
    assert 0 < below <= np.linalg.norm(a, 2)


def test_complex_operator_from_a_real_start():
    a = normal(0, 5, 4, dtype="complex64")
    norm = operator_norm(dense(a), (4,), key=jax.random.key(1), num_iterations=500)
    np.testing.assert_allclose(norm, np.linalg.norm(a, 2), rtol=TOLERANCE["float32"])


def test_long_convolution_keeps_the_precision_of_the_signal():
    with precision("float64"):
        operator = convolution(normal(0, 9, dtype="float64").astype("float32"))
        assert operator.forward(normal(1, 1100, dtype="float64")).dtype == "float64"
        assert dot_test(operator, (1100,), key=jax.random.key(0), dtype="float64") < 1e-13


@pytest.mark.parametrize("name", ["wide", "even wavelet", "composition", "normal", "blocks"])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_products_are_in_full_precision_on_every_device(name, dtype):
    operator, shape = made(name, dtype)
    x = normal(3, *shape, dtype=dtype)
    y = like_measurement(operator, x, 4)

    def value(operator, x, y):
        return sum(jnp.sum(jnp.abs(part) ** 2) for part in pair(operator, x, y))

    # The products of the derivative too, by signal and by leaves.
    derivative = jax.grad(value, argnums=(0, 1, 2), allow_int=True)
    program = str(jax.make_jaxpr(derivative)(operator, x, y))
    products = program.count("= dot_general[")
    assert products >= 6
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


@dataclasses.dataclass(frozen=True)
class Subsample:
    """Every `step`-th entry along the first axis."""

    step: int

    def __call__(self, leaves, x):
        return leaves * x[:: self.step]


@dataclasses.dataclass(frozen=True)
class FillIn:
    step: int
    length: int

    def __call__(self, leaves, y):
        return jnp.zeros((self.length, *y.shape[1:]), y.dtype).at[:: self.step].set(leaves * y)


def subsampling(step, length):
    return LinearOperator(Subsample(step), FillIn(step, length), jnp.float32(2))


def test_static_settings_are_equal_by_value():
    function, traces = counted(pair)
    compiled = jax.jit(function)
    x = normal(0, 12, 2)
    for step, expected in ((3, 1), (3, 1), (4, 2), (3, 2)):
        operator = subsampling(step, 12)  # made again each time
        assert dot_test(operator, (12, 2), key=jax.random.key(0)) < TOLERANCE["float32"]
        y = operator.forward(x)
        close(compiled(operator, x, y), (2 * x[::step], operator.adjoint(y)))
        assert len(traces) == expected
    assert jax.tree.structure(subsampling(3, 12)) == jax.tree.structure(subsampling(3, 12))
    assert jax.tree.structure(subsampling(3, 12)) != jax.tree.structure(subsampling(4, 12))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dense(jnp.ones(3)), r"matrix must have shape \(m, n\), got \(3,\)"),
        (
            lambda: dense(jnp.ones((2, 6)), shape=(2, 4)),
            r"shape must have as many entries as matrix has columns, 6, got \(2, 4\)",
        ),
        (lambda: dense(jnp.ones((2, 6)), shape=(-2, -3)), r"shape must .* got \(-2, -3\)"),
        (
            lambda: dense(jnp.ones((2, 6)), shape=(2, 3)).forward(jnp.ones((3, 2, 1))),
            r"the first axes of x must be \(2, 3\), got \(3, 2, 1\)",
        ),
        (lambda: convolution(jnp.ones((2, 2))), r"wavelet must .*got \(2, 2\)"),
        (lambda: convolution(jnp.ones(0)), r"wavelet must .*got \(0,\)"),
        (lambda: ricker(0), "num_points must be at least 1, got 0"),
        (lambda: ricker(5, 0.0), r"width must be positive, got 0\.0"),
        (lambda: ricker(5, float("nan")), "width must be positive, got nan"),
        (
            lambda: operator_norm(identity(), (2,), key=jax.random.key(0), num_iterations=0),
            "num_iterations must be at least 1, got 0",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
