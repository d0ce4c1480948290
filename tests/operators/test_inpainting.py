"""Inpainting: the known pixels, the same in every channel, masks as leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, counted, equal, normal, precision, tolerance

from jitter_jax.operators import inpainting


def mask_of(shape, seed=0):
    return np.random.default_rng(seed).random(shape) < 0.5


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((6, 4), "float32"), ((5, 7), "float64"), ((1, 1), "float64"), ((3, 4), "complex128")],
)
def test_keeps_the_known_pixels(shape, dtype):
    with precision(dtype):
        operator = inpainting(mask_of(shape))
        x, y = (normal(seed, *shape, 2, dtype=dtype) for seed in (1, 2))
        forward, adjoint = operator.forward(x), operator.adjoint(y)
        assert forward.dtype == adjoint.dtype == dtype
        equal(forward, mask_of(shape)[..., None] * x)
        equal(operator.forward(forward), forward)
        gap = abs(np.vdot(forward, y) - np.vdot(x, adjoint))
        assert gap <= tolerance(dtype) * np.linalg.norm(x) * np.linalg.norm(y)


def test_support_is_the_mask():
    mask = mask_of((4, 5))
    for given in (mask, 3.0 * mask):
        operator = inpainting(given)
        assert operator.forward(jnp.ones((4, 5, 1), "bfloat16")).dtype == "bfloat16"
        equal(operator.support(), mask[..., None])
        assert operator.support().dtype == bool
    # What stands where nothing is known does not count, whatever it is.
    y = normal(1, 4, 5, 1)
    close(operator.adjoint(jnp.where(mask[..., None], y, jnp.nan)), operator.adjoint(y))


def test_mask_for_each_signal():
    masks = jnp.stack([jnp.asarray(mask_of((4, 5), seed)) for seed in range(3)])
    xs = normal(1, 3, 4, 5, 1)
    function, traces = counted(jax.vmap(lambda o, x: (o.forward(x), o.support())))
    batched = jax.jit(function)
    each = [
        (inpainting(m).forward(x), inpainting(m).support()) for m, x in zip(masks, xs, strict=True)
    ]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *each)
    close(batched(jax.vmap(inpainting)(masks), xs), stacked)
    batched(jax.vmap(inpainting)(~masks), xs)
    assert len(traces) == 1  # masks are leaves: others compile nothing anew


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: inpainting(np.ones((4, 5, 1))),
            r"mask must have shape \(height, width\), got \(4, 5, 1\)",
        ),
        (
            lambda: inpainting(np.ones((1, 5))).forward(jnp.ones((4, 5, 1))),
            r"image must have shape \(1, 5, channels\), got \(4, 5, 1\)",
        ),
        (
            lambda: inpainting(np.ones((4, 5))).adjoint(jnp.ones((5, 4, 1))),
            r"image must have shape \(4, 5, channels\), got \(5, 4, 1\)",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
