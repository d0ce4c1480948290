"""Results that are kept as they come, so that a long evaluation goes on where it stopped."""

import json
import zlib
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jitter_jax.commands.evaluate import write_json
from jitter_jax.devices import is_first_process

Row = dict[str, Any]


class Kept:
    """Rows by the settings that they came of, in a file that is written after every one."""

    def __init__(self, path: Path):
        self._path = path
        self._parts = json.loads(path.read_text()) if path.exists() else []

    def rows(self, settings: Mapping[str, Any], compute: Callable[[], list[Row]]) -> list[Row]:
        """Return the rows of some settings, computed unless they are in the file."""
        wanted = json.loads(json.dumps(settings))
        for part in self._parts:
            if part["settings"] == wanted:
                return part["rows"]
        self._parts.append({"settings": wanted, "rows": compute()})
        if is_first_process():
            write_json(self._path, self._parts)
        return self._parts[-1]["rows"]


# Parts of a config that change no number of a test signal: how the weights were trained, which the
# weights themselves tell, where the data are, which other sets there are, and how much is done at
# once.
_WITHOUT_EFFECT = (
    "seed",
    "scheme",
    "pretrain",
    "optimizer",
    "train",
    "devices",
    "data.folder",
    "data.out_of_distribution",
    "data.num_train",
    "data.shifts",
    "evaluate.attacked",
    "evaluate.memory_gb",
    "evaluate.num_draws",
    "evaluate.on_sphere",
    "network.weights",
    "smoothing.chunk",
    "smoothing.memory_gb",
    "unroll.remat",
)


def fingerprint(config: ConfigDict, params: Any) -> str:
    """Return a number that other weights, or a config of other results, would change."""
    fields = config.to_dict()
    for name in _WITHOUT_EFFECT:
        *parents, last = name.split(".")
        del reduce(dict.__getitem__, parents, fields)[last]
    number = zlib.crc32(json.dumps(fields, sort_keys=True).encode())
    for leaf in jax.tree.leaves(params):
        number = zlib.crc32(np.asarray(leaf).tobytes(), number)
    return f"{number:08x}"
