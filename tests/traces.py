"""Reads the traces that tests take."""

import gzip
import json

COMPILING = "compile_or_get_cached"  # in the name of an event: JAX's own function


def trace_events(folder):
    """Returns the events of a folder's only trace, as Perfetto reads them."""
    (file,) = folder.glob("plugins/profile/*/perfetto_trace.json.gz")
    return json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]


def event_names(folder):
    """Returns the names of the events of a folder's only trace."""
    return [event.get("name", "") for event in trace_events(folder)]


def assert_ran(name, folder):
    """Asserts that a compiled function ran under a folder's trace, and that none was compiled."""
    names = event_names(folder)
    assert f"PjitFunction({name})" in names
    assert not [event for event in names if COMPILING in event]
