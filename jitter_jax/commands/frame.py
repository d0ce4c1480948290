"""The frame of the binaries: flags, and errors as a user sees them."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import jax
from absl import app, flags, logging

from jitter_jax.commands.processes import define_flags, join_processes
from jitter_jax.extras import MissingExtraError
from jitter_jax.files import checked_folder
from jitter_jax.train import CheckpointError, NonFiniteError

# What bad input raises in this package; anything else is a fault and keeps its traceback.
EXPECTED = (ValueError, OSError, MissingExtraError, CheckpointError, NonFiniteError)
# Compiling for less than this many seconds is left to the next run: reading back is no faster.
MIN_COMPILE_SECONDS = 0.1

flags.disclaim_key_flags()  # a flag defined here belongs to the binary, whose --help shows it


def run(
    main: Callable[[], object],
    *,
    required: Sequence[str] = (),
    processes: bool = False,
    cache: bool = True,
) -> None:
    """Parse the command line and call `main`.

    Args:
        main: the work, which reads the flags.
        required: names of flags that must be given.
        processes: whether several processes can do the work together; see `processes`.
        cache: whether there is a flag `--compilation_cache`.
    """
    if processes:
        define_flags()
    if cache:
        flags.DEFINE_string(
            "compilation_cache",
            None,
            "Folder that keeps compiled programs for later runs, of one kind of machine each.",
        )

    def checked(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {argv[1:]}")
        logging.set_verbosity(logging.WARNING)
        with explain_errors():
            if cache and flags.FLAGS.compilation_cache is not None:
                keep_compiled(flags.FLAGS.compilation_cache)
            if processes:
                join_processes()
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


def keep_compiled(folder: str) -> None:
    """Keep compiled programs in a folder, and read back those that are there.

    It must come before the first program is compiled.

    Args:
        folder: made if need be. Programs compiled for one processor may not run on another, and
            whoever can write to the folder can have any program run: it should be the user's own.

    Raises:
        ValueError: there is something else than a folder.
    """
    checked_folder(folder, "compilation_cache").mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)


@contextmanager
def explain_errors() -> Iterator[None]:
    """Turn an error about the input into its message on standard error and exit status 1."""
    try:
        yield
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
