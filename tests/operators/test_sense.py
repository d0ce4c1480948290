"""Multi-coil Cartesian MRI: the operator against a loop over coils, its adjoint, its checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, close, counted, equal, near, normal, precision
from helpers import tolerance as tolerance_of

from jitter_jax.operators import cartesian_mri, dot_test, normalise_maps, operator_norm, sense

SIZES = [(8, 6, 1), (7, 5, 3), (6, 9, 8), (1, 4, 2)]


def mask_of(*shape, seed=0):
    """About half of the points, the centre among them."""
    mask = np.random.default_rng(seed).random(shape) < 0.5
    mask[shape[0] // 2, shape[1] // 2] = True
    return mask


def maps_of(*shape, seed=0, dtype="complex64"):
    """Maps of unit sum of squares, as rough as can be."""
    maps = np.asarray(normal(seed, *shape, dtype=dtype))
    return jnp.asarray(maps / np.linalg.norm(maps, axis=-1, keepdims=True))


def fourier_matrix(n):
    """The centred unitary transform of one axis, entry by entry."""
    position = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(position, position) / n) / np.sqrt(n)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_is_a_loop_over_coils_with_exact_adjoint(size, dtype):
    height, width, coils = size
    with precision(dtype):
        mask, maps = mask_of(height, width), maps_of(*size, seed=3, dtype=dtype)
        operator = sense(mask, maps)
        x, y = normal(1, height, width, 1, dtype=dtype), normal(2, *size, dtype=dtype)
        apply = jax.jit(lambda o, x, y: (o.forward(x), o.adjoint(y)))
        forward, adjoint, x, y = map(np.asarray, (*apply(operator, x, y), x, y))
        assert forward.dtype == adjoint.dtype == dtype
        assert forward.shape == size and adjoint.shape == (height, width, 1)

        rows, columns = fourier_matrix(height), fourier_matrix(width)
        s, image = np.asarray(maps), np.zeros((height, width), "complex128")
        for c in range(coils):
            expected = mask * (rows @ (s[..., c] * x[..., 0]) @ columns.T)
            near(forward[..., c], expected, tolerance_of(dtype))
            coil_image = rows.conj().T @ (mask * y[..., c]) @ columns.conj()
            image += s[..., c].conj() * coil_image
        near(adjoint[..., 0], image, tolerance_of(dtype))

        gap = abs(np.vdot(forward, y) - np.vdot(x, adjoint))
        assert gap < tolerance_of(dtype) * np.linalg.norm(x) * np.linalg.norm(y)
        error = dot_test(operator, (height, width, 1), key=jax.random.key(0), dtype=dtype)
        assert error < tolerance_of(dtype)


def test_full_sampling_keeps_the_image():
    maps = maps_of(6, 5, 4)
    operator = sense(np.ones((1, 5)), maps)
    x = normal(1, 6, 5, 1, dtype="complex64")
    near(operator.adjoint(operator.forward(x)), x, TOLERANCE["float32"])
    norm = operator_norm(
        sense(mask_of(6, 5), maps), (6, 5, 1), key=jax.random.key(0), dtype="complex64"
    )
    assert 0.5 < norm < 1 + 1e-5


def test_one_flat_coil_is_single_coil():
    mask = mask_of(6, 5)
    x = normal(1, 6, 5, 1, dtype="complex64")
    operator = sense(mask, jnp.ones((6, 5, 1), "complex64"))
    close(operator.forward(x), cartesian_mri(mask).forward(x))
    close(operator.adjoint(x), cartesian_mri(mask).adjoint(x))


def test_mask_and_maps_for_each_signal():
    masks = jnp.stack([mask_of(6, 5, seed=seed) for seed in range(3)])
    maps = jnp.stack([maps_of(6, 5, 4, seed=seed) for seed in range(3)])
    xs = normal(1, 3, 6, 5, 1, dtype="complex64")
    function, traces = counted(
        jax.vmap(lambda o, x: (o.forward(x), o.adjoint(o.forward(x)), o.support()))
    )
    batched = jax.jit(function)
    single = [sense(*each) for each in zip(masks, maps, strict=True)]
    loop = [
        (o.forward(x), o.adjoint(o.forward(x)), o.support())
        for o, x in zip(single, xs, strict=True)
    ]
    close(batched(jax.vmap(sense)(masks, maps), xs), jax.tree.map(lambda *a: jnp.stack(a), *loop))
    batched(jax.vmap(sense)(~masks, maps[::-1]), xs)
    assert len(traces) == 1  # masks and maps are leaves: others compile nothing anew
    shared = jax.vmap(sense, (None, 0))(masks[0], maps)
    close(
        jax.vmap(lambda o, x: o.forward(x))(shared, xs)[2], sense(masks[0], maps[2]).forward(xs[2])
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_a_side_of_one_stands_for_lines(axis):
    lines = np.array([True, False, True, True, False, False])
    short = lines[:, None] if axis == 0 else lines[None, :]
    maps, x = maps_of(6, 6, 3), normal(0, 6, 6, 1, dtype="complex64")
    y = normal(1, 6, 6, 3, dtype="complex64")
    whole = sense(np.broadcast_to(short, (6, 6)), maps)
    close(sense(short, maps).forward(x), whole.forward(x))
    close(sense(short, maps).adjoint(y), whole.adjoint(y))


def test_support_is_what_is_sampled_in_every_coil():
    mask = mask_of(6, 5)
    operator = sense(mask, maps_of(6, 5, 3))
    y = operator.forward(normal(0, 6, 5, 1, dtype="complex64"))
    support = np.broadcast_to(operator.support(), y.shape)
    equal(support, np.stack([mask] * 3, axis=-1))
    equal(np.asarray(y) != 0, support)


def test_normalised_maps():
    raw = np.array(normal(0, 4, 3, 5, dtype="complex64"))
    raw[1, 2] = 0
    maps = normalise_maps(raw)
    power = np.sum(np.abs(maps) ** 2, axis=-1)
    assert power[1, 2] == 0
    near(np.delete(power.ravel(), 5), np.ones(11), TOLERANCE["float32"])
    near(maps[0, 0], raw[0, 0] / np.linalg.norm(raw[0, 0]), TOLERANCE["float32"])
    close(normalise_maps(maps), maps)
    gradient = jax.grad(lambda maps: jnp.sum(normalise_maps(maps).real))(jnp.asarray(raw))
    assert np.isfinite(gradient).all()
    sense(np.ones((4, 3)), maps)  # zero outside the object is allowed


def test_values_of_maps_are_checked_where_they_are_known():
    good = maps_of(4, 4, 2)
    mask = np.ones((4, 4))
    with pytest.raises(ValueError, match=r"got a deviation of 0\.21; operators\.normalise_maps"):
        sense(mask, 1.1 * good)
    with pytest.raises(ValueError, match=r"deviation of 0\.75"):
        sense(mask, good.at[2, 3].multiply(0.5))
    with pytest.raises(ValueError, match="deviation of nan"):
        sense(mask, good.at[2, 3].set(jnp.nan))
    sense(mask, 1.0004 * good)  # a deviation of 0.0008
    x = normal(1, 4, 4, 1, dtype="complex64")
    # Known inside jit, too, when they are constants; unknown as arguments.
    with pytest.raises(ValueError, match=r"deviation of 0\.21"):
        jax.jit(lambda x: sense(mask, 1.1 * np.asarray(good)).forward(x))(x)
    traced = jax.jit(lambda maps, x: sense(mask, maps).forward(x))
    near(traced(2 * good, x), 2 * sense(mask, good).forward(x), TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: sense(np.ones(4), maps_of(4, 3, 2)), "mask must have shape"),
        (
            lambda o: sense(np.ones((4, 3)), maps_of(4, 3, 2)[None]),
            r"maps must be complex of shape \(height, width, coils\), got complex64 of shape "
            r"\(1, 4, 3, 2\)",
        ),
        (lambda o: sense(np.ones((4, 3)), np.ones((4, 3, 1))), "maps must be complex .* float32"),
        (
            lambda o: sense(np.ones((3, 4)), maps_of(4, 3, 2)),
            r"mask of shape \(3, 4\) does not fit maps of shape \(4, 3, 2\)",
        ),
        (
            lambda o: o.forward(jnp.ones((4, 3, 2), "complex64")),
            r"image must have shape \(4, 3, 1\), got \(4, 3, 2\)",
        ),
        (
            lambda o: o.adjoint(jnp.ones((4, 3, 3), "complex64")),
            r"measurement must have the shape of the maps, \(4, 3, 2\), got \(4, 3, 3\)",
        ),
        (lambda o: o.adjoint(jnp.ones((4, 3, 1), "complex64")), r"got \(4, 3, 1\)"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(sense(np.ones((4, 3)), maps_of(4, 3, 2)))
