import json

import pytest
from ml_collections import ConfigDict

from jitter_jax.train import ConfigError, check_config, load_config, save_config


def make_config(**train):
    return ConfigDict(
        {
            "seed": 0,
            "network": {"widths": (8, 16), "bias": True, "name": None},
            "train": {"num_steps": 100, "log_every": 10, "rate": 1e-3, **train},
        }
    )


def save_checked(workdir, config):
    """Stores the config of a run that has saved a checkpoint."""
    save_config(workdir, config)
    (workdir / "checkpoints" / "1").mkdir(parents=True)


def test_round_trip(tmp_path):
    path = save_config(tmp_path / "run", make_config())
    config = load_config(tmp_path / "run")
    assert path == tmp_path / "run" / "config.json"
    assert config["network"] == {"widths": [8, 16], "bias": True, "name": None}
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    check_config(tmp_path / "run", make_config())
    check_config(tmp_path / "run", make_config().to_dict())
    check_config(tmp_path / "new", make_config())


def test_every_difference_is_named(tmp_path):
    save_checked(tmp_path, make_config(gone=1))
    config = make_config(num_steps=200, rate=1e-4, new="x").to_dict()
    config["network"].update(bias=1, widths=(8,))
    with pytest.raises(ConfigError) as error:
        check_config(tmp_path, config, may_change=["train.num_steps"])
    assert str(error.value).split("\n")[1:-1] == [
        "  network.bias: the run has true, the config now says 1",
        "  network.widths: the run has [8, 16], the config now says [8]",
        "  train.gone: the run has 1, the config now says nothing",
        '  train.new: the run has nothing, the config now says "x"',
        "  train.rate: the run has 0.001, the config now says 0.0001",
    ]
    check_config(tmp_path, config, may_change=["network", "train"])


@pytest.mark.parametrize("folder", ["checkpoints", "checkpoints/1.orbax-checkpoint-tmp"])
def test_a_run_without_a_checkpoint_may_start_anew(tmp_path, folder):
    save_config(tmp_path, make_config(rate=1.0))
    check_config(tmp_path, make_config())
    (tmp_path / folder).mkdir(parents=True)
    check_config(tmp_path, make_config())
    (tmp_path / "checkpoints" / "20").mkdir()
    with pytest.raises(ConfigError, match=r"train\.rate"):
        check_config(tmp_path, make_config())


def test_a_group_is_not_a_prefix(tmp_path):
    save_checked(tmp_path, {"log": 1, "logger": 2})
    with pytest.raises(ConfigError, match="logger"):
        check_config(tmp_path, {"log": 2, "logger": 3}, may_change=["log"])


def test_bad_files_and_values(tmp_path):
    with pytest.raises(ConfigError, match="no run was started in this folder"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config.json is not JSON"):
        load_config(tmp_path)
    with pytest.raises(TypeError, match=r"a config holds numbers.*object"):
        save_config(tmp_path, {"x": object()})
    assert (tmp_path / "config.json").read_text() == "{"
    save_config(tmp_path, {"x": 1})
    assert json.loads((tmp_path / "config.json").read_text()) == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
