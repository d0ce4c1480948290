"""Two-dimensional convolution that is fast on a CPU, with its derivative rules.

XLA compiles a convolution for the CPU in one of two ways, and the slow one is some fifty times
slower. Inside a `lax.scan` it takes the fast one only for the labels ``NHWC, HWIO -> NHWC``, which
the derivatives of `lax.conv_general_dilated` do not carry (jax-ml/jax#12868). The derivative rules
here are written out with those labels. They are reverse-mode rules: `jax.grad`, `jax.vjp`, and both
of them nested. Forward mode (`jax.jvp`, `jax.jacfwd`, `jax.hessian`) raises a `TypeError`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jitter_jax.networks.weight_gradient import LABELS, turned, weight_gradient

# Up to this many channels on one side, the library that XLA calls is as fast as XLA itself.
_LIBRARY_CHANNELS = 16


def plain_convolution(
    x: jax.Array, kernel: jax.Array, precision: Any = None, *, stride: int = 1
) -> jax.Array:
    """Returns the convolution whose derivatives are left to JAX.

    Args:
      x: signal, ``(n, height, width, inputs)``.
      kernel: ``(rows, columns, inputs, outputs)``; rows and columns odd.
      precision: of the products, as in `jax.lax.conv_general_dilated`.
      stride: step between the pixels that are kept.
    """
    if kernel.shape[:2] == (1, 1) and stride == 1:
        return jnp.matmul(x, kernel[0, 0], precision=precision)
    # Not "SAME", which for a stride of 2 puts all the padding of an even side after it.
    padding = [(n // 2, n // 2) for n in kernel.shape[:2]]
    return _labelled(x, kernel, padding, precision, stride)


def _same_convolution(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """The convolution, on a CPU in the form that takes less time."""
    rows, columns, *channels = kernel.shape
    if rows == 1 or min(channels) <= _LIBRARY_CHANNELS or jax.default_backend() != "cpu":
        return plain_convolution(x, kernel, precision)
    # A convolution whose result is no larger than its input goes to a library that leaves cores
    # idle. One row more, which is not looked at, keeps it out: 0.65 to 0.9 of the time at 32
    # channels of 64x64 to 352x352 pixels; at 64, 0.7 on an AMD EPYC and 1.1 on an Intel Xeon.
    padding = [(rows // 2, rows // 2 + 1), (columns // 2, columns // 2)]
    return _labelled(x, kernel, padding, precision)[:, :-1]


def _labelled(
    x: jax.Array, kernel: jax.Array, padding: Any, precision: Any, stride: int = 1
) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=LABELS, precision=precision
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """Same-size convolution of ``(n, h, w, i)`` with ``(a, b, i, o)``; ``a`` and ``b`` odd."""
    return _same_convolution(x, kernel, precision)


def _convolution_forward(
    x: jax.Array, kernel: jax.Array, precision: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _same_convolution(x, kernel, precision), (x, kernel)


def _convolution_backward(
    precision: Any, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return (
        _convolution(g, turned(kernel), precision),
        _weight_gradient(x, g, kernel.shape[:2], precision),
    )


_convolution.defvjp(_convolution_forward, _convolution_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _weight_gradient(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: Any
) -> jax.Array:
    """Derivative of ``<g, x * kernel>`` in the kernel; bilinear, so its rule is convolutions."""
    return weight_gradient(x, g, size, precision)


def _weight_gradient_forward(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _weight_gradient(x, g, size, precision), (x, g)


def _weight_gradient_backward(
    size: tuple[int, int],
    precision: Any,
    residuals: tuple[jax.Array, jax.Array],
    kernel: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    del size
    x, g = residuals
    return _convolution(g, turned(kernel), precision), _convolution(x, kernel, precision)


_weight_gradient.defvjp(_weight_gradient_forward, _weight_gradient_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def strided_convolution(x: jax.Array, kernel: jax.Array, stride: int, precision: Any) -> jax.Array:
    """Returns the same-size convolution, kept at every ``stride``-th row and column."""
    return plain_convolution(x, kernel, precision, stride=stride)


def _strided_convolution_forward(
    x: jax.Array, kernel: jax.Array, stride: int, precision: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return plain_convolution(x, kernel, precision, stride=stride), (x, kernel)


def _strided_convolution_backward(
    stride: int, precision: Any, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # As convolutions the derivatives would run at stride 1 over zeros put into g.
    products = functools.partial(_strided_products, stride=stride, precision=precision)
    return jax.vjp(products, *residuals)[1](g)


strided_convolution.defvjp(_strided_convolution_forward, _strided_convolution_backward)


def _strided_products(x: jax.Array, kernel: jax.Array, *, stride: int, precision: Any) -> jax.Array:
    """Strided convolution as one matrix product for each entry of the kernel."""
    rows, columns = kernel.shape[:2]
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)))
    products = [
        jnp.matmul(
            x[:, i : i + height : stride, j : j + width : stride],
            kernel[i, j],
            precision=precision,
        )
        for i in range(rows)
        for j in range(columns)
    ]
    return sum(products[1:], products[0])


def precision_now(precision: Any = None) -> Any:
    """Returns the precision of products that is asked for, now if None is given.

    The rules of a derivative run when `jax.default_matmul_precision` may have ended.
    """
    return jax.default_matmul_precision.value if precision is None else precision


def _same_padding(padding: Any, size: tuple[int, ...]) -> bool:
    if isinstance(padding, str):
        return padding.upper() == "SAME"
    return [tuple(pair) for pair in padding] == [(n // 2, n // 2) for n in size]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` with derivatives that stay fast inside `lax.scan` on a CPU.

    Made for `flax.linen.Conv(conv_general_dilated=conv_general_dilated)`. Two-dimensional
    convolutions with odd kernels, stride 1, zero padding to the same size, no dilation and no
    groups, labelled ``NHWC, HWIO -> NHWC``, get the written-out reverse-mode rules when the default
    backend is the CPU. Everything else is handed to `jax.lax.conv_general_dilated` unchanged.

    Args:
      lhs: input, ``(n, height, width, inputs)`` in the fast case.
      rhs: kernel, ``(rows, columns, inputs, outputs)`` in the fast case.
      window_strides: as in `jax.lax.conv_general_dilated`, and so are all the following.
      padding: string or pairs.
      lhs_dilation: input dilation.
      rhs_dilation: kernel dilation.
      dimension_numbers: labels, in any form JAX accepts.
      feature_group_count: groups of channels.
      batch_group_count: groups of the batch.
      precision: of the products.
      preferred_element_type: type to accumulate in.

    Returns:
      The convolution, of the type and shape JAX gives it.
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    canonical = lhs.ndim == 4 and numbers == lax.conv_dimension_numbers(
        lhs.shape, rhs.shape, LABELS
    )
    ones = (None, 1)
    covered = (
        canonical
        and jax.default_backend() == "cpu"
        and lhs.dtype == rhs.dtype
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and all(n % 2 == 1 for n in rhs.shape[:2])
        and all(n == 1 for n in window_strides)
        and _same_padding(padding, rhs.shape[:2])
        and all(n in ones for n in lhs_dilation or ())
        and all(n in ones for n in rhs_dilation or ())
        and feature_group_count == batch_group_count == 1
        and preferred_element_type is None
    )
    if covered:
        return _convolution(lhs, rhs, precision_now(precision))
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
