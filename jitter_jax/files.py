"""Files that are never seen half written."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replaces a text file in one move, so that a reader or a crash finds the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
