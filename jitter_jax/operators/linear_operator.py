"""The pair (forward, adjoint) that every room above calls `A`, and what one can do with it."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

Array = jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["leaves"],
    meta_fields=["forward_function", "adjoint_function", "support_function"],
)
@dataclasses.dataclass(frozen=True)
class LinearOperator:
    """A linear map `A` and its adjoint `A^H` over a pytree of arrays.

    The arrays that define the map (wavelet, mask, matrix) are leaves, so an operator passes through
    `jit`, `vmap` and `grad` like any array: a batch of operators is one operator whose leaves have
    a leading axis. The two functions are static; give functions defined at module level, since a
    lambda made anew is a new operator to `jit`, which then compiles again.

    A setting that must be static too, such as a size or an axis, is a field of a frozen dataclass
    whose `__call__` is the function: made again with equal settings it equals the first, and `jit`
    does not compile again. The forward function that keeps every `step`-th entry::

        @dataclasses.dataclass(frozen=True)
        class Subsample:
            step: int

            def __call__(self, leaves, x):
                return x[:: self.step]

    Attributes:
        forward_function: `(leaves, x) -> A x`, linear in `x`.
        adjoint_function: `(leaves, y) -> A^H y`, with `<A x, y> = <x, A^H y>` for all `x`, `y`.
        leaves: pytree of arrays.
        support_function: `leaves -> bool array` that broadcasts to a measurement, False at entries
            that are never measured and always zero; None where every entry is measured.
    """

    forward_function: Callable[[Any, Array], Array]
    adjoint_function: Callable[[Any, Array], Array]
    leaves: Any = ()
    support_function: Callable[[Any], Array] | None = None

    def forward(self, x: Array) -> Array:
        """Returns `A x`."""
        return self.forward_function(self.leaves, x)

    def adjoint(self, y: Array) -> Array:
        """Returns `A^H y`."""
        return self.adjoint_function(self.leaves, y)

    def support(self) -> Array | None:
        """Returns where a measurement has entries, or None if everywhere.

        Noise and attacks live there alone.
        """
        return None if self.support_function is None else self.support_function(self.leaves)


def compose(outer: LinearOperator, inner: LinearOperator) -> LinearOperator:
    """Returns the product `outer inner`, which applies `inner` first.

    `(B A)^H = A^H B^H`.
    """
    support = None if outer.support_function is None else _compose_support
    return LinearOperator(_compose_forward, _compose_adjoint, (outer, inner), support)


def _compose_forward(leaves: tuple[LinearOperator, LinearOperator], x: Array) -> Array:
    outer, inner = leaves
    return outer.forward(inner.forward(x))


def _compose_adjoint(leaves: tuple[LinearOperator, LinearOperator], y: Array) -> Array:
    outer, inner = leaves
    return inner.adjoint(outer.adjoint(y))


def _compose_support(leaves: tuple[LinearOperator, LinearOperator]) -> Any:
    return leaves[0].support()


def normal(operator: LinearOperator) -> LinearOperator:
    """Returns the self-adjoint, positive semi-definite operator `A^H A`."""
    return LinearOperator(_normal, _normal, operator)


def _normal(operator: LinearOperator, x: Array) -> Array:
    return operator.adjoint(operator.forward(x))


def operator_norm(
    operator: LinearOperator,
    shape: tuple[int, ...],
    *,
    key: Array,
    dtype: DTypeLike = jnp.float32,
    num_iterations: int = 100,
) -> Array:
    """Estimates the spectral norm `||A||_2` by power iteration on `A^H A`.

    `v <- A^H A v / ||A^H A v||`, and `||A|| = ||A v||` at the end. The estimate approaches the norm
    from below; the relative error falls as `(lambda_2 / lambda_1)^(2 num_iterations)`.

    Args:
        operator: the operator `A`.
        shape: shape of one signal `x`.
        key: PRNG key of the start vector.
        dtype: dtype of `x`, real or complex.
        num_iterations: at least 1.

    Returns:
        Real scalar; 0 for the zero operator.

    Raises:
        ValueError: `num_iterations` is below 1.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")

    def iterate(v: Array) -> Array:
        u = operator.adjoint(operator.forward(v))
        norm = _norm(u)
        return u / jnp.where(norm > 0, norm, 1)

    # The first iteration stands outside the loop: a complex operator makes a real vector complex.
    v = iterate(jax.random.normal(key, shape, dtype))
    v = jax.lax.fori_loop(1, num_iterations, lambda _, v: iterate(v), v)
    return _norm(operator.forward(v))


def dot_test(
    operator: LinearOperator,
    shape: tuple[int, ...],
    *,
    key: Array,
    dtype: DTypeLike = jnp.float32,
) -> Array:
    """Measures how far `adjoint` is from the adjoint of `forward`.

    Draws Gaussian `x` and `y` and returns
    `|<A x, y> - <x, A^H y>| / max(||A x|| ||y||, ||x|| ||A^H y||)`, with
    `<a, b> = sum conj(a) b`. A true pair gives a few times the rounding error of `dtype`.

    Args:
        operator: the operator `A`.
        shape: shape of one signal `x`.
        key: PRNG key of the two vectors.
        dtype: dtype of `x`, real or complex. `y` takes the dtype that `A x` has.

    Returns:
        Scalar relative error, non-negative.
    """
    key_x, key_y = jax.random.split(key)
    x = jax.random.normal(key_x, shape, dtype)
    a_x = operator.forward(x)
    y = jax.random.normal(key_y, a_x.shape, a_x.dtype)
    ah_y = operator.adjoint(y)
    product = partial(jnp.vdot, precision=jax.lax.Precision.HIGHEST)
    gap = jnp.abs(product(a_x, y) - product(x, ah_y))
    return gap / jnp.maximum(_norm(a_x) * _norm(y), _norm(x) * _norm(ah_y))


def _norm(x: Array) -> Array:
    return jnp.linalg.norm(jnp.ravel(x))
