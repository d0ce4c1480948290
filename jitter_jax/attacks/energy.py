"""Where the energy of a perturbation went: which part of k-space, and whether it was sampled."""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.operators import LinearOperator, centred_ifft2

Array = jax.Array
# (operator, perturbation of a measurement) -> fractions by name
EnergyShares = Callable[[LinearOperator, Array], dict[str, Array]]

# Radii that divide k-space into rings, as fractions of the way from its centre to its edge.
RINGS = (0.1, 0.25, 0.5, 1.0)


def kspace_energy(operator: LinearOperator, change: Array) -> dict[str, Array]:
    """Returns the fractions of `||change||^2` by place in centred k-space.

    Args:
        operator: the operator A of MRI, with one coil or several, in any reading of its adjoint.
        change: what an attack added to a measurement, `(height, width, coils)`.

    Returns:
        `"unsampled"`, and for the rings between the radii of `RINGS` `"radius 0-0.1"` and so on, up
        to `"radius > 1"`, the corners. A radius is `sqrt(u^2 + v^2)` with `u` and `v` from -1 to 1.
        The rings add up to 1, or to 0 without energy.
    """
    energy = jnp.square(jnp.abs(change))
    total = jnp.sum(energy)
    divisor = jnp.where(total > 0, total, 1)
    sampled = operator.support()
    if sampled is None:
        # In the reading that lets attacks anywhere, what A makes of a flat spectrum is its mask.
        sampled = jnp.abs(operator.forward(centred_ifft2(jnp.ones_like(change)))) > 0.5
    unsampled = jnp.where(sampled, 0, energy)
    shares = {"unsampled": jnp.sum(unsampled) / divisor}
    height, width = change.shape[:2]
    v, u = ((np.arange(n) - n // 2) / (n / 2) for n in (height, width))
    radius = np.sqrt(v[:, None] ** 2 + u[None, :] ** 2)
    per_point = jnp.sum(energy.reshape(height, width, -1), axis=-1)
    edges = (-1.0, *RINGS, np.inf)
    for low, high in pairwise(edges):
        inside = (radius > low) & (radius <= high)
        name = f"radius > {low:g}" if np.isinf(high) else f"radius {max(low, 0):g}-{high:g}"
        shares[name] = jnp.sum(jnp.where(inside, per_point, 0)) / divisor
    return shares
