"""Several processes that work as one: flags that say which, and the call that joins them."""

import jax
from absl import flags

NAMES = ("coordinator_address", "num_processes", "process_id")


def define_flags() -> None:
    """Define the flags; once, before the command line is parsed."""
    flags.DEFINE_string(
        "coordinator_address", None, "HOST:PORT of process 0, the same in every process."
    )
    flags.DEFINE_integer("num_processes", None, "How many processes work as one.")
    flags.DEFINE_integer("process_id", None, "Number of this one: 0 to num_processes - 1.")
    flags.DEFINE_bool(
        "distributed",
        False,
        "Join the processes of a TPU pod, of Slurm, or of another cluster "
        "that JAX knows; it finds out address and numbers.",
    )


def join_processes() -> None:
    """Join the processes that the flags speak of; nothing happens without them.

    Every process must come by here before its first JAX computation. They see the same files, and
    the first alone writes.

    Raises:
        ValueError: the flags are not accepted, or the processes do not find each other.
    """
    address, num, number = (flags.FLAGS[name].value for name in NAMES)
    found_out = bool(flags.FLAGS["distributed"].value)
    check_flags(address, num, number, found_out)
    if not found_out and address is None:
        return
    try:
        jax.distributed.initialize(address, num, number)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"the processes were not joined: {reason}") from error


def check_flags(address: str | None, num: int | None, number: int | None, found_out: bool) -> None:
    """Refuse flags that do not fit together.

    Args:
        address: of process 0.
        num: how many processes.
        number: of this one.
        found_out: whether JAX finds the other three out.

    Raises:
        ValueError: some are missing, out of range or contradict each other.
    """
    named = ", ".join(f"--{name}" for name in NAMES)
    given = [value is not None for value in (address, num, number)]
    if found_out and any(given):
        raise ValueError(
            f"--distributed finds out by itself what {named} say: either it or these are expected"
        )
    if any(given) and not all(given):
        raise ValueError(f"{named} are expected together")
    if num is not None and number is not None and not 0 <= number < num:
        raise ValueError(
            f"--process_id={number} is not accepted with --num_processes={num}: 0 to "
            "num_processes - 1 is expected"
        )
