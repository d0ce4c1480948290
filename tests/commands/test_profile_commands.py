"""`--profile` of the commands: a trace that parses, of the work asked for and of no compiling."""

import pytest
from tiny_runs import write_run
from traces import assert_ran, event_names

from configs import points
from jitter_jax.commands.attack import attack_runs
from jitter_jax.commands.train import train_only


def small_points():
    config = points.get_config()
    config.unroll.num_iterations = 2
    config.evaluate.attack.num_steps = 2
    config.data.update({"num_test": 3, "out_of_distribution": ()})
    config.train.update({"num_steps": 8, "validate_every": 8})
    return config


def test_train(tmp_path, capsys):
    train_only(small_points(), tmp_path / "run", progress=False, profile=tmp_path / "trace")
    assert_ran("step", tmp_path / "trace")
    assert event_names(tmp_path / "trace").count("train") == 5
    assert f"5 steps traced in {tmp_path / 'trace'}" in capsys.readouterr().out


def test_attack(tmp_path):
    run = write_run(tmp_path / "run", small_points())
    attack_runs([run], run, overrides={}, progress=False, profile=tmp_path / "trace")
    assert_ran("evaluate", tmp_path / "trace/run")


def test_folder_that_is_a_file_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"profile='.*file' is not accepted"):
        train_only(small_points(), tmp_path / "run", profile=tmp_path / "file")
    assert not (tmp_path / "run").exists()
