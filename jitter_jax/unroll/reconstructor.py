"""Reconstructors: an unrolled network as a pair of pure functions, `init` and `apply`."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jitter_jax.operators import LinearOperator
from jitter_jax.unroll.iterate import Jitter, Remat
from jitter_jax.unroll.step_size import StepSize

Array = jax.Array
Params = Any


class Network(Protocol):
    """What a learned step offers: a Linen module, or any pair of functions of this form."""

    def init(self, key: Array, x: Array, /) -> Params:
        """Returns the parameters for inputs shaped like `x`, `(..., channels)`."""

    def apply(self, params: Params, x: Array, /) -> Any:
        """Returns `f(x)`."""


class Apply(Protocol):
    """The reconstruction of one signal."""

    def __call__(
        self,
        params: Params,
        operator: LinearOperator,
        y: Array,
        *,
        key: Array | None = None,
        jitter: Jitter | None = None,
        num_iterations: int | None = None,
        return_trajectory: bool = False,
    ) -> Array:
        """Returns the estimate of the signal that was measured as `y`."""


class Reconstructor(NamedTuple):
    """A reconstruction method `H` as a pair of pure functions of one signal.

    Attributes:
        init: `(key, operator, y) -> params`.
        apply: `(params, operator, y, *, key, jitter, num_iterations, return_trajectory) -> x`. With
            neither key nor jitter: the deterministic reconstruction. `num_iterations=None` runs the
            number that the reconstructor was made with.
    """

    init: Callable[[Array, LinearOperator, Array], Params]
    apply: Apply


def unrolled(
    method: Callable[..., Array],
    network: Network,
    step_size: StepSize,
    *,
    num_iterations: int = 10,
    start: Literal["adjoint", "measurement"] = "adjoint",
    sees_measurement: bool = False,
    remat: Remat = True,
) -> Reconstructor:
    """Returns the reconstructor that unrolls `method` around a network with shared weights.

    Args:
        method: `gradient_descent`, `proximal_gradient` or a function with their arguments, such as
            `partial(proximal_gradient, noise_step_size=0.1)`.
        network: the learned step. It sees real channels, last: a complex signal with `c` channels
            comes as `2 c` real ones (all real parts first) and its result is turned back.
        step_size: one of `jitter_jax.unroll.step_size`.
        num_iterations: `K`, at least 1.
        start: `x_0 = A^H y` or `x_0 = y`; the latter needs a measurement shaped like the signal.
        sees_measurement: concatenate `y` before the iterate along the channels, `f(y, x)`; needs a
            measurement shaped like the signal.
        remat: what the backward pass recomputes; see `unroll`.

    Returns:
        A `Reconstructor` whose parameters are `{"network": ...}`, and `"step_size"` when learned.

    Raises:
        ValueError: `num_iterations` is below 1 or `start` is unknown; when applied, the network
            does not give as many channels as the signal has.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    if start not in ("adjoint", "measurement"):
        raise ValueError(f"start must be 'adjoint' or 'measurement', got {start!r}")

    def first_iterate(operator: LinearOperator, y: Array) -> Array:
        return operator.adjoint(y) if start == "adjoint" else y

    def network_input(x: Array, y: Array) -> Array:
        channels = to_channels(x)
        return jnp.concatenate([to_channels(y), channels], -1) if sees_measurement else channels

    def init(key: Array, operator: LinearOperator, y: Array) -> Params:
        x = first_iterate(operator, y)
        params = {"network": network.init(key, network_input(x, y))}
        if step_size.init is not None:
            params["step_size"] = jnp.float32(step_size.init)
        return params

    default_iterations = num_iterations

    def apply(
        params: Params,
        operator: LinearOperator,
        y: Array,
        *,
        key: Array | None = None,
        jitter: Jitter | None = None,
        num_iterations: int | None = None,
        return_trajectory: bool = False,
    ) -> Array:
        def learned_step(x: Array) -> Array:
            return from_channels(network.apply(params["network"], network_input(x, y)), like=x)

        return method(
            learned_step,
            operator,
            y,
            step_size=step_size.value(params.get("step_size")),
            num_iterations=default_iterations if num_iterations is None else num_iterations,
            start=first_iterate(operator, y),
            key=key,
            jitter=jitter,
            remat=remat,
            return_trajectory=return_trajectory,
        )

    return Reconstructor(init, apply)


def to_channels(x: Array) -> Array:
    """Returns `x` with real channels: complex `(..., c)` becomes real `(..., 2 c)`."""
    return jnp.concatenate([x.real, x.imag], axis=-1) if jnp.iscomplexobj(x) else x


def from_channels(channels: Array, *, like: Array) -> Array:
    """Inverts `to_channels`; the result is complex if `like` is."""
    if not jnp.iscomplexobj(like):
        return channels
    real, imaginary = jnp.split(channels, 2, axis=-1)
    return jax.lax.complex(real, imaginary)
