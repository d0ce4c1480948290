"""Checks of arguments that the sources share."""

import operator

import numpy as np


def checked_index(index: int, length: int) -> int:
    """Return `index` as a Python integer.

    Args:
        index: any integer type.
        length: number of examples.

    Raises:
        IndexError: `index` is not in `0 .. length - 1`. (Python's own loop over a source ends
            by this error.)
    """
    number = operator.index(index)
    if not 0 <= number < length:
        raise IndexError(f"index={number} is not accepted: the source has examples 0..{length - 1}")
    return number


def checked_count(name: str, value: int) -> int:
    """Return `value` as a Python integer that is at least one.

    Args:
        name: the argument's name, for the message.
        value: what came.

    Raises:
        ValueError: `value` is not an integer, or below one.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}={value!r} is not accepted: an integer of at least 1 is expected")
    return int(value)
