"""Flags that all binaries have, in a process of its own: JAX reads them before it compiles."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jitter_jax.commands.frame import keep_compiled

ROOT = Path(__file__).resolve().parents[2]
BINARY = """
import jax
from jitter_jax.commands import frame

frame.MIN_COMPILE_SECONDS = 0.0
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event.split("/")[-1]))


def main():
    value = jax.jit(lambda x: 3 * x + 1)(2.0)
    print(float(value), *(found.count(name) for name in ("cache_hits", "cache_misses")))


frame.run(main{options})
"""


def run(folder, *arguments, options=""):
    """Runs a binary that compiles one function, and returns its exit status and what it says."""
    binary = folder / "binary.py"
    binary.write_text(BINARY.format(options=options))
    # The tests' own cache would stand for that of the flag.
    env = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(binary), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
        cwd=folder,
    )
    return done.returncode, done.stdout, done.stderr


def test_second_run_reads_back_what_the_first_compiled(tmp_path):
    status, first, _ = run(tmp_path, "--compilation_cache=deep/cache")
    value, hits, misses = map(float, first.split())
    assert (status, value, hits) == (0, 7.0, 0) and misses >= 1
    files = {path.name for path in (tmp_path / "deep/cache").iterdir()}
    assert sum(name.endswith("-cache") for name in files) == misses

    status, second, said = run(tmp_path, "--compilation_cache=deep/cache")
    assert (status, second.split()) == (0, ["7.0", f"{misses:g}", "0"]), said
    assert {path.name for path in (tmp_path / "deep/cache").iterdir()} == files


def test_flag_is_among_the_binarys_own(tmp_path):
    _, text, _ = run(tmp_path, "--help")
    assert "--compilation_cache" in text


def test_binary_that_times_compiling_has_no_such_flag(tmp_path):
    status, _, said = run(tmp_path, "--compilation_cache=cache", options=", cache=False")
    assert status == 1 and "compilation_cache" in said
    assert "run(main, cache=False)" in (ROOT / "bin/bench").read_text()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    before = jax.config.jax_compilation_cache_dir
    with pytest.raises(ValueError, match=r"compilation_cache='.*file' is not accepted.*folder"):
        keep_compiled(str(tmp_path / "file"))
    assert jax.config.jax_compilation_cache_dir == before
