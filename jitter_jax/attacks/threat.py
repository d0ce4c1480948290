"""Threats: what an attacker may add, where, in which norm, how much of it, in which unit."""

import dataclasses
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.operators import LinearOperator

Array = jax.Array
Norm = Literal["l2", "linf"]
Space = Literal["measurement", "signal"]
Unit = Literal["absolute", "relative", "per_pixel"]


@partial(jax.tree_util.register_dataclass, data_fields=["radius", "support"], meta_fields=["norm"])
@dataclasses.dataclass(frozen=True)
class Ball:
    """The set `{delta : ||delta|| <= radius}` in which an attack searches.

    A complex array is a vector of its real and imaginary parts: `l2` is the usual norm, and `linf`
    bounds each part by itself.

    Attributes:
        radius: non-negative scalar.
        norm: `"l2"` or `"linf"`.
        support: bool array that broadcasts to `delta`; perturbations are zero where it is False,
            such as at points of k-space that no scanner samples. None is everywhere.
    """

    radius: Array
    norm: Norm
    support: Array | None = None

    def project(self, delta: Array) -> Array:
        """Returns the point of the ball nearest to `delta`."""
        delta = self._restrict(delta)
        if self.norm == "l2":
            norm = _l2(delta)
            return delta * jnp.where(norm > self.radius, self.radius / _nonzero(norm), 1)
        return _on_parts(lambda part: jnp.clip(part, -self.radius, self.radius), delta)

    def steepest(self, ascent: Array) -> Array:
        """Returns the unit step in this norm that gains most along `ascent`.

        `l2`: `ascent / ||ascent||_2`; `linf`: `sign(ascent)`; zero where `ascent` is zero, however
        small it is elsewhere.
        """
        ascent = self._restrict(ascent)
        if self.norm == "linf":
            return _on_parts(jnp.sign, ascent)
        # Scaled by its largest entry first: the squares of a tiny gradient underflow.
        scaled = ascent / _nonzero(jnp.max(jnp.abs(ascent)))
        return scaled / _nonzero(_l2(scaled))

    def sample(self, key: Array, like: Array, *, on_sphere: bool = False) -> Array:
        """Draws a point uniformly from the ball, or from its surface.

        Args:
            key: PRNG key.
            like: array whose shape and dtype the draw takes.
            on_sphere: draw from the surface `||delta|| = radius`.
        """
        key_direction, key_radius = jax.random.split(key)
        parts = 2 if jnp.iscomplexobj(like) else 1
        shape, dtype = (parts, *like.shape), like.real.dtype
        if self.norm == "linf":
            unit = self._restrict(jax.random.uniform(key_direction, shape, dtype, -1.0, 1.0))
            # Pushed out radially, a uniform draw of the cube is uniform on its surface.
            unit = unit / _nonzero(jnp.max(jnp.abs(unit))) if on_sphere else unit
        else:
            unit = self._restrict(jax.random.normal(key_direction, shape, dtype))
            unit = unit / _nonzero(_l2(unit))
            if not on_sphere:
                # The share of the volume within r grows as r^n.
                exponent = jnp.asarray(1 / (parts * _count(like, self.support)), dtype)
                unit = unit * jax.random.uniform(key_radius, (), dtype) ** exponent
        unit = unit * self.radius
        return jax.lax.complex(unit[0], unit[1]) if parts == 2 else unit[0]

    def _restrict(self, delta: Array) -> Array:
        if self.support is None:
            return delta
        return jnp.where(jnp.broadcast_to(self.support, delta.shape), delta, 0)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["epsilon"],
    meta_fields=["space", "norm", "unit"],
)
@dataclasses.dataclass(frozen=True)
class Threat:
    """A ball of perturbations whose size is declared with its unit.

    `epsilon` is a leaf, so that one compiled attack serves a whole curve of epsilons.

    Attributes:
        epsilon: size, non-negative, in `unit`.
        space: `"measurement"` perturbs `y + delta`; `"signal"` perturbs what is measured,
            `y + A delta`.
        norm: `"l2"` or `"linf"`.
        unit: what `epsilon = 1` means. `"absolute"`: a norm of 1. `"relative"`: the norm, of the
            same kind, of the reference: of `y` in measurement space, of `x` in signal space.
            `"per_pixel"`: a root mean square of 1 an entry (`l2`: a norm of `sqrt(n)`), and for
            `linf` the same as `"absolute"`.
    """

    epsilon: float | Array
    space: Space = "measurement"
    norm: Norm = "l2"
    unit: Unit = "absolute"

    def __post_init__(self):
        for name, accepted in (("space", Space), ("norm", Norm), ("unit", Unit)):
            value = getattr(self, name)
            if value not in get_args(accepted):
                raise ValueError(f"{name} must be one of {get_args(accepted)}, got {value!r}")
        # Inside a transformation epsilon is a tracer or a placeholder, without a value to check.
        if isinstance(self.epsilon, int | float | np.ndarray | np.number):
            if not np.all(np.isfinite(self.epsilon)) or np.any(np.asarray(self.epsilon) < 0):
                raise ValueError(f"epsilon must be finite and non-negative, got {self.epsilon}")

    def ball(self, reference: Array, support: Array | None = None) -> Ball:
        """Returns the ball in absolute units.

        Args:
            reference: the array that perturbations are added to: `y` in measurement space, `x` in
                signal space.
            support: where perturbations may live, bool, broadcasts to `reference`; None is
                everywhere. In measurement space this is `operator.support()`.
        """
        real = reference.real.dtype
        radius = jnp.asarray(self.epsilon, real)
        if self.unit == "relative":
            largest = jnp.max(_on_parts(jnp.abs, reference).real)
            if jnp.iscomplexobj(reference):
                largest = jnp.maximum(largest, jnp.max(jnp.abs(reference.imag)))
            radius = radius * (_l2(reference) if self.norm == "l2" else largest)
        elif self.unit == "per_pixel" and self.norm == "l2":
            radius = radius * jnp.sqrt(jnp.asarray(_count(reference, support), real))
        return Ball(radius, self.norm, support)

    def ball_at(self, operator: LinearOperator, x: Array, y: Array) -> Ball:
        """Returns the ball of one signal `x` that an operator measures as `y`.

        In measurement space it is a ball around `y` on the points that the operator measures, in
        signal space one around `x`.
        """
        if self.space == "signal":
            return self.ball(x)
        return self.ball(y, operator.support())


def _count(like: Array, support: Array | None) -> int | Array:
    if support is None:
        return like.size
    return jnp.maximum(jnp.sum(jnp.broadcast_to(support, like.shape)), 1)


def _l2(x: Array) -> Array:
    return jnp.linalg.norm(jnp.ravel(x))


def _nonzero(x: Array) -> Array:
    return jnp.where(x > 0, x, 1)


def _on_parts(function, x: Array) -> Array:
    if jnp.iscomplexobj(x):
        return jax.lax.complex(function(x.real), function(x.imag))
    return function(x)
