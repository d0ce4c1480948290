"""Reconstructors: an unrolled network as a pair of pure functions, `init` and `apply`."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jitter_jax.operators import LinearOperator
from jitter_jax.smoothing import Smoothing, keep_averages, smooth
from jitter_jax.unroll.iterate import Jitter, Remat
from jitter_jax.unroll.scalar import Scalar

Array = jax.Array
Params = Any
# (output of the learned step for a noisy copy, the iterate) -> tree of arrays
Probe = Callable[[Array, Array], Any]


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
        smoothing_key: Array | None = None,
        num_iterations: int | None = None,
        start: Array | None = None,
        back_projection: Array | None = None,
        probe: Probe | None = None,
        return_trajectory: bool = False,
    ) -> Any:
        """Returns the estimate of the signal that was measured as `y`.

        Args:
            params: from `init`.
            operator: the operator `A`.
            y: the measurement.
            key: PRNG key of the jitter, with `jitter`.
            jitter: noise of every iteration, while training.
            smoothing_key: PRNG key of the noise that a smoothed reconstructor averages over; one
                that averages over none ignores it.
            num_iterations: `K`; None runs the number that the reconstructor was made with.
            start: `x_0`; None is what the reconstructor was made with.
            back_projection: what stands for `A^H y` in every iteration.
            probe: `(f(x_k + w), x_k) -> tree`, averaged over the noise of each smoothed step; the
                result is then `(x, trees with a leading axis of K)`.
            return_trajectory: return all `K + 1` iterates.

        Raises:
            ValueError: a smoothed reconstructor got no `smoothing_key`, or one without smoothed
                steps got a `probe`.
        """


class Reconstructor(NamedTuple):
    """A reconstruction method `H` as pure functions of one signal.

    Attributes:
        init: `(key, operator, y) -> params`.
        apply: see `Apply`. With neither key nor jitter: the reconstruction that one deploys.
        learned_step: `(params, x) -> f(x)`, the bare network without smoothing; None if there is
            no such function of the iterate alone.
        weight: `(params, x) -> scalar`, the weight of a noisy copy in a weighted average; None
            where all weigh alike.
        smoothing: the noise that is averaged over in every iteration, or end to end; None if none.
    """

    init: Callable[[Array, LinearOperator, Array], Params]
    apply: Apply
    learned_step: Callable[[Params, Array], Array] | None = None
    weight: Callable[[Params, Array], Array] | None = None
    smoothing: Smoothing | None = None


def unrolled(
    method: Callable[..., Any],
    network: Network,
    scalars: Mapping[str, Scalar],
    *,
    num_iterations: int = 10,
    start: Literal["adjoint", "measurement"] = "adjoint",
    sees_measurement: bool = False,
    smoothing: Smoothing | None = None,
    weight_network: Network | None = None,
    remat: Remat = True,
) -> Reconstructor:
    """Returns the reconstructor that unrolls `method` around a network with shared weights.

    With `smoothing`, every learned step is an average over noisy copies of the iterate (SMUG), with
    `weight_network` a weighted one (Weighted SMUG). The noise is drawn anew in every step.

    Args:
        method: `gradient_descent`, `proximal_gradient`, `half_quadratic` or a function with their
            arguments, such as `partial(proximal_gradient, noise_step_size=0.1)`.
        network: the learned step. It sees real channels, last: a complex signal with `c` channels
            comes as `2 c` real ones (all real parts first) and its result is turned back.
        scalars: the numbers that the method takes by name, `step_size` or `regularisation`, each
            one of `jitter_jax.unroll.scalar`.
        num_iterations: `K`, at least 1.
        start: `x_0 = A^H y` or `x_0 = y`; the latter needs a measurement shaped like the signal.
        sees_measurement: concatenate `y` before the iterate along the channels, `f(y, x)`; needs a
            measurement shaped like the signal.
        smoothing: noise to average each learned step over; None does not.
        weight_network: gives each noisy copy, in real channels, its weight: a non-negative scalar.
        remat: what the backward pass recomputes; see `unroll`. Samples that are taken in chunks are
            recomputed whatever a policy says, and their averages are kept.

    Returns:
        A `Reconstructor` whose parameters are `{"network": ...}`, `"weight"` where there is a
        weight network, and each scalar that is learned by its name.

    Raises:
        ValueError: `num_iterations` is below 1, `start` is unknown, a weight network has nothing to
            weigh; when applied, the network does not give as many channels as the signal has.

    Source, for smoothing: Liang et al., "Robust MRI reconstruction by smoothed unrolling (SMUG)",
    eq. 5 and 11.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    if start not in ("adjoint", "measurement"):
        raise ValueError(f"start must be 'adjoint' or 'measurement', got {start!r}")
    if weight_network is not None and smoothing is None:
        raise ValueError("weight_network needs a smoothing, whose samples it weighs")
    if smoothing is not None and smoothing.chunk is not None and not isinstance(remat, bool):
        # A policy reaches into the chunks: it would keep its choice of all samples.
        remat = keep_averages

    def first_iterate(operator: LinearOperator, y: Array) -> Array:
        return operator.adjoint(y) if start == "adjoint" else y

    def network_input(x: Array, y: Array | None) -> Array:
        channels = to_channels(x)
        if not sees_measurement:
            return channels
        assert y is not None
        return jnp.concatenate([to_channels(y), channels], -1)

    def init(key: Array, operator: LinearOperator, y: Array) -> Params:
        x = first_iterate(operator, y)
        params = {"network": network.init(key, network_input(x, y))}
        if weight_network is not None:
            weight_key = jax.random.fold_in(key, 1)
            params["weight"] = weight_network.init(weight_key, to_channels(x))
        for name, scalar in scalars.items():
            if scalar.init is not None:
                params[name] = jnp.float32(scalar.init)
        return params

    def evaluate(params: Params, x: Array, y: Array | None) -> Array:
        return from_channels(network.apply(params["network"], network_input(x, y)), like=x)

    def weight(params: Params, x: Array) -> Array:
        assert weight_network is not None
        return weight_network.apply(params["weight"], to_channels(x))

    default_iterations, default_start = num_iterations, start

    def apply(
        params: Params,
        operator: LinearOperator,
        y: Array,
        *,
        key: Array | None = None,
        jitter: Jitter | None = None,
        smoothing_key: Array | None = None,
        num_iterations: int | None = None,
        start: Array | None = None,
        back_projection: Array | None = None,
        probe: Probe | None = None,
        return_trajectory: bool = False,
    ) -> Any:
        learned_step: Callable[..., Any] = lambda x: evaluate(params, x, y)
        if smoothing is None:
            smoothing_key = None
            if probe is not None:
                raise ValueError("probe needs a reconstructor whose learned steps are smoothed")
        else:
            if smoothing_key is None:
                raise ValueError("a smoothed reconstructor needs a smoothing_key")
            weigh = None if weight_network is None else lambda x: weight(params, x)
            learned_step = smooth(learned_step, smoothing, weight=weigh, probe=probe)
        if start is None and default_start == "measurement":
            start = y
        return method(
            learned_step,
            operator,
            y,
            **{name: scalar.value(params.get(name)) for name, scalar in scalars.items()},
            num_iterations=default_iterations if num_iterations is None else num_iterations,
            start=start,
            back_projection=back_projection,
            key=key,
            jitter=jitter,
            step_key=smoothing_key,
            has_aux=probe is not None,
            remat=remat,
            return_trajectory=return_trajectory,
        )

    return Reconstructor(
        init,
        apply,
        None if sees_measurement else lambda params, x: evaluate(params, x, None),
        None if weight_network is None else weight,
        smoothing,
    )


def to_channels(x: Array) -> Array:
    """Returns `x` with real channels: complex `(..., c)` becomes real `(..., 2 c)`."""
    return jnp.concatenate([x.real, x.imag], axis=-1) if jnp.iscomplexobj(x) else x


def from_channels(channels: Array, *, like: Array) -> Array:
    """Inverts `to_channels`; the result is complex if `like` is."""
    if not jnp.iscomplexobj(like):
        return channels
    real, imaginary = jnp.split(channels, 2, axis=-1)
    return jax.lax.complex(real, imaginary)
