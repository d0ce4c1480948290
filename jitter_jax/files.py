"""Files that are never seen half written, and folders that are where a user said."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, which takes its place at the end in one move.

    A reader or a crash finds the old file or the new one; several writers may come together. After
    an error the old file stays. The folder is made if absent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file as `whole_file` does."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def checked_folder(path: str | Path, name: str = "output") -> Path:
    """Returns a path that is a folder, or that one can be made at.

    Raises:
        ValueError: There is something else; the message calls it `name`.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{name}={str(path)!r} is not accepted: it is not a folder")
    return path
