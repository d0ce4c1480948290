"""ISTA-Net++ and ISTA-Net+: proximal gradient descent whose phases do not share their weights."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jitter_jax.networks import ConditionNetwork, ISTANetPlusPhase, ISTANetPPPhase
from jitter_jax.networks.precision import Precision, in_precision
from jitter_jax.operators import LinearOperator, block_sampling, sampled_ratio, whole_blocks
from jitter_jax.unroll.iterate import Jitter, Remat
from jitter_jax.unroll.proximal import proximal_gradient
from jitter_jax.unroll.reconstructor import (
    Params,
    Probe,
    Reconstructor,
    from_channels,
    to_channels,
)

Array = jax.Array
# (params, operator of the iterates, y, blocks down and across) -> arguments of proximal_gradient
_Prepare = Callable[[Params, LinearOperator, Array, tuple[int, int]], dict[str, Any]]


def ista_net_pp(
    *,
    num_phases: int = 20,
    width: int = 32,
    num_blocks: int = 2,
    ratio: Callable[[LinearOperator], Array] = sampled_ratio,
    precision: Precision = "default",
    remat: Remat = True,
) -> Reconstructor:
    """Returns ISTA-Net++, one network for every sampling ratio.

    `x_{k+1} = f_k(x_k - lambda_k A^H (A x_k - y), sigma_k)`, `x_0 = A^H y`, with a network `f_k`
    for each phase, and all `lambda_k` and `sigma_k` from one small network of the ratio. With the
    defaults and one channel: 760,220 parameters.

    With `operators.block_sampling` the iterates are images of whole blocks, padded with zeros,
    whose convolutions run across the blocks; the result is cut to the size of the image. The public
    code pads an image of whole blocks by one more block a side.

    Args:
        num_phases: `K`, at least 1.
        width: hidden channels of the phases.
        num_blocks: residual blocks of a phase.
        ratio: the scalar that stands for the operator. Another function than `sampled_ratio` makes
            the network one for other operators than `block_sampling`.
        precision: of the products in the networks; see `networks.in_precision`.
        remat: what the backward pass recomputes; see `unroll`.

    Returns:
        A `Reconstructor` whose parameters are `{"network": ...}`, with a leading axis of `K`, and
        `"condition"`. Its `num_iterations` cannot be another than `K`. A complex signal has its
        real and imaginary parts as channels of the networks.

    Raises:
        ValueError: `num_phases` is below 1 or `precision` unknown; when applied, another number of
            iterations or a `probe` is asked for, or `ratio` refuses the operator.

    Source: You, Xie and Zhang, "ISTA-Net++: flexible deep unfolding network for compressive
    sensing" (2021), and its public code.
    """
    _check_num_phases(num_phases)
    phase = in_precision(ISTANetPPPhase(width, num_blocks), precision)
    # Step sizes are numbers of the data step.
    condition = in_precision(ConditionNetwork(2 * num_phases), "float32")

    def init(key: Array, operator: LinearOperator, y: Array) -> Params:
        key_phases, key_condition = jax.random.split(key)
        return {
            "network": _init_phases(phase, num_phases, key_phases, operator, y, jnp.zeros(())),
            "condition": condition.init(key_condition, jnp.zeros(())),
        }

    def prepare(
        params: Params, operator: LinearOperator, y: Array, grid: tuple[int, int]
    ) -> dict[str, Any]:
        del y, grid
        step_size, level = jnp.split(condition.apply(params["condition"], ratio(operator)), 2)

        def learned_step(x: Array, own: tuple[Params, Array]) -> Array:
            weights, own_level = own
            return from_channels(phase.apply(weights, to_channels(x), own_level), like=x)

        phases = (params["network"], level)
        return {"learned_step": learned_step, "step_size": step_size, "phases": phases}

    return Reconstructor(init, _applied(prepare, num_phases, remat))


def ista_net_plus(
    *,
    num_phases: int = 9,
    width: int = 32,
    residual: bool = True,
    start_matrix: ArrayLike | None = None,
    precision: Precision = "default",
    remat: Remat = True,
) -> Reconstructor:
    """Returns ISTA-Net+, or without `residual` ISTA-Net, a network for one operator.

    `x_{k+1} = f_k(x_k - lambda_k A^H (A x_k - y))`, with learned numbers `lambda_k`, 0.5 at first.
    With the defaults and one channel: 336,978 parameters; ISTA-Net has 171,090.

    With `operators.block_sampling` every block is reconstructed by itself, with zeros around it;
    with other operators the convolutions run over the whole image, and the published networks for
    magnetic resonance imaging take `real_signals(cartesian_mri(mask))`.

    Args:
        num_phases: `K`, at least 1.
        width: hidden channels of the phases.
        residual: the form of ISTA-Net+; otherwise that of ISTA-Net.
        start_matrix: `Q`, `(b^2, M)`, for `block_sampling` alone: every block starts at `Q y`, the
            least squares estimate of a block from its measurement, with which the published
            networks were trained. `x_0 = A^H y` if None.
        precision: of the products in the networks; see `networks.in_precision`.
        remat: what the backward pass recomputes; see `unroll`.

    Returns:
        A `Reconstructor` whose parameters are `{"network": ..., "step_size": ...}`, each with a
        leading axis of `K`. Its `num_iterations` cannot be another than `K`. A complex signal has
        its real and imaginary parts as channels of the networks.

    Raises:
        ValueError: `num_phases` is below 1 or `precision` unknown; when applied, another number of
            iterations or a `probe` is asked for, or `start_matrix` does not fit the operator.

    Source: Zhang and Ghanem, "ISTA-Net: interpretable optimization-inspired deep network for image
    compressive sensing" (2018), and its public code.
    """
    _check_num_phases(num_phases)
    phase = in_precision(ISTANetPlusPhase(width, residual), precision)
    matrix = None if start_matrix is None else jnp.asarray(start_matrix)

    def init(key: Array, operator: LinearOperator, y: Array) -> Params:
        return {
            "network": _init_phases(phase, num_phases, key, operator, y),
            "step_size": jnp.full(num_phases, 0.5, jnp.float32),
        }

    def prepare(
        params: Params, operator: LinearOperator, y: Array, grid: tuple[int, int]
    ) -> dict[str, Any]:
        def learned_step(x: Array, weights: Params) -> Array:
            blocks = _to_blocks(to_channels(x), grid)
            return from_channels(_from_blocks(phase.apply(weights, blocks)), like=x)

        return {
            "learned_step": learned_step,
            "step_size": params["step_size"],
            "phases": params["network"],
            "start": None if matrix is None else _linear_start(matrix, operator, y, grid),
        }

    return Reconstructor(init, _applied(prepare, num_phases, remat))


def real_signals(operator: LinearOperator) -> LinearOperator:
    """Returns the operator on real signals, whose adjoint is `Re A^H`.

    For operators whose `A^H y` is complex, such as those of magnetic resonance imaging: the
    iterates of a method that starts at it are then real. `Re <A x, y> = <x, Re A^H y>` for all real
    `x` and complex `y`.

    Args:
        operator: the operator `A`.
    """
    support = None if operator.support_function is None else _same_support
    return LinearOperator(_same_forward, _real_adjoint, operator, support)


def _same_forward(operator: LinearOperator, x: Array) -> Array:
    return operator.forward(x)


def _real_adjoint(operator: LinearOperator, y: Array) -> Array:
    return operator.adjoint(y).real


def _same_support(operator: LinearOperator) -> Any:
    return operator.support()


def _check_num_phases(num_phases: int) -> None:
    if num_phases < 1:
        raise ValueError(f"num_phases must be at least 1, got {num_phases}")


def _init_phases(
    phase: Any, num_phases: int, key: Array, operator: LinearOperator, y: Array, *inputs: Array
) -> Params:
    """Returns the parameters of all phases, with a leading axis of `num_phases`."""
    signal = jax.eval_shape(lambda y: to_channels(operator.adjoint(y)), y)
    # The parameters depend on the channels alone, and initialising runs the network.
    x = jnp.zeros((3, 3, signal.shape[-1]), signal.dtype)
    keys = jax.random.split(key, num_phases)
    return jax.vmap(lambda key: phase.init(key, x, *inputs))(keys)


def _applied(prepare: _Prepare, num_phases: int, remat: Remat) -> Callable[..., Any]:
    """Returns the `Apply` of a network of `num_phases` phases."""

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
        del smoothing_key
        if num_iterations not in (None, num_phases):
            raise ValueError(
                f"num_iterations must be {num_phases}, the number of phases, got {num_iterations}"
            )
        if probe is not None:
            raise ValueError("probe needs a reconstructor whose learned steps are smoothed")
        crop, grid = lambda x: x, (1, 1)
        if (padding := _padding(operator)) is not None:
            (operator, crop), grid = padding, (y.shape[0], y.shape[1])
        arguments = prepare(params, operator, y, grid)
        if start is not None:
            arguments["start"] = _extended(start, operator.adjoint(y))
        if back_projection is not None:
            back_projection = _extended(back_projection, operator.adjoint(y))
        estimate = proximal_gradient(
            operator=operator,
            y=y,
            num_iterations=num_phases,
            back_projection=back_projection,
            key=key,
            jitter=jitter,
            remat=remat,
            return_trajectory=return_trajectory,
            **arguments,
        )
        return crop(estimate)

    return apply


def _padding(
    operator: LinearOperator,
) -> tuple[LinearOperator, Callable[[Array], Array]] | None:
    """Returns the sampling of whole blocks and the crop; None for operators without blocks."""
    try:
        return whole_blocks(operator)
    except ValueError:
        return None


def _extended(x: Array, whole: Array) -> Array:
    """Returns `whole`, a back projection on whole blocks, with `x` where the image is."""
    height, width = x.shape[:2]
    return whole.at[:height, :width].set(x)


def _linear_start(
    matrix: Array, operator: LinearOperator, y: Array, grid: tuple[int, int]
) -> Array:
    """Returns the image whose blocks are `Q y`."""
    shape = jax.eval_shape(operator.adjoint, y).shape[:2]
    expected = (math.prod(shape) // math.prod(grid), *y.shape[2:3])
    measured = operator.support()
    if _padding(operator) is None or measured is None or matrix.shape != expected:
        raise ValueError(
            "start_matrix needs an operator of block_sampling, and the shape (b * b, M) of its "
            f"adjoint on a block, got shape {matrix.shape} for measurements of shape {y.shape}"
        )
    # The adjoint of sampling with Q^H.
    sampling = block_sampling(matrix.T.conj(), shape=shape, rows=measured.reshape(-1))
    return sampling.adjoint(y)


def _to_blocks(x: Array, grid: tuple[int, int]) -> Array:
    """Cuts `(height, width, channels)` into `(*grid, rows, columns, channels)`."""
    (height, width, channels), (down, across) = x.shape, grid
    blocks = x.reshape(down, height // down, across, width // across, channels)
    return blocks.swapaxes(1, 2)


def _from_blocks(blocks: Array) -> Array:
    """Inverts `_to_blocks`."""
    down, across, rows, columns, channels = blocks.shape
    return blocks.swapaxes(1, 2).reshape(down * rows, across * columns, channels)
