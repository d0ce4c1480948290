"""Memory of the host that nothing uses any more."""

import ctypes


def return_freed_memory() -> bool:
    """Gives freed memory back to the system, where the allocator would keep it.

    XLA takes a few hundred MB to compile a training step. They are freed afterwards, and glibc
    keeps most of them for allocations of their sizes, which do not come: a program on a CPU then
    needs that much more at its peak.

    Returns:
        Whether something was given back; always False with another C library than glibc.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; no way to ask for one
        return False
    return bool(trim(0))
