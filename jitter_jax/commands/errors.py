"""Errors as a user of the binaries sees them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What bad input raises in this package; anything else is a fault and keeps its traceback.
EXPECTED = (ValueError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


@contextmanager
def explain_errors() -> Iterator[None]:
    """Turn an error about the input into its message on standard error and exit status 1."""
    from jitter_jax.train import CheckpointError, NonFiniteError

    try:
        yield
    except (*EXPECTED, CheckpointError, NonFiniteError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
