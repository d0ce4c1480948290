"""The config that a run was started with, kept beside its checkpoints."""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jitter_jax.files import write_text
from jitter_jax.train.checkpoint import has_checkpoint

CONFIG_FILE = "config.json"
_ABSENT = object()


class ConfigError(ValueError):
    """A run is continued with a config that is not its own."""


def save_config(workdir: str | os.PathLike[str], config: Mapping[str, Any] | Any) -> Path:
    """Writes `<workdir>/config.json`.

    Args:
        workdir: The run's folder, made if need be.
        config: A mapping, or anything with `to_dict()` such as a ConfigDict, of JSON values.

    Returns:
        The file's path.

    Raises:
        TypeError: If a value cannot be written as JSON.
    """
    path = Path(workdir) / CONFIG_FILE
    write_text(path, json.dumps(_plain(config), indent=2) + "\n")
    return path


def load_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads `<workdir>/config.json`.

    Args:
        workdir: The run's folder.

    Returns:
        Nested dictionaries; tuples come back as lists.

    Raises:
        ConfigError: If the file is missing or is not JSON.
    """
    path = Path(workdir) / CONFIG_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist: no run was started in this folder") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON ({error}); restore it from a copy") from error


def check_config(
    workdir: str | os.PathLike[str],
    config: Mapping[str, Any] | Any,
    *,
    may_change: Collection[str] = (),
) -> None:
    """Checks that a run is continued with the config it was started with.

    A folder without a stored config is a new run, and passes. So does one without a checkpoint,
    of a run that ended before its first: nothing was trained with the stored config.

    Args:
        workdir: The run's folder.
        config: The config to continue with.
        may_change: Dotted names of fields that may differ, such as 'train.num_steps'; the name
            of a group ('log') allows all its fields.

    Raises:
        ConfigError: If any other field differs, with every such field and its two values.
    """
    if not (Path(workdir) / CONFIG_FILE).exists() or not has_checkpoint(workdir):
        return
    stored, current = _flatten(load_config(workdir)), _flatten(_plain(config))
    lines = []
    for name in sorted(stored.keys() | current.keys()):
        was, now = stored.get(name, _ABSENT), current.get(name, _ABSENT)
        # Compared as JSON, in which 1 and true are two things.
        if _show(was) != _show(now) and not any(
            name == allowed or name.startswith(allowed + ".") for allowed in may_change
        ):
            lines.append(f"  {name}: the run has {_show(was)}, the config now says {_show(now)}")
    if lines:
        raise ConfigError(
            f"the run in {Path(workdir).absolute()} was started with another config:\n"
            + "\n".join(lines)
            + "\nContinue it with its own config, or choose another workdir."
        )


def _plain(config: Any) -> dict[str, Any]:
    if hasattr(config, "to_dict"):
        config = config.to_dict()

    def refuse(value: Any) -> None:
        raise TypeError(
            f"a config holds numbers, strings, booleans, None, lists and groups; got {value!r}"
        )

    return json.loads(json.dumps(dict(config), default=refuse))


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _show(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value)
