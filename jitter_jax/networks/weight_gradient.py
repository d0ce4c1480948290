"""The weight gradient of a convolution, in the forms that are fast on a CPU."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LABELS = ("NHWC", "HWIO", "NHWC")
# Up to this many channels on one side, the weight gradient is one product with that side's patches.
FEW_CHANNELS = 4
# Image rows in a strip of the image: 8 to 32 are alike, fewer or more are slower.
_STRIP = 16
# Winograd's algorithm pays from so many channels on both sides and pixels in a signal.
_WINOGRAD_CHANNELS, _WINOGRAD_PIXELS = 32, 4096
_WINOGRAD_STRIP = 8

# Winograd's algorithm at the points 0, 1, -1, 2, -2 and infinity: three outputs of a correlation
# with four taps, `sum_j x[k + j] g[j]`, are `_OUT @ ((_TAPS @ g) * (_IN @ x))`.
_IN = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_TAPS = (
    np.array([[6, 0, 0, 0], [-4] * 4, [-4, 4, -4, 4], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 24]])
    / 24
)
_OUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 1]])


def weight_gradient(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: Any = None
) -> jax.Array:
    r"""Returns the derivative of a convolution's product with ``g`` in the kernel.

    .. math:: d_{i,j,c,o} = \sum_{n,h,w} x_{n,\, h+i-r,\, w+j-q,\, c}\; g_{n,h,w,o},
              \qquad r = (\mathrm{rows} - 1) / 2, \quad q = (\mathrm{columns} - 1) / 2.

    Args:
      x: the convolution's input, ``(n, height, width, inputs)``, zero outside.
      g: ``(n, height, width, outputs)``, of the type of ``x``.
      size: ``(rows, columns)`` of the kernel, odd.
      precision: of the products, as in `jax.lax.conv_general_dilated`.

    Returns:
      ``(rows, columns, inputs, outputs)``, of the type of ``x``.
    """
    inputs, outputs = x.shape[-1], g.shape[-1]
    if outputs <= min(inputs, FEW_CHANNELS):
        # <g, x * kernel> = <x, g * turned kernel>: the patches are then those of g.
        return turned(_patch_product(g, x, size, precision))
    if inputs <= FEW_CHANNELS or size == (1, 1):
        return _patch_product(x, g, size, precision)
    pixels = x.shape[1] * x.shape[2]
    if size == (3, 3) and min(inputs, outputs) >= _WINOGRAD_CHANNELS and pixels >= _WINOGRAD_PIXELS:
        return _winograd(precision)(x, g)
    return _correlation(size, precision)(x, g)


def turned(kernel: jax.Array) -> jax.Array:
    """Returns the kernel of the transposed convolution: axes reversed, channels exchanged."""
    return jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)


def _patch_product(x: jax.Array, g: jax.Array, size: tuple[int, int], precision: Any) -> jax.Array:
    """Weight gradient as one product, the patches of ``x`` (few channels) with ``g``."""
    _, height, width, inputs = x.shape
    rows, columns = size
    planes = jnp.pad(
        x.transpose(3, 0, 1, 2),
        ((0, 0), (0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2)),
    )
    patches = jnp.stack(
        [planes[:, :, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    )
    product = jnp.matmul(
        patches.reshape(rows * columns * inputs, -1),
        g.reshape(-1, g.shape[-1]),
        precision=precision,
    )
    return product.reshape(rows, columns, inputs, -1)


@functools.cache
def _correlation(
    size: tuple[int, int], precision: Any
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Weight gradient as a convolution whose batch is the input channels and whose kernel is ``g``.

    Batched by JAX it would become a grouped convolution, which has no fast form; so `jax.vmap`
    takes one signal after the other. Strips of the image, because the transposed copy of one then
    stays in cache, and because short sums lose less to rounding than one over all pixels.
    """
    rows, columns = size
    up, left = rows // 2, columns // 2

    def correlation(x: jax.Array, g: jax.Array) -> jax.Array:
        signals, height, width, _ = x.shape
        strip = min(_STRIP, height)
        strips = -(-height // strip)
        spare = strips * strip - height
        x = jnp.pad(x, ((0, 0), (up, up + spare), (left, left), (0, 0)))
        if spare:
            g = jnp.pad(g, ((0, 0), (0, spare), (0, 0), (0, 0)))

        def add(index: jax.Array, total: jax.Array) -> jax.Array:
            signal, row = index // strips, index % strips * strip
            window = (1, strip + 2 * up, width + 2 * left, x.shape[-1])
            pixels = lax.dynamic_slice(x, (signal, row, 0, 0), window)
            slopes = lax.dynamic_slice(g, (signal, row, 0, 0), (1, strip, width, g.shape[-1]))
            return total + lax.conv_general_dilated(
                pixels.transpose(3, 1, 2, 0),
                slopes.transpose(1, 2, 0, 3),
                (1, 1),
                "VALID",
                dimension_numbers=LABELS,
                precision=precision,
                preferred_element_type=total.dtype,
            )

        start = jnp.zeros(
            (x.shape[-1], rows, columns, g.shape[-1]), jnp.promote_types(x.dtype, jnp.float32)
        )
        total = lax.fori_loop(0, signals * strips, add, start)
        return total.transpose(1, 2, 0, 3).astype(x.dtype)

    return jax.custom_batching.sequential_vmap(correlation)


@functools.cache
def _winograd(precision: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Weight gradient of a 3x3 kernel by Winograd's algorithm, with a quarter of the products.

    In tiles of 4x4 pixels of ``g``; the products of all tiles are one matrix product for each of
    the 36 points. Strips and `jax.vmap` as in `_correlation`.
    """

    def winograd(x: jax.Array, g: jax.Array) -> jax.Array:
        signals, height, width, inputs = x.shape
        outputs, dtype = g.shape[-1], jnp.promote_types(x.dtype, jnp.float32)
        strip, tiles = _WINOGRAD_STRIP, -(-width // 4)
        strips = -(-height // strip)
        spare = strips * strip - height, 4 * tiles - width
        x = jnp.pad(x, ((0, 0), (1, 1 + spare[0]), (1, 1 + spare[1]), (0, 0)))
        g = jnp.pad(g, ((0, 0), (0, spare[0]), (0, spare[1]), (0, 0)))

        def add(index: jax.Array, total: jax.Array) -> jax.Array:
            signal, row = index // strips, index % strips * strip
            pixels = lax.dynamic_slice(
                x, (signal, row, 0, 0), (1, strip + 2, 4 * tiles + 2, inputs)
            )
            slopes = lax.dynamic_slice(g, (signal, row, 0, 0), (1, strip, 4 * tiles, outputs))
            return total + lax.dot_general(
                _at_points(_IN, pixels[0].astype(dtype)),
                _at_points(_TAPS, slopes[0].astype(dtype)),
                (((1,), (1,)), ((0,), (0,))),
                precision=precision,
            )

        start = jnp.zeros((len(_IN) ** 2, inputs, outputs), dtype)
        total = lax.fori_loop(0, signals * strips, add, start)
        total = total.reshape(len(_IN), len(_IN), inputs, outputs)
        # Its first axis counts the points of columns, the second those of rows.
        out = jnp.asarray(_OUT, dtype)
        highest = lax.Precision.HIGHEST
        return jnp.einsum("ir,jc,crab->ijab", out, out, total, precision=highest).astype(x.dtype)

    return jax.custom_batching.sequential_vmap(winograd)


def _at_points(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """Tiles of ``(height, width, channels)`` at Winograd's points, ``(36, tiles, channels)``."""
    taps = matrix.shape[1]
    for axis in (0, 2):  # rows; then columns, which the points of rows have moved
        first = [
            lax.slice_in_dim(x, tap, x.shape[axis] - taps + tap + 1, 4, axis) for tap in range(taps)
        ]
        x = jnp.stack([_combined(row, first) for row in matrix])
    return x.reshape(len(matrix) ** 2, -1, x.shape[-1])


def _combined(weights: np.ndarray, terms: Sequence[jax.Array]) -> jax.Array:
    # Not a matrix product: most weights are 0 or 1, and the terms are read once.
    products = [float(w) * term for w, term in zip(weights, terms, strict=True) if w]
    return functools.reduce(jnp.add, products)
