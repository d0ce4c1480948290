"""One training step, as a pure function of a state and a batch."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any
Metrics = dict[str, jax.Array]
# (params, batch, key) -> (value, aux); with levels (params, batch, key, level)
Loss = Callable[..., tuple[jax.Array, Metrics]]


class TrainState(NamedTuple):
    """Everything that the next step needs.

    Attributes:
        step: How many steps were taken, int32, shape ().
        params: The parameters that the loss is differentiated by, any pytree of arrays.
        opt_state: The optimizer's state.
        average: The running average of `params`, same structure and shapes, or None.
        key: The run's typed random key. It is never advanced: a step folds its number in.
    """

    step: jax.Array
    params: PyTree
    opt_state: PyTree
    average: PyTree
    key: jax.Array


Step = Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]


def init_state(
    params: PyTree,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *,
    average_decay: float | None = None,
) -> TrainState:
    """Returns the state before the first step.

    Args:
        params: Initial parameters, a pytree of arrays or numbers. They are copied, so that a
            step that donates its state leaves the caller's arrays alone.
        optimizer: The Optax transformation that the step will use.
        key: The run's random key, typed (`jax.random.key(seed)`), shape ().
        average_decay: Decay of the average of the parameters, in (0, 1); None keeps no average.

    Returns:
        The state of step 0. Its average starts as the initial parameters, which the first step
        replaces altogether.

    Raises:
        TypeError: If `key` is not a typed key.
        ValueError: If `average_decay` is outside (0, 1).
    """
    if not jnp.issubdtype(jnp.asarray(key).dtype, jax.dtypes.prng_key):
        raise TypeError(f"key must be a typed key, as jax.random.key(seed) makes; got {key!r}")
    _check_decay(average_decay)
    params = _copy(params)
    data = jnp.array(jax.random.key_data(key))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        average=None if average_decay is None else _copy(params),
        key=jax.random.wrap_key_data(data, impl=jax.random.key_impl(key)),
    )


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    average_decay: float | None = None,
    reduce: Callable[[PyTree], PyTree] | None = None,
    num_levels: int | None = None,
) -> Step:
    r"""Makes the function that takes one optimizer step.

    With parameters :math:`p_1, \dots, p_t` after each step and decay :math:`d`, the average is

    .. math:: a_t = \sum_{i=1}^t d^{t-i} p_i \Big/ \sum_{i=1}^t d^{t-i}.

    The function is pure and not compiled: wrap it in `jax.jit`, `jax.pmap` or `jax.shard_map`.

    Args:
        loss: `loss(params, batch, key) -> (value, aux)`, with a real scalar to minimise and a
            dictionary of scalars to report. The key belongs to the step; randomness that belongs
            to an example is drawn from this key with the example's own index folded in.
        optimizer: The Optax transformation that turns gradients into updates.
        average_decay: The decay d, in (0, 1), the same that `init_state` was given; or None.
        reduce: Applied to `(value, aux, gradients)` before anything is made of them. With one
            shard of the batch on each device this must average over devices, as
            `functools.partial(jax.lax.pmean, axis_name="devices")` does under `pmap`.
        num_levels: The loss is `loss(params, batch, key, level)`, and a step takes one of the
            optimizer for each level 0, 1, ..., with the same batch and key. The state counts them
            as one; metrics are means over the levels.

    Returns:
        `step(state, batch) -> (state, metrics)`. The metrics are scalars: what is in `aux`, the
        `loss` and the global `grad_norm` before clipping, and a boolean `finite`. Where `finite`
        is False the loss, the gradients or the updated parameters hold an infinity or a NaN, and
        the step has left parameters, optimizer and average as they were.

    Raises:
        ValueError: If `average_decay` is outside (0, 1), or `num_levels` is below 1.
    """
    _check_decay(average_decay)
    if num_levels is not None and num_levels < 1:
        raise ValueError(f"num_levels must be None or at least 1, got {num_levels}")
    value_and_gradient = jax.value_and_grad(loss, has_aux=True)

    def update(state: TrainState, batch: PyTree, key: jax.Array, *level: jax.Array):
        (value, aux), gradients = value_and_gradient(state.params, batch, key, *level)
        if reduce is not None:
            value, aux, gradients = reduce((value, aux, gradients))
        _check_aux(aux)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = None
        if average_decay is not None:
            number = state.step + 1
            if num_levels is not None:
                number = state.step * num_levels + level[0] + 1
            average = _update_average(state.average, params, number, average_decay)
        grad_norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(value) & jnp.isfinite(grad_norm) & _all_finite(params)
        params, opt_state, average = jax.tree.map(
            functools.partial(_choose, finite),
            (params, opt_state, average),
            (state.params, state.opt_state, state.average),
        )
        metrics = {**aux, "loss": value, "grad_norm": grad_norm, "finite": finite}
        return TrainState(state.step, params, opt_state, average, state.key), metrics

    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        if (state.average is None) != (average_decay is None):
            raise ValueError(
                "init_state and make_step need the same average_decay; make_step was given "
                f"{average_decay}, and the state has {'no' if state.average is None else 'an'} "
                "average"
            )
        key = jax.random.fold_in(state.key, state.step)
        if num_levels is None:
            new, metrics = update(state, batch, key)
        else:
            new, every = jax.lax.scan(
                lambda state, level: update(state, batch, jax.random.clone(key), level),
                state,
                jnp.arange(num_levels),
            )
            metrics = {name: jnp.mean(values) for name, values in every.items()}
            metrics["finite"] = jnp.all(every["finite"])
        return new._replace(step=state.step + 1), metrics

    return step


def eval_params(state: TrainState) -> PyTree:
    """Returns the parameters to evaluate with: the average where there is one."""
    return state.params if state.average is None else state.average


def _update_average(average: PyTree, params: PyTree, number: jax.Array, decay: float) -> PyTree:
    # 1 - d^t by expm1: the difference loses three digits in float32 when d is close to 1.
    weight = (1.0 - decay) / -jnp.expm1(number * math.log(decay))
    return jax.tree.map(lambda a, p: (a + weight * (p - a)).astype(a.dtype), average, params)


def _choose(finite: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    # A key is always finite, and the update has used the old one up.
    is_key = jnp.issubdtype(new.dtype, jax.dtypes.prng_key)
    return new if is_key else jnp.where(finite, new, old)


def _all_finite(tree: PyTree) -> jax.Array:
    finite = jnp.array(True)
    for leaf in jax.tree.leaves(tree):
        finite &= jnp.isfinite(leaf).all()
    return finite


def _copy(tree: PyTree) -> PyTree:
    # An explicit dtype makes weakly typed numbers strong; otherwise the second step, whose
    # state comes from the first, would be compiled again.
    return jax.tree.map(lambda x: jnp.array(x, dtype=jnp.asarray(x).dtype), tree)


def _check_decay(average_decay: float | None) -> None:
    if average_decay is not None and not 0 < average_decay < 1:
        raise ValueError(f"average_decay must be None or in (0, 1), got {average_decay}")


def _check_aux(aux: Metrics) -> None:
    for name, value in aux.items():
        if name in ("loss", "grad_norm", "finite"):
            raise ValueError(f"the loss reports {name!r} in its aux; the step needs that name")
        if jnp.shape(value) != ():
            raise ValueError(f"aux[{name!r}] must be a scalar, got shape {jnp.shape(value)}")
