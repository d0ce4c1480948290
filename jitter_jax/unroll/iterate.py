"""The one loop under every unrolled reconstruction: a `lax.scan` over its iterations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jitter_jax.operators import LinearOperator

Array = jax.Array
# x -> f(x); with phases (x, phase) -> f(x), with a step key (x, key) -> f(x), with both
# (x, phase, key) -> f(x); with has_aux it returns (f(x), aux).
LearnedStep = Callable[..., Any]
# (key, iterate, k, num_iterations) -> noise of the shape and dtype of the iterate.
Jitter = Callable[[Array, Array, Array, int], Array]
# (x, k, key or None) -> (next x, aux or None); with phases (x, k, key or None, phase)
Iteration = Callable[..., tuple[Array, Any]]
# Whether to rematerialise, or a policy of `jax.checkpoint_policies` that says what to keep.
Remat = bool | Callable[..., bool]


def unroll(
    iteration: Iteration,
    start: Array,
    *,
    num_iterations: int,
    phases: Any = None,
    key: Array | None = None,
    remat: Remat = True,
    return_trajectory: bool = False,
    has_aux: bool = False,
) -> Any:
    """Applies `x, aux_k <- iteration(x, k, key_k)` for `k = 0, ..., num_iterations - 1`.

    The key is split once an iteration inside the scan, so the draws of the first iterations do not
    depend on how many follow.

    Args:
        iteration: one step; it keeps the shape and dtype of `x`.
        start: the iterate `x_0` of one signal.
        num_iterations: `K`, at least 1.
        phases: what each iteration has for itself, such as weights: a tree of arrays with a leading
            axis of `K`, whose `k`-th entries are the iteration's fourth argument. None if all are
            alike; it then has three.
        key: PRNG key handed down to the iterations; None hands down None.
        remat: recompute each iteration in the backward pass (`jax.checkpoint`), so that memory
            holds one iterate, not all activations, for each of the `K` steps. A policy keeps some
            of them, such as `jitter_jax.networks.layers.keep_costly`. False keeps all.
        return_trajectory: return every iterate.
        has_aux: return what the iterations gave beside `x`, too.

    Returns:
        `x_K`, or `(K + 1, *start.shape)` with `x_0` first when `return_trajectory`; when `has_aux`,
        that and the tree of aux, with a leading axis of `K`.

    Raises:
        ValueError: `num_iterations` is below 1, or a leading axis of `phases` differs from it.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    wrong = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(phases)} - {(num_iterations,)}
    if wrong:
        raise ValueError(
            f"phases must have a leading axis of num_iterations={num_iterations}, "
            f"got leading axes {sorted(wrong)}"
        )

    @jax.named_scope("iteration")
    def body(carry: tuple[Array, Array | None], step: tuple[Array, Any]):
        (x, key), (k, phase) = carry, step
        subkey = None
        if key is not None:
            key, subkey = jax.random.split(key)
        x, aux = iteration(x, k, subkey, *(() if phases is None else (phase,)))
        return (x, key), (x if return_trajectory else None, aux)

    # Inside a scan XLA cannot merge the recomputation with the forward pass, so the barriers that
    # prevent_cse adds would only cost.
    if remat:
        policy = None if remat is True else remat
        body = jax.checkpoint(body, prevent_cse=False, policy=policy)
    steps = jnp.arange(num_iterations), phases
    (x, _), (iterates, aux) = jax.lax.scan(body, (start, key), steps)
    result = jnp.concatenate([start[None], iterates]) if return_trajectory else x
    return (result, aux) if has_aux else result


@jax.named_scope("data_step")
def data_gradient(
    operator: LinearOperator, x: Array, y: Array, back_projection: Array | None = None
) -> Array:
    """Returns `A^H (A x - y)`, the gradient of `||A x - y||^2 / 2`.

    A `back_projection` takes the place of `A^H y`.
    """
    if back_projection is None:
        return operator.adjoint(operator.forward(x) - y)
    return operator.adjoint(operator.forward(x)) - back_projection


def starting_point(
    operator: LinearOperator, y: Array, start: Array | None, back_projection: Array | None = None
) -> Array:
    """Returns the first of `start`, `back_projection` and `A^H y` that is given."""
    if start is not None:
        return start
    return operator.adjoint(y) if back_projection is None else back_projection


def own_values(name: str, number: ArrayLike, num_iterations: int) -> ArrayLike | None:
    """Returns the numbers that each iteration has for itself, or None for one of them all.

    Args:
        name: of the argument, for the message.
        number: a scalar, or one for each iteration.
        num_iterations: `K`.

    Raises:
        ValueError: `number` is neither a scalar nor of shape `(num_iterations,)`.
    """
    shape = jnp.shape(number)
    if shape not in ((), (num_iterations,)):
        raise ValueError(
            f"{name} must be a scalar or have shape ({num_iterations},), one for each of the "
            f"num_iterations, got shape {shape}"
        )
    return number if shape else None


@jax.named_scope("learned_step")
def take_learned_step(
    learned_step: LearnedStep,
    x: Array,
    k: Array,
    step_key: Array | None,
    has_aux: bool,
    phase: Any = None,
) -> tuple[Array, Any]:
    """Returns `f(x)`, once its shape and dtype are known to be those of `x`, and its aux or None.

    Args:
        learned_step: `f`.
        x: the iterate.
        k: number of the iteration, folded into the key.
        step_key: PRNG key of a learned step that draws noise, `f(x, key)`; None calls `f(x)`.
        has_aux: whether `f` returns a pair.
        phase: what the iteration has for itself, `f(x, phase)`; None calls `f(x)`.

    Raises:
        ValueError: the shape or dtype differs.
    """
    own = () if phase is None else (phase,)
    keys = () if step_key is None else (jax.random.fold_in(step_key, k),)
    output = learned_step(x, *own, *keys)
    result, aux = output if has_aux else (output, None)
    result = jnp.asarray(result)
    # Another shape could broadcast silently; another dtype would fail deep inside the scan.
    if (result.shape, result.dtype) != (x.shape, x.dtype):
        raise ValueError(
            "learned_step must keep the shape and dtype of the iterate, "
            f"{x.shape} {x.dtype}, got {result.shape} {result.dtype}"
        )
    return result, aux


def check_jitter(key: Array | None, jitter: Jitter | None) -> None:
    """Raises ValueError unless the key and the jitter come together."""
    if (key is None) != (jitter is None):
        given, missing = ("jitter", "key") if key is None else ("key", "jitter")
        raise ValueError(f"jitter needs both a key and a jitter: {given} came without {missing}")
