"""Over which devices a leading axis is spread: examples of a batch, signals, Monte Carlo draws.

One program runs on every device, each with its own part of the axis (`jax.shard_map`, or
`jax.pmap`). The compiler could find such a program by itself from arrays that lie spread; but XLA
partitions no Fourier transform over a batch axis: it would gather all of them on every device.

Several processes run the same calls in the same order, and each holds its own part.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Array = jax.Array
Tree = Any

AXIS = "devices"
WHOLE = PartitionSpec()
SPLIT = PartitionSpec(AXIS)


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices in a row, as many of each process, those of the first process first.

    Attributes:
        mesh: the devices, along one axis named `AXIS`. The axis is one of those that the compiler
            handles (`AxisType.Auto`): explicit axes break `lax.map` and conjugate gradients.
    """

    mesh: Mesh

    @property
    def count(self) -> int:
        """How many there are, of all processes together."""
        return self.mesh.size

    def whole(self, tree: Tree) -> Tree:
        """Returns arrays that every device holds whole.

        Args:
            tree: arrays, typed keys too, with the same values in every process.
        """
        return _put(tree, NamedSharding(self.mesh, WHOLE))

    def split(self, tree: Tree) -> Tree:
        """Returns arrays whose leading axis is spread over the devices.

        Args:
            tree: arrays, with the same values in every process; the number of devices divides
                their leading axis.
        """
        return _put(tree, NamedSharding(self.mesh, SPLIT))

    def at_once(self, items: int) -> int:
        """Returns the smallest number of at least so many items that the devices divide."""
        return -(-items // self.count) * self.count

    def spread(self, function: Callable[..., Tree], in_specs: Any) -> Callable[..., Tree]:
        """Returns a function that every device calls with its part of the arguments.

        Args:
            function: returns arrays with a leading axis of its items, whose results hang on no
                other items.
            in_specs: of each argument, or part of one: `WHOLE`, or `SPLIT` along its leading axis.
        """
        if self.count == 1:
            return function
        # The check of what differs from device to device is for gradients inside of the function.
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=in_specs, out_specs=SPLIT, check_vma=False
        )


def choose_devices(num: int, count: int, *, name: str) -> Devices:
    """Returns the devices that an axis is spread over.

    Args:
        num: how many, of all processes together; 0 takes the most that divide the axis.
        count: length of the axis, at least 1.
        name: of the axis, for messages.

    Raises:
        ValueError: `num` is negative, above the number of devices or not a multiple of the number
            of processes; or it does not divide `count`.
    """
    processes, most = jax.process_count(), devices_at_most()
    accepted = [n for n in range(processes, most + 1, processes) if count % n == 0]
    if not accepted:
        raise ValueError(
            f"{name}={count} is not accepted: a multiple of the number of processes, "
            f"{processes}, is expected"
        )
    if num != 0 and not (0 < num <= most and num % processes == 0):
        multiple = f", a multiple of the {processes} processes" if processes > 1 else ""
        raise ValueError(
            f"devices.num={num} is not accepted: 0 (as many as divide {name}={count}) or a number "
            f"up to {most}, that of the devices{multiple}, is expected"
        )
    if num and num not in accepted:
        raise ValueError(
            f"{name}={count} is not accepted with devices.num={num}: {count} cannot be spread "
            f"evenly over {num} devices, but over one of {accepted}; devices.num=0 takes "
            f"{accepted[-1]}"
        )
    return first_devices(num or accepted[-1])


def devices_at_most() -> int:
    """Returns how many devices can share an axis, as many of every process."""
    of_processes = Counter(device.process_index for device in jax.devices())
    return min(of_processes.values()) * jax.process_count()


def first_devices(num: int) -> Devices:
    """Returns the first devices, as many of every process.

    Args:
        num: how many in all, a multiple of the number of processes.

    Raises:
        ValueError: there are not as many.
    """
    processes = jax.process_count()
    taken: dict[int, list[jax.Device]] = {process: [] for process in range(processes)}
    for device in jax.devices():
        if len(taken[device.process_index]) < num // processes:
            taken[device.process_index].append(device)
    row = [device for devices in taken.values() for device in devices]
    if num < 1 or len(row) != num:
        raise ValueError(
            f"num must be from 1 to {devices_at_most()}, that of the devices, and a multiple of "
            f"the number of processes, {processes}; got {num}"
        )
    return Devices(Mesh(np.array(row), (AXIS,), axis_types=(AxisType.Auto,)))


def spread_vmap(
    function: Callable[..., Tree], devices: Devices | None = None, *, axis_name: str = "spread"
) -> Callable[..., Tree]:
    """Returns `jax.vmap(function)` with the leading axis spread over devices.

    It can be differentiated. What the function closes over is held whole by every device.

    Args:
        function: of one item; any number of arrays.
        devices: None is `jax.vmap` alone. Their number divides the leading axis.
        axis_name: of the `vmap` axis, which holds the items of one device.
    """
    mapped = jax.vmap(function, axis_name=axis_name)
    return mapped if devices is None else devices.spread(mapped, SPLIT)


def fetch(tree: Tree) -> Tree:
    """Returns arrays as NumPy's, whole in every process, wherever they lie. Not for keys."""

    def one(array: Any) -> np.ndarray:
        if isinstance(array, jax.Array) and not (
            array.is_fully_addressable or array.is_fully_replicated
        ):
            from jax.experimental import multihost_utils

            array = multihost_utils.process_allgather(array, tiled=True)
        return np.asarray(array)

    return jax.tree.map(one, tree)


def is_first_process() -> bool:
    """Returns whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def place(array: Any, sharding: jax.sharding.Sharding) -> Array:
    """Returns an array laid out in some way, from one that every process holds whole.

    Args:
        array: an array of NumPy or JAX, or a typed key.
        sharding: the layout, perhaps over devices of several processes.
    """
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = place(jax.random.key_data(array), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    host = fetch(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _put(tree: Tree, sharding: NamedSharding) -> Tree:
    return jax.tree.map(lambda leaf: place(leaf, sharding), tree)
