"""Freed memory goes back to the system."""

import platform
from pathlib import Path

import pytest

from jitter_jax.host_memory import return_freed_memory


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no VmRSS")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_it_returns_what_is_freed():
    pieces = [bytes(1000) for _ in range(200_000)]
    kept = pieces[::1000]  # all over the heap, whose end alone the allocator returns by itself
    del pieces
    held = resident_bytes()
    assert return_freed_memory()
    assert held - resident_bytes() > 100_000_000
    assert len(kept) == 200


def test_without_glibc_it_does_nothing(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert return_freed_memory() is False
