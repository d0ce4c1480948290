"""The training step over several devices, and several steps in one program."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jitter_jax.devices import AXIS, SPLIT, WHOLE, Devices
from jitter_jax.train.step import PyTree, Step, TrainState

Parallel = Literal["jit", "pmap"]
# From what averages a tree over the devices, None of a single one, to the step that uses it.
MakeStep = Callable[[Callable[[PyTree], PyTree] | None], Step]


class ParallelStep(NamedTuple):
    """A compiled step, and how what it takes comes to the devices.

    Attributes:
        step: `(state, batches) -> (state, metrics)`. It donates its state. With several steps in
            one program, metrics have a leading axis of steps.
        put_state: lays a state out as `step` takes it and returns it.
        put_batches: `[batch, ...] -> batches`, from as many batches on the host as there are steps
            in the program. Of several processes, each gives its own rows.
    """

    step: Step
    put_state: Callable[[TrainState], TrainState]
    put_batches: Callable[[list[PyTree]], PyTree]


def parallel_step(
    make: MakeStep, devices: Devices, *, parallel: Parallel = "jit", num_steps: int = 1
) -> ParallelStep:
    r"""Makes the compiled step whose batch is spread over devices.

    Device :math:`d` of :math:`D` has the rows :math:`d B/D, \dots, (d + 1) B/D - 1` of a batch, and
    :math:`g = \tfrac1D \sum_d g_d` of loss, reported scalars and gradient. For a loss that is a
    mean over the examples this is that of the whole batch; randomness that is drawn by an
    example's own index is the very same. A maximum over the batch would become a mean of maxima.

    Args:
        make: `make(reduce) -> step`, such as `lambda reduce: make_step(..., reduce=reduce)`.
        devices: where.
        parallel: `"jit"` compiles by `jax.jit` and `jax.shard_map`, `"pmap"` by `jax.pmap`.
        num_steps: steps in one program, by `lax.scan`, at least 1.

    Raises:
        ValueError: `parallel` is unknown, or `num_steps` is below 1.
    """
    if parallel not in get_args(Parallel):
        raise ValueError(
            f"parallel={parallel!r} is not accepted: one of {list(get_args(Parallel))} is expected"
        )
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    if parallel == "pmap":
        return _by_pmap(make, devices, num_steps)
    return _by_jit(make, devices, num_steps)


def _by_jit(make: MakeStep, devices: Devices, num_steps: int) -> ParallelStep:
    if devices.count == 1:
        single = jax.jit(_repeated(make(None), num_steps), donate_argnums=0)
        return ParallelStep(single, lambda state: state, lambda rows: jax.device_put(_stack(rows)))
    # A device's gradient is made before the average. The check of what differs from device to
    # device would take it for that of parameters which all share: D times too large.
    spec = PartitionSpec(None, AXIS) if num_steps > 1 else SPLIT
    mapped = jax.shard_map(
        _repeated(make(_mean), num_steps),
        mesh=devices.mesh,
        in_specs=(WHOLE, spec),
        out_specs=WHOLE,
        check_vma=False,
    )
    layout = NamedSharding(devices.mesh, spec)
    return ParallelStep(
        jax.jit(mapped, donate_argnums=0),
        devices.whole,
        lambda rows: jax.tree.map(
            partial(jax.make_array_from_process_local_data, layout), _stack(rows)
        ),
    )


def _by_pmap(make: MakeStep, devices: Devices, num_steps: int) -> ParallelStep:
    mapped = jax.pmap(
        _repeated(make(_mean), num_steps),
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=0,
        devices=list(devices.mesh.devices),
    )
    # Of several processes `pmap` takes and returns what lies on this one's devices.
    here = Devices(devices.mesh.local_mesh)
    layout = NamedSharding(here.mesh, SPLIT)

    def put_batches(rows: list[PyTree]) -> PyTree:
        def one(array: np.ndarray) -> jax.Array:
            # (steps, rows, ...) to (devices, steps, rows of a device, ...)
            axis = 1 if num_steps > 1 else 0
            shape = (*array.shape[:axis], here.count, -1, *array.shape[axis + 1 :])
            return jax.device_put(np.moveaxis(array.reshape(shape), axis, 0), layout)

        return jax.tree.map(one, _stack(rows))

    return ParallelStep(mapped, here.whole, put_batches)


_mean = partial(jax.lax.pmean, axis_name=AXIS)


def _repeated(step: Step, num_steps: int) -> Step:
    if num_steps == 1:
        return step
    return lambda state, batches: jax.lax.scan(step, state, batches)


def _stack(rows: list[PyTree]) -> PyTree:
    return rows[0] if len(rows) == 1 else jax.tree.map(lambda *parts: np.stack(parts), *rows)
