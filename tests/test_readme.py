"""The README's Python runs as it stands."""

import re
from pathlib import Path

import jax.numpy as jnp
import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_run(block, capsys):
    names: dict = {}
    exec(block, names)
    assert names["info"].value > names["info"].clean
    assert bool(jnp.all(jnp.isfinite(names["delta"])))
    assert "->" in capsys.readouterr().out


def test_there_is_a_block():
    assert BLOCKS
