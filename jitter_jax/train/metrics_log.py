"""The record of a run: `metrics.jsonl`, one strict JSON object per line."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jitter_jax.files import write_text

METRICS_FILE = "metrics.jsonl"
TIMING_FIELDS = ("wall_time", "steps_per_second")


def append_metrics(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Adds one line; JSON has no infinity and no NaN, so those become null.

    Args:
        path: The file, made if need be.
        record: Names and JSON values, flat.
    """
    clean = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    line = json.dumps(clean, allow_nan=False)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the whole record; a last line cut short by a kill is left out.

    Args:
        path: A `metrics.jsonl`.

    Returns:
        One dictionary per line, in order.

    Raises:
        ValueError: If a line before the last is not JSON.
    """
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}, is not JSON: {line[:80]!r}") from error
    return records


def drop_metrics_after(path: str | os.PathLike[str], step: int) -> None:
    """Removes the lines that belong to steps after `step`, which a resumed run takes again.

    Args:
        path: A `metrics.jsonl`; nothing happens if there is none.
        step: The last step to keep.
    """
    path = Path(path)
    if path.exists():
        kept = [record for record in read_metrics(path) if record["step"] <= step]
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
