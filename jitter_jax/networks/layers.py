"""Layers that the learned steps share: convolution, normalisations, activations.

XLA compiles a convolution for the CPU in one of two ways, and the slow one is some fifty times
slower. Inside a `lax.scan` it takes the fast one only for the labels ``NHWC, HWIO -> NHWC``, which
the derivatives of `lax.conv_general_dilated` do not carry (jax-ml/jax#12868). The derivative rules
here are written out with those labels. They are reverse-mode rules: `jax.grad`, `jax.vjp`, and both
of them nested. Forward mode (`jax.jvp`, `jax.jacfwd`, `jax.hessian`) raises a `TypeError`, unless
the layer is made with ``differentiation="plain"``, which leaves every derivative to JAX.

Signals are ``(..., height, width, channels)``; the leading axes may be absent, and `jax.vmap` adds
them at no cost in speed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

Activation = Callable[[jax.Array], jax.Array]
Differentiation = Literal["reverse", "plain"]
Statistics = Literal["frozen", "signal"]
Initializer = Callable[..., Any]

COSTLY_RESULT = "costly_result"
"""Name of what is slow to recompute, for `jax.checkpoint_policies.save_only_these_names`.

It marks the results of convolutions with many channels on both sides, and the statistics of
GroupNorm (a few numbers).
"""

keep_costly = jax.checkpoint_policies.save_only_these_names(COSTLY_RESULT)
"""Policy for `jax.checkpoint`: keep what is slow to recompute, recompute the rest."""

_LABELS = ("NHWC", "HWIO", "NHWC")
# Up to this many channels on one side, the weight gradient is one product with that side's patches.
_FEW_CHANNELS = 4
# Image rows in a strip of the weight gradient: 8 to 32 are alike, fewer or more are slower.
_STRIP = 16


def _check_differentiation(differentiation: str) -> None:
    if differentiation not in ("reverse", "plain"):
        raise ValueError(f"differentiation must be 'reverse' or 'plain', got {differentiation!r}")


def _plain_convolution(
    x: jax.Array, kernel: jax.Array, precision: Any, stride: int = 1
) -> jax.Array:
    if kernel.shape[:2] == (1, 1) and stride == 1:
        return jnp.matmul(x, kernel[0, 0], precision=precision)
    # Not "SAME", which for a stride of 2 puts all the padding of an even side after it.
    padding = [(n // 2, n // 2) for n in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=_LABELS, precision=precision
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: jax.Array, kernel: jax.Array, precision: Any) -> jax.Array:
    """Same-size convolution of ``(n, h, w, i)`` with ``(a, b, i, o)``; ``a`` and ``b`` odd."""
    return _plain_convolution(x, kernel, precision)


def _convolution_forward(
    x: jax.Array, kernel: jax.Array, precision: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _plain_convolution(x, kernel, precision), (x, kernel)


def _convolution_backward(
    precision: Any, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return (
        _convolution(g, _turned(kernel), precision),
        _weight_gradient(x, g, kernel.shape[:2], precision),
    )


_convolution.defvjp(_convolution_forward, _convolution_backward)


def _turned(kernel: jax.Array) -> jax.Array:
    """Kernel of the transposed convolution: both axes reversed, channels exchanged."""
    return jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _weight_gradient(
    x: jax.Array, g: jax.Array, size: tuple[int, int], precision: Any
) -> jax.Array:
    """Derivative of ``<g, x * kernel>`` in the kernel; bilinear, so its rule is convolutions."""
    inputs, outputs = x.shape[-1], g.shape[-1]
    if outputs <= min(inputs, _FEW_CHANNELS):
        # <g, x * kernel> = <x, g * turned kernel>: the patches are then those of g.
        return _turned(_patch_product(g, x, size, precision))
    if inputs <= _FEW_CHANNELS or size == (1, 1):
        return _patch_product(x, g, size, precision)
    return _correlation(size, precision)(x, g)


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
                dimension_numbers=_LABELS,
                precision=precision,
            )

        start = jnp.zeros((x.shape[-1], rows, columns, g.shape[-1]), x.dtype)
        return lax.fori_loop(0, signals * strips, add, start).transpose(1, 2, 0, 3)

    return jax.custom_batching.sequential_vmap(correlation)


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
    return _convolution(g, _turned(kernel), precision), _convolution(x, kernel, precision)


_weight_gradient.defvjp(_weight_gradient_forward, _weight_gradient_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _strided_convolution(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution as `_convolution`, kept at every ``stride``-th row and column."""
    return _plain_convolution(x, kernel, None, stride)


def _strided_convolution_forward(
    x: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _plain_convolution(x, kernel, None, stride), (x, kernel)


def _strided_convolution_backward(
    stride: int, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # As convolutions the derivatives would run at stride 1 over zeros put into g.
    return jax.vjp(functools.partial(_strided_products, stride=stride), *residuals)[1](g)


_strided_convolution.defvjp(_strided_convolution_forward, _strided_convolution_backward)


def _strided_products(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    """Strided convolution as one matrix product for each entry of the kernel."""
    rows, columns = kernel.shape[:2]
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)))
    products = [
        x[:, i : i + height : stride, j : j + width : stride] @ kernel[i, j]
        for i in range(rows)
        for j in range(columns)
    ]
    return sum(products[1:], products[0])


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
        lhs.shape, rhs.shape, _LABELS
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
        return _convolution(lhs, rhs, precision)
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


class Conv(nn.Module):
    r"""Two-dimensional convolution, zero-padded to the size of its input.

    .. math:: z_{h,w,o} = b_o + \sum_{i,j,c} k_{i,j,c,o}\, x_{sh+i-r,\, sw+j-r,\, c},
              \qquad r = (\mathrm{kernel\_size} - 1) / 2, \quad s = \mathrm{stride}.

    Parameters are ``kernel``, ``(kernel_size, kernel_size, inputs, features)``, and ``bias``,
    ``(features,)``, as in `flax.linen.Conv`. With more than four
    channels on both sides the result carries the name `COSTLY_RESULT`, so that a rematerialised
    iteration can keep the heavy convolutions and recompute what is cheap::

        lax.scan(jax.checkpoint(iteration, policy=keep_costly), ...)

    Attributes:
      features: number of output channels.
      kernel_size: side of the square kernel, odd.
      use_bias: whether to add ``bias``.
      differentiation: ``"reverse"`` (fast on a CPU, reverse mode only) or ``"plain"``.
      kernel_init: initializer of ``kernel``.
      bias_init: initializer of ``bias``.
      stride: step between the pixels that are kept, ``s``; a side of ``n`` pixels becomes one of
        ``ceil(n / s)``.
    """

    features: int
    kernel_size: int = 3
    use_bias: bool = True
    differentiation: Differentiation = "reverse"
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve.

        Args:
          x: signal, ``(..., height, width, inputs)``, floating point.

        Returns:
          The convolution, ``(..., height, width, features)`` for a stride of 1, of the type of
          ``x``.

        Raises:
          ValueError: if ``kernel_size`` is even, ``stride`` is below 1, ``differentiation`` is
            unknown or ``x`` has fewer than three axes.
        """
        _check_differentiation(self.differentiation)
        size = self.kernel_size
        if size < 1 or size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, got {size}")
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}")
        if x.ndim < 3:
            raise ValueError(f"x must be (..., height, width, channels), got shape {x.shape}")
        shape = (size, size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(x.dtype)
        flat = x.reshape(-1, *x.shape[-3:])
        strided = self.stride > 1
        if self.differentiation == "plain" or (strided and jax.default_backend() != "cpu"):
            result = _plain_convolution(flat, kernel, None, self.stride)
        elif strided:
            result = _strided_convolution(flat, kernel, self.stride)
        else:
            result = conv_general_dilated(flat, kernel, (1, 1), "SAME", dimension_numbers=_LABELS)
        if x.shape[-1] > _FEW_CHANNELS and self.features > _FEW_CHANNELS:
            result = checkpoint_name(result, COSTLY_RESULT)
        result = result.reshape(*x.shape[:-3], *result.shape[1:])
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,)).astype(x.dtype)
            result = result + jnp.broadcast_to(bias, result.shape)
        return result


def _channel_mean(x: jax.Array) -> jax.Array:
    # Over one flattened axis: XLA then sums whole pixels at a time. Over (height, width, channels
    # of a group) it does not, and takes several times as long.
    return jnp.mean(x.reshape(-1, x.shape[-1]), axis=0)


def _spread(statistic: jax.Array, channels: int) -> jax.Array:
    """One value a group, ``(groups,)``, to one a channel, ``(channels,)``."""
    return jnp.repeat(statistic, channels // statistic.shape[0])


def _statistics(x: jax.Array, groups: int, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """Mean and reciprocal standard deviation of each channel's group, both ``(channels,)``."""
    channels = x.shape[-1]
    mean = _spread(_channel_mean(x).reshape(groups, -1).mean(-1), channels)
    # The mean is taken off before squaring: E[x^2] - E[x]^2 loses every digit when the mean is
    # large beside the deviation.
    square = _channel_mean(jnp.square(x - jnp.broadcast_to(mean, x.shape)))
    variance = _spread(square.reshape(groups, -1).mean(-1), channels)
    rate = lax.rsqrt(variance + epsilon)
    return checkpoint_name(mean, COSTLY_RESULT), checkpoint_name(rate, COSTLY_RESULT)


def _plain_group_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> jax.Array:
    mean, rate = _statistics(x, groups, epsilon)
    return _affine(x, mean, rate * scale, bias)


def _affine(x: jax.Array, mean: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
    mean, factor, shift = (jnp.broadcast_to(v, x.shape) for v in (mean, factor, shift))
    return (x - mean) * factor + shift


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _group_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> jax.Array:
    return _plain_group_norm(x, scale, bias, groups, epsilon)


def _group_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mean, rate = _statistics(x, groups, epsilon)
    return _affine(x, mean, rate * scale, bias), (x, scale, mean, rate)


def _group_norm_backward(
    groups: int, epsilon: float, residuals: tuple[jax.Array, ...], g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, rate = residuals
    del epsilon
    channels = x.shape[-1]
    pixels = x.size // channels
    centred = x - jnp.broadcast_to(mean, x.shape)
    shift = _channel_mean(g)
    slope = rate * _channel_mean(g * centred)
    group_shift = _spread((scale * shift).reshape(groups, -1).mean(-1), channels)
    group_slope = _spread((scale * slope).reshape(groups, -1).mean(-1), channels)
    factor, bend, offset = (
        jnp.broadcast_to(v, x.shape)
        for v in (rate * scale, rate * rate * group_slope, rate * group_shift)
    )
    return g * factor - centred * bend - offset, pixels * slope, pixels * shift


_group_norm.defvjp(_group_norm_forward, _group_norm_backward)


class GroupNorm(nn.Module):
    r"""Group normalisation of one signal (Wu and He, 2018).

    .. math:: z_{h,w,c} = s_c\, \frac{x_{h,w,c} - \mu_{g(c)}}{\sqrt{v_{g(c)} + \epsilon}} + b_c,

    where :math:`\mu_g` and :math:`v_g` are the mean and variance over all pixels and over the
    ``channels / num_groups`` consecutive channels of group :math:`g`. Parameters are ``scale`` and
    ``bias``, both ``(channels,)``, as in `flax.linen.GroupNorm`.

    Attributes:
      num_groups: number of groups; divides the number of channels. As many as there are channels
        make it instance normalisation.
      affine: whether to learn ``scale`` and ``bias``; otherwise they are 1 and 0.
      epsilon: added to the variance.
      differentiation: ``"reverse"`` (fast on a CPU, reverse mode only) or ``"plain"``.
      scale_init: initializer of ``scale``.
      bias_init: initializer of ``bias``.
    """

    num_groups: int
    affine: bool = True
    epsilon: float = 1e-5
    differentiation: Differentiation = "reverse"
    scale_init: Initializer = nn.initializers.ones_init()
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise.

        Args:
          x: signal, ``(..., height, width, channels)``, floating point. Every signal along the
            leading axes is normalised by itself.

        Returns:
          The normalised signal, of the shape and type of ``x``.

        Raises:
          ValueError: if ``num_groups`` does not divide the channels, ``differentiation`` is
            unknown or ``x`` has fewer than three axes.
        """
        _check_differentiation(self.differentiation)
        if x.ndim < 3:
            raise ValueError(f"x must be (..., height, width, channels), got shape {x.shape}")
        channels = x.shape[-1]
        if self.num_groups < 1 or channels % self.num_groups:
            raise ValueError(
                f"num_groups must divide the {channels} channels of x, got {self.num_groups}"
            )
        scale, bias = jnp.ones(channels, x.dtype), jnp.zeros(channels, x.dtype)
        if self.affine:
            scale = self.param("scale", self.scale_init, (channels,)).astype(x.dtype)
            bias = self.param("bias", self.bias_init, (channels,)).astype(x.dtype)
        norm = _group_norm if self.differentiation == "reverse" else _plain_group_norm

        def one(signal: jax.Array) -> jax.Array:
            return norm(signal, scale, bias, self.num_groups, self.epsilon)

        for _ in x.shape[:-3]:
            one = jax.vmap(one)
        return one(x)


class BatchNorm(nn.Module):
    r"""Normalisation of every channel by a mean and a variance (Ioffe and Szegedy, 2015).

    .. math:: z_{h,w,c} = s_c\, \frac{x_{h,w,c} - \mu_c}{\sqrt{v_c + \epsilon}} + b_c.

    Parameters are ``scale`` and ``bias``, both ``(channels,)``. Which :math:`\mu` and :math:`v`:

    - ``"frozen"``: stored ones, the variables ``mean`` and ``var`` of the collection
      ``"batch_stats"``, as in `flax.linen.BatchNorm`. They stand beside the parameters, carry no
      gradient and are never updated; those of a new network are 0 and 1, which leaves a learned
      scale and shift. What comes out for a signal depends on that signal alone.
    - ``"signal"``: those of all pixels of one signal, as instance normalisation has them, and
      nothing is stored. With an ``axis_name``, those of all signals along axes of `jax.vmap`, as
      batch normalisation has them in training: a signal then depends on its neighbours, and so
      would an attack on it or a certificate for it.

    Attributes:
      statistics: ``"frozen"`` or ``"signal"``.
      axis_name: name or names of the mapped axes over which ``"signal"`` takes its statistics,
        besides the pixels.
      epsilon: added to the variance.
    """

    statistics: Statistics = "frozen"
    axis_name: str | tuple[str, ...] | None = None
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise.

        Args:
          x: signal, ``(..., height, width, channels)``, floating point. Every signal along the
            leading axes is normalised by itself.

        Returns:
          The normalised signal, of the shape and type of ``x``.

        Raises:
          ValueError: if ``statistics`` is unknown, ``axis_name`` is given with frozen ones or
            ``x`` has fewer than three axes.
        """
        if self.statistics not in get_args(Statistics):
            raise ValueError(
                f"statistics must be one of {get_args(Statistics)}, got {self.statistics!r}"
            )
        frozen = self.statistics == "frozen"
        if frozen and self.axis_name is not None:
            raise ValueError(f"frozen statistics take no axis_name, got {self.axis_name!r}")
        if x.ndim < 3:
            raise ValueError(f"x must be (..., height, width, channels), got shape {x.shape}")
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), shape).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), shape).astype(x.dtype)
        if frozen:
            mean = self.variable("batch_stats", "mean", jnp.zeros, shape).value
            variance = self.variable("batch_stats", "var", jnp.ones, shape).value
            mean, variance = (lax.stop_gradient(v.astype(x.dtype)) for v in (mean, variance))
            return _affine(x, mean, lax.rsqrt(variance + self.epsilon) * scale, bias)

        def average(x: jax.Array) -> jax.Array:
            mean = _channel_mean(x)
            # A network is made from one signal, outside of any mapped axis.
            alone = self.axis_name is None or self.is_initializing()
            return mean if alone else lax.pmean(mean, self.axis_name)

        def one(signal: jax.Array) -> jax.Array:
            mean = average(signal)
            variance = average(jnp.square(signal - jnp.broadcast_to(mean, signal.shape)))
            return _affine(signal, mean, lax.rsqrt(variance + self.epsilon) * scale, bias)

        for _ in x.shape[:-3]:
            one = jax.vmap(one)
        return one(x)


def _identity(x: jax.Array) -> jax.Array:
    return x


_ACTIVATIONS: dict[str, Activation] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "leaky_relu_0.2": functools.partial(jax.nn.leaky_relu, negative_slope=0.2),
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "identity": _identity,
}


def activation(name: str) -> Activation:
    """Activation function by name.

    Args:
      name: ``"relu"``, ``"leaky_relu"`` (slope 0.01), ``"leaky_relu_0.2"`` (fastMRI's
        slope) and ``"elu"``, whose second derivative jumps or vanishes; ``"gelu"`` (tanh form),
        ``"silu"``, ``"softplus"`` and ``"tanh"``, smooth, for what needs curvature;
        ``"identity"``.

    Returns:
      A function of an array of any shape, elementwise.

    Raises:
      ValueError: if the name is none of these.

    >>> float(activation("relu")(jnp.float32(-2.0)))
    0.0
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]
