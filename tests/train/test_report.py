import json
import subprocess
import sys

import pytest

from jitter_jax.train import curves_figure, read_metrics
from jitter_jax.train.metrics_log import append_metrics, drop_metrics_after


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 7):
        loss = float("nan") if step == 3 else 1.0 / step
        append_metrics(path, {"step": step, "split": "train", "loss": loss, "bias": -0.5})
        if step % 3 == 0:
            append_metrics(path, {"step": step, "split": "validation", "loss": 2.0 / step})
    return path


def test_record(path):
    text = path.read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert lines == read_metrics(path) and len(lines) == 8
    assert lines[2]["loss"] is None and lines[3]["loss"] == 2 / 3


def test_lines_after_a_step_are_dropped_as_text(path, tmp_path):
    text = path.read_text()
    with path.open("a") as file:
        file.write('{"step": 2, "sp')
    drop_metrics_after(path, 4)
    assert path.read_text() == "".join(text.splitlines(keepends=True)[:5])
    drop_metrics_after(tmp_path / "none.jsonl", 4)
    assert list(tmp_path.iterdir()) == [path]


def test_broken_record_is_an_error(path):
    path.write_text(path.read_text() + "oops\n" + '{"step": 9}\n')
    with pytest.raises(ValueError, match="line 9, is not JSON: 'oops'"):
        read_metrics(path)


@pytest.mark.parametrize("metric, suffix", [("loss", "png"), ("bias", "svg")])
def test_figure(path, tmp_path, metric, suffix):
    figure = tmp_path / f"curves.{suffix}"
    curves_figure(path, figure, metric=metric)
    head = figure.read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in head


def test_figure_of_nothing(path, tmp_path):
    with pytest.raises(ValueError, match="has no 'psnr'; it has bias, loss"):
        curves_figure(path, tmp_path / "curves.png", metric="psnr")


def test_import_is_light():
    code = (
        "import sys, jitter_jax.train\n"
        "heavy = {'orbax', 'matplotlib', 'tqdm', 'grain', 'flax'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
