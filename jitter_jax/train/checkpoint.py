"""Checkpoints: the whole state of a run, saved and restored at once.

A checkpoint is `<workdir>/checkpoints/<step>/`, written by Orbax into a temporary folder and then
renamed. It holds the parameters, their average, the rest of the train state, and the loop's
progress (JSON). Arrays are stored under their path in the pytree ("Dense_0/kernel").
"""

import contextlib
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.devices import place
from jitter_jax.train.step import PyTree, TrainState

CHECKPOINTS_FOLDER = "checkpoints"
Arrays = dict[str, np.ndarray]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, or is not of this network."""


class Checkpoints:
    """The checkpoints of one run, newest last.

    Use as a context manager, or call `close`.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, keep: int | None = None):
        """Opens the folder; nothing is made before the first save.

        Args:
            workdir: The run's folder.
            keep: How many of the newest checkpoints stay, at least 1; None deletes nothing.

        Raises:
            ValueError: If `keep` is below 1.
        """
        import orbax.checkpoint as ocp

        check_keep(keep)
        self.folder = Path(workdir).absolute() / CHECKPOINTS_FOLDER
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            # Saving takes a tenth of a second: not worth a thread in which an error could be lost.
            enable_async_checkpointing=False,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the folder."""
        self._manager.close()

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, in increasing order."""
        return sorted(self._manager.all_steps())

    def path(self, step: int) -> Path:
        """Returns the folder of one checkpoint."""
        return self.folder / str(step)

    def save(
        self,
        state: TrainState,
        progress: Mapping[str, Any],
        *,
        validation: Mapping[str, float] | None = None,
    ) -> Path:
        """Writes the checkpoint of `state.step`, complete when this returns.

        Args:
            state: The state; each array must be held whole by every process.
            progress: What else the run needs to go on, as JSON values.
            validation: Validation metrics of this very state, if it was validated.

        Returns:
            The folder of the checkpoint.

        Raises:
            CheckpointError: If there is a checkpoint of this step or a later one already.
        """
        import orbax.checkpoint as ocp

        step = int(state.step)
        items = {name: _fetch(tree) for name, tree in _split(state).items()}
        sums = {name: _checksum(arrays) for name, arrays in items.items()}
        metrics = {name: x for name, x in (validation or {}).items() if np.isfinite(x)}
        json = {"loop": dict(progress), "checksums": sums, "validation": metrics}
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                progress=ocp.args.JsonSave(json),
                **{name: ocp.args.PyTreeSave(_nest(arrays)) for name, arrays in items.items()},
            ),
        )
        if not saved:
            raise CheckpointError(
                f"step {step} was not saved: {self.folder} has checkpoints of steps {self.steps()}"
            )
        return self.path(step)

    def restore_latest(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Reads the newest checkpoint.

        Args:
            like: A state of the same structure, shapes and dtypes, whose devices are taken over.

        Returns:
            The state and the progress that `save` was given; None if there is no checkpoint.

        Raises:
            CheckpointError: If it cannot be read, or holds other arrays than `like`.
        """
        steps = self.steps()
        if not steps:
            return None
        wanted = _split(like)
        json = self._read_json(steps[-1])
        stored = self._read_arrays(steps[-1], json["checksums"])
        arrays = {name: _flatten(tree) for name, tree in wanted.items()}
        _check_fits(_join(stored), _join(arrays), self.path(steps[-1]))
        restored = {name: _fill(tree, stored[name]) for name, tree in wanted.items()}
        return TrainState(
            params=restored["params"],
            average=restored.get("average"),
            **restored["rest"],
        ), json["loop"]

    def restore_params(self, step: int, like: PyTree = None) -> PyTree:
        """Reads the average of the parameters, or the parameters if there is no average.

        Args:
            step: The step of the checkpoint.
            like: Parameters of the same structure and shapes (arrays, or `ShapeDtypeStruct`s).
                None returns nested dictionaries, which is what Flax uses.

        Returns:
            The parameters.

        Raises:
            CheckpointError: If they cannot be read, or differ from `like`.
        """
        checksums = self._read_json(step)["checksums"]
        name = "average" if "average" in checksums else "params"
        arrays = self._read_arrays(step, {name: checksums[name]})[name]
        if like is None:
            return _nest({path: jnp.array(array) for path, array in arrays.items()})
        _check_fits(arrays, _flatten(like), self.path(step))
        return _fill(like, arrays)

    def _read_json(self, step: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        with self._damage_explained(step):
            json = self._manager.restore(step, args=args)["progress"]
            return {name: json[name] for name in ("loop", "checksums")}

    def _read_arrays(self, step: int, checksums: Mapping[str, int]) -> dict[str, Arrays]:
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(**{name: ocp.args.PyTreeRestore() for name in checksums})
        with self._damage_explained(step):
            items = self._manager.restore(step, args=args)
            arrays = {name: _unnest(items[name]) for name in checksums}
            for name, checksum in checksums.items():
                if _checksum(arrays[name]) != checksum:
                    raise ValueError(f"the checksum of its {name} is wrong")
        return arrays

    @contextlib.contextmanager
    def _damage_explained(self, step: int) -> Iterator[None]:
        try:
            yield
        # What Orbax raises for a damaged folder depends on which byte is missing.
        except Exception as error:
            earlier = [other for other in self.steps() if other < step]
            reason = str(error).strip().split("\n")[0][:200]
            raise CheckpointError(
                f"the checkpoint {self.path(step)} cannot be read ({type(error).__name__}: "
                f"{reason}). Nothing was changed. Move that folder away to "
                + (f"go on from step {earlier[-1]}." if earlier else "start over.")
            ) from error


def check_keep(keep: int | None) -> None:
    """Refuses a number of checkpoints to keep that is below 1; None keeps all."""
    if keep is not None and keep < 1:
        raise ValueError(f"keep must be at least 1 or None, got {keep}")


def has_checkpoint(workdir: str | os.PathLike[str]) -> bool:
    """Tells whether a run has saved anything; a save that was cut short does not count."""
    # By name: to know this of a run is no reason to import Orbax.
    return any(path.name.isdecimal() for path in (Path(workdir) / CHECKPOINTS_FOLDER).glob("*"))


def restore_params(workdir: str | os.PathLike[str], like: PyTree = None) -> tuple[PyTree, int]:
    """Reads the newest parameters of a run, to evaluate or attack them: the average if it has one.

    Args:
        workdir: The run's folder.
        like: Parameters of the same structure and shapes (arrays, or `ShapeDtypeStruct`s); None
            returns nested dictionaries, which is what Flax uses.

    Returns:
        The parameters, and the step they are of.

    Raises:
        CheckpointError: If there is no checkpoint, it cannot be read, or differs from `like`.
    """
    with Checkpoints(workdir) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {checkpoints.folder}")
        return checkpoints.restore_params(steps[-1], like), steps[-1]


def _split(state: TrainState) -> dict[str, PyTree]:
    """Names the parts that are stored apart, so that the parameters can be read alone."""
    rest = {"opt_state": state.opt_state, "step": state.step, "key": state.key}
    parts = {"params": state.params, "rest": rest}
    return parts if state.average is None else {**parts, "average": state.average}


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _flatten(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves by path, with keys as the integers they are made of."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if _is_key(leaf):
            leaf = jax.random.key_data(leaf)
        arrays[name] = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    return arrays


def _nest(arrays: Mapping[str, Any]) -> dict[str, Any]:
    from flax import traverse_util

    return traverse_util.unflatten_dict(arrays, sep="/")


def _unnest(tree: Mapping[str, Any]) -> dict[str, Any]:
    from flax import traverse_util

    return traverse_util.flatten_dict(tree, sep="/")


def _fetch(tree: PyTree) -> dict[str, np.ndarray]:
    return {path: np.asarray(jax.device_get(x)) for path, x in _flatten(tree).items()}


def _fill(like: PyTree, arrays: Mapping[str, np.ndarray]) -> PyTree:
    """Returns a tree as `like`, with the arrays' values on the devices of `like`."""
    leaves, structure = jax.tree.flatten(like)
    paths = _flatten(like)
    return jax.tree.unflatten(
        structure, [_place(arrays[path], leaf) for path, leaf in zip(paths, leaves, strict=True)]
    )


def _place(array: np.ndarray, like: Any) -> jax.Array:
    if _is_key(like):
        data = _place(array, jax.random.key_data(like))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))
    # An array that was not bound to a device stays so: bound to one device, it could not meet a
    # batch that lies on several.
    if getattr(like, "committed", False):
        return place(array, like.sharding)
    return jnp.array(array)


def _checksum(arrays: Mapping[str, np.ndarray]) -> int:
    # Orbax notices a file that is cut short, but not every changed byte.
    total = 0
    for path in sorted(arrays):
        total = zlib.crc32(arrays[path].tobytes(), zlib.crc32(path.encode(), total))
    return total


def _join(items: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}/{path}": leaf for name, part in items.items() for path, leaf in part.items()}


def _check_fits(stored: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    def describe(arrays: Mapping[str, Any], path: str) -> str:
        if path not in arrays:
            return "nothing"
        return f"{arrays[path].dtype} {tuple(arrays[path].shape)}"

    # Parameters first: when they differ, so does everything made from them.
    paths = [*(path for path in wanted), *(path for path in stored if path not in wanted)]
    lines = [
        f"  {path}: the checkpoint has {was}, the network now needs {now}"
        for path in paths
        if (was := describe(stored, path)) != (now := describe(wanted, path))
    ]
    if lines:
        more = [f"  and {len(lines) - 5} more"] if len(lines) > 5 else []
        raise CheckpointError(
            f"the checkpoint {folder} is not of this network and optimizer:\n"
            + "\n".join([*lines[:5], *more])
            + "\nUse the config that the run was started with, or another workdir."
        )
