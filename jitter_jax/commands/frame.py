"""The frame of the binaries: flags, and errors as a user sees them."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from absl import app, flags, logging

from jitter_jax.extras import MissingExtraError
from jitter_jax.train import CheckpointError, NonFiniteError

# What bad input raises in this package; anything else is a fault and keeps its traceback.
EXPECTED = (ValueError, OSError, MissingExtraError, CheckpointError, NonFiniteError)


def run(main: Callable[[], object], *, required: Sequence[str] = ()) -> None:
    """Parse the command line and call `main`.

    Args:
        main: the work, which reads the flags.
        required: names of flags that must be given.
    """

    def checked(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {argv[1:]}")
        logging.set_verbosity(logging.WARNING)
        with explain_errors():
            main()

    flags.mark_flags_as_required(required)
    app.run(checked, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage(argv)
    # A config file that is missing or wrong, and a field that it does not have.
    except (AttributeError, KeyError, TypeError, *EXPECTED) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


@contextmanager
def explain_errors() -> Iterator[None]:
    """Turn an error about the input into its message on standard error and exit status 1."""
    try:
        yield
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
