"""Randomised smoothing: Monte Carlo averages of any function over Gaussian noise.

`g(x) = E f(x + w)` with `w ~ N(0, sigma^2 I)`, and the weighted
`g_w(x) = E [w(x + w) f(x + w)] / E [w(x + w)]`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from jitter_jax.devices import Devices, spread_vmap
from jitter_jax.networks.layers import COSTLY_RESULT
from jitter_jax.noise import normal_like

Array = jax.Array
Tree = Any

# What is divided by, the mean of the weights, is kept above this; the public code of Weighted SMUG
# keeps their sum above it.
_SMALLEST_WEIGHT = 1e-8
_AVERAGE = "average"

keep_averages = jax.checkpoint_policies.save_only_these_names(_AVERAGE)
"""Policy for `jax.checkpoint`: keep averages over noise, recompute their samples."""


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """The noise that is averaged over, and how.

    Attributes:
        sigma: standard deviation of each entry, non-negative, in the unit of what is smoothed; of
            complex entries that of the real and of the imaginary part.
        num_samples: Monte Carlo samples, at least 1.
        chunk: samples computed at once, which bounds the memory; None takes all. A derivative then
            recomputes each chunk.
        clamp: noisy real and imaginary parts are cut to `[-clamp, clamp]`, as the public code of
            SMUG does with 1; the papers have no such thing, and None leaves it out.

    Raises:
        ValueError: a value is out of range.
    """

    sigma: float
    num_samples: int = 10
    chunk: int | None = None
    clamp: float | None = None

    def __post_init__(self):
        if not (np.isfinite(self.sigma) and self.sigma >= 0):
            raise ValueError(f"sigma must be finite and non-negative, got {self.sigma}")
        check_samples(self.num_samples, self.chunk)
        if self.clamp is not None and not self.clamp > 0:
            raise ValueError(f"clamp must be positive or None, got {self.clamp}")

    def perturb(self, key: Array, x: Array, support: Array | None = None) -> Array:
        """Returns a noisy copy of `x`, unchanged where `support` is False."""
        noisy = x + self.sigma * normal_like(key, x, support)
        if self.clamp is None:
            return noisy
        cut = lambda part: jnp.clip(part, -self.clamp, self.clamp)
        if jnp.iscomplexobj(x):
            return jax.lax.complex(cut(noisy.real), cut(noisy.imag))
        return cut(noisy)


def check_samples(num_samples: int, chunk: int | None) -> None:
    """Raises ValueError unless both count at least 1."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 or None, got {chunk}")


def monte_carlo(
    draw: Callable[[Tree], Tree],
    key: Tree,
    *,
    num_samples: int,
    chunk: int | None = None,
    devices: Devices | None = None,
) -> Tree:
    """Returns `mean_s draw(key_s)`, with key `s` the `key` folded with the number `s`.

    Sample `s` is the same whatever the number of samples and the chunk. The `vmap` axis of the
    samples of a chunk is named `"samples"`.

    Args:
        draw: one sample, a tree of arrays, from a key.
        key: PRNG key, or a tree of keys, each of which is folded.
        num_samples: at least 1.
        chunk: samples computed at once; None takes all.
        devices: over which the samples computed at once are spread; the axis `"samples"` then has
            those of one device.

    Raises:
        ValueError: a count is below 1, or the devices do not divide it.
    """
    check_samples(num_samples, chunk)
    for name, count in (("num_samples", num_samples), ("chunk", chunk)):
        if devices is not None and count is not None and count % devices.count:
            raise ValueError(
                f"{name} must be a multiple of the number of devices, {devices.count}; got {count}"
            )

    def total(numbers: Array) -> Tree:
        def one(number: Array) -> Tree:
            return draw(jax.tree.map(lambda k: jax.random.fold_in(k, number), key))

        return jax.tree.map(
            lambda values: jnp.sum(values, axis=0),
            spread_vmap(one, devices, axis_name="samples")(numbers),
        )

    numbers = jnp.arange(num_samples)
    if chunk is None or chunk >= num_samples:
        result = total(numbers)
    else:
        whole = num_samples // chunk * chunk
        # Without this a derivative would keep what every chunk computed.
        part = jax.checkpoint(total, prevent_cse=False)

        def add(sums: Tree, numbers: Array) -> tuple[Tree, None]:
            return jax.tree.map(jnp.add, sums, part(numbers)), None

        result = jax.tree.map(
            lambda shape: jnp.zeros(shape.shape, shape.dtype), jax.eval_shape(total, numbers)
        )
        result, _ = jax.lax.scan(add, result, numbers[:whole].reshape(-1, chunk))
        if whole < num_samples:
            result = jax.tree.map(jnp.add, result, part(numbers[whole:]))
    return jax.tree.map(lambda sums: sums / num_samples, result)


def smooth(
    function: Callable[[Array], Array],
    smoothing: Smoothing,
    *,
    weight: Callable[[Array], Array] | None = None,
    probe: Callable[[Array, Array], Tree] | None = None,
    devices: Devices | None = None,
) -> Callable[[Array, Array], Any]:
    """Returns `(x, key) -> g(x)`, the average of `function` over noisy copies of `x`.

    Args:
        function: any `f` from an array to an array.
        smoothing: the noise.
        weight: `w`, from a noisy copy to a non-negative scalar; None weighs all alike.
        probe: `(f(x + w), x) -> tree` is averaged as well, without weights.
        devices: over which the samples computed at once are spread.

    Returns:
        A function of `x` and a PRNG key; it returns `g(x)`, or `(g(x), average of the probe)`.

    Source: Cohen, Rosenfeld and Kolter (2019); Liang et al., "Robust MRI reconstruction by smoothed
    unrolling (SMUG)", eq. 4 and 10.
    """

    def smoothed(x: Array, key: Array) -> Any:
        def draw(key: Array) -> Tree:
            noisy = smoothing.perturb(key, x)
            value = function(noisy)
            probed = None if probe is None else probe(value, x)
            if weight is None:
                return value, None, probed
            share = weight(noisy)
            return share * value, share, probed

        mean, share, probed = monte_carlo(
            draw,
            key,
            num_samples=smoothing.num_samples,
            chunk=smoothing.chunk,
            devices=devices,
        )
        # Where the samples are recomputed in chunks, keeping their mean saves one pass over them.
        mean = _kept(mean)
        if weight is not None:
            mean = mean / jnp.maximum(_kept(share), _SMALLEST_WEIGHT)
        return mean if probe is None else (mean, probed)

    return smoothed


def _kept(x: Array) -> Array:
    if jnp.iscomplexobj(x):  # which a policy that keeps names does not take
        return jax.lax.complex(_kept(x.real), _kept(x.imag))
    return checkpoint_name(checkpoint_name(x, COSTLY_RESULT), _AVERAGE)


def chunk_for_memory(
    function: Callable[[Tree], Array], x: Tree, *, budget_bytes: float, num_samples: int
) -> int:
    """Returns how many samples of a smoothed function fit a memory budget.

    The compiler is asked what temporaries one sample's value and derivative in `x` need.

    Args:
        function: what is smoothed, from `x` to an array.
        x: floating-point arrays, or their `jax.ShapeDtypeStruct`: the input, or a tree of it and
            the parameters that are trained.
        budget_bytes: memory for temporaries, positive.
        num_samples: the most that is returned.

    Raises:
        ValueError: `budget_bytes` is not positive, or `num_samples` is below 1.
    """
    if not budget_bytes > 0:
        raise ValueError(f"budget_bytes must be positive, got {budget_bytes}")
    check_samples(num_samples, None)
    if num_samples == 1:
        return 1

    def energy(x: Tree) -> Array:
        return jnp.sum(jnp.square(jnp.abs(function(x))))

    analysis = jax.jit(jax.value_and_grad(energy)).lower(x).compile().memory_analysis()
    if analysis is None:  # not every backend tells
        return 1
    return int(np.clip(budget_bytes // max(analysis.temp_size_in_bytes, 1), 1, num_samples))
