"""Layers that the learned steps share: convolution, normalisations, activations.

The derivatives of convolutions and of GroupNorm are written out, because those that JAX makes are
slow on a CPU (see `jitter_jax.networks.convolution`). They are reverse-mode rules: `jax.grad`,
`jax.vjp`, and both of them nested. Forward mode (`jax.jvp`, `jax.jacfwd`, `jax.hessian`) raises a
`TypeError`, unless the layer is made with ``differentiation="plain"``, which leaves every
derivative to JAX.

Signals are ``(..., height, width, channels)``; the leading axes may be absent, and `jax.vmap` adds
them at no cost in speed.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jitter_jax.networks.convolution import (
    conv_general_dilated,
    plain_convolution,
    precision_now,
    strided_convolution,
)
from jitter_jax.networks.precision import wide
from jitter_jax.networks.weight_gradient import FEW_CHANNELS, LABELS

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


def _check_differentiation(differentiation: str) -> None:
    if differentiation not in ("reverse", "plain"):
        raise ValueError(f"differentiation must be 'reverse' or 'plain', got {differentiation!r}")


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
            result = plain_convolution(flat, kernel, stride=self.stride)
        elif strided:
            result = strided_convolution(flat, kernel, self.stride, precision_now())
        else:
            result = conv_general_dilated(flat, kernel, (1, 1), "SAME", dimension_numbers=LABELS)
        if x.shape[-1] > FEW_CHANNELS and self.features > FEW_CHANNELS:
            result = checkpoint_name(result, COSTLY_RESULT)
        result = result.reshape(*x.shape[:-3], *result.shape[1:])
        if self.use_bias:
            # Wide, since the derivative in the bias is a sum over all pixels.
            shifted = wide(result)
            bias = self.param("bias", self.bias_init, (self.features,)).astype(shifted.dtype)
            result = (shifted + jnp.broadcast_to(bias, result.shape)).astype(x.dtype)
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
    signal = wide(x)
    mean, rate = _statistics(signal, groups, epsilon)
    return _affine(signal, mean, rate * scale, bias).astype(x.dtype)


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
    signal = wide(x)
    mean, rate = _statistics(signal, groups, epsilon)
    # What is kept for the derivative has the narrow type.
    return _affine(signal, mean, rate * scale, bias).astype(x.dtype), (x, scale, mean, rate)


def _group_norm_backward(
    groups: int, epsilon: float, residuals: tuple[jax.Array, ...], g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, rate = residuals
    del epsilon
    narrow, x, g = x.dtype, wide(x), wide(g)
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
    slopes = (g * factor - centred * bend - offset).astype(narrow)
    return slopes, pixels * slope, pixels * shift


_group_norm.defvjp(_group_norm_forward, _group_norm_backward)


class GroupNorm(nn.Module):
    r"""Group normalisation of one signal (Wu and He, 2018).

    .. math:: z_{h,w,c} = s_c\, \frac{x_{h,w,c} - \mu_{g(c)}}{\sqrt{v_{g(c)} + \epsilon}} + b_c,

    where :math:`\mu_g` and :math:`v_g` are the mean and variance over all pixels and over the
    ``channels / num_groups`` consecutive channels of group :math:`g`. Parameters are ``scale`` and
    ``bias``, both ``(channels,)``, as in `flax.linen.GroupNorm`. A signal of a narrower type than
    float32 is normalised in float32.

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
        dtype = wide(x).dtype
        scale, bias = jnp.ones(channels, dtype), jnp.zeros(channels, dtype)
        if self.affine:
            scale = self.param("scale", self.scale_init, (channels,)).astype(dtype)
            bias = self.param("bias", self.bias_init, (channels,)).astype(dtype)
        norm = _group_norm if self.differentiation == "reverse" else _plain_group_norm

        def one(signal: jax.Array) -> jax.Array:
            return norm(signal, scale, bias, self.num_groups, self.epsilon)

        for _ in x.shape[:-3]:
            one = jax.vmap(one)
        return one(x)


class BatchNorm(nn.Module):
    r"""Normalisation of every channel by a mean and a variance (Ioffe and Szegedy, 2015).

    .. math:: z_{h,w,c} = s_c\, \frac{x_{h,w,c} - \mu_c}{\sqrt{v_c + \epsilon}} + b_c.

    Parameters are ``scale`` and ``bias``, both ``(channels,)``. A signal of a narrower type than
    float32 is normalised in float32. Which :math:`\mu` and :math:`v`:

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
        shape, narrow = x.shape[-1:], x.dtype
        x = wide(x)
        scale = self.param("scale", nn.initializers.ones_init(), shape).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), shape).astype(x.dtype)
        if frozen:
            mean = self.variable("batch_stats", "mean", jnp.zeros, shape).value
            variance = self.variable("batch_stats", "var", jnp.ones, shape).value
            mean, variance = (lax.stop_gradient(v.astype(x.dtype)) for v in (mean, variance))
            rate = lax.rsqrt(variance + self.epsilon)
            return _affine(x, mean, rate * scale, bias).astype(narrow)

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
        return one(x).astype(narrow)


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
