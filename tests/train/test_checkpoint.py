import json
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jitter_jax.train import (
    CheckpointError,
    Checkpoints,
    has_checkpoint,
    init_state,
    restore_params,
)

PROGRESS = {"batches": {"next": 3}, "sum": 0.1 + 0.2}


def make_params(width=4):
    return {
        "dense": {"kernel": jnp.arange(3.0 * width).reshape(3, width), "bias": jnp.zeros(width)},
        "half": jnp.ones(2, jnp.bfloat16),
        "list": [jnp.float32(0.5), jnp.int32(7)],
    }


def make_state(step=1, *, params=None, seed=3, decay=0.9, impl=None):
    optimizer = optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(1)), optax.adam(1e-3))
    key = jax.random.key(seed, impl=impl)
    params = make_params() if params is None else params
    state = init_state(params, optimizer, key, average_decay=decay)
    return state._replace(step=jnp.int32(step))


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)

    def compare(x, y):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert x.weak_type == y.weak_type
        np.testing.assert_array_equal(x, y)

    jax.tree.map(compare, found, expected)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2."""
    workdir = tmp_path_factory.mktemp("saved")
    with Checkpoints(workdir) as checkpoints:
        for step in (1, 2):
            checkpoints.save(make_state(step), PROGRESS)
    return workdir


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("decay", [None, 0.9])
def test_everything_comes_back(tmp_path, impl, decay):
    state = make_state(12, decay=decay, impl=impl)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_latest(state) is None
        assert checkpoints.save(state, PROGRESS) == tmp_path / "checkpoints" / "12"
    like = jax.tree.map(lambda x: x, make_state(0, seed=8, decay=decay, impl=impl))
    with Checkpoints(tmp_path) as checkpoints:
        restored, progress = checkpoints.restore_latest(like)
    assert_equal(restored, state)
    assert progress == PROGRESS
    x, y = (jax.random.normal(jax.random.fold_in(s.key, 0), (2,)) for s in (restored, state))
    np.testing.assert_array_equal(x, y)


def test_devices_are_taken_over(saved):
    like = make_state()
    with Checkpoints(saved) as checkpoints:
        free, _ = checkpoints.restore_latest(like)
        bound, _ = checkpoints.restore_latest(jax.device_put(like, jax.devices()[-1]))
    assert not free.params["half"].committed
    assert bound.params["half"].committed
    assert bound.params["half"].devices() == bound.key.devices() == {jax.devices()[-1]}


def test_params_alone(saved, tmp_path):
    params, step = restore_params(saved)
    assert step == 2
    # Without a template, lists come back as dictionaries.
    numbered = {str(i): x for i, x in enumerate(make_params()["list"])}
    assert_equal(params, {**make_params(), "list": numbered})
    assert_equal(restore_params(saved, make_params())[0], make_params())
    shapes = jax.eval_shape(make_params)
    assert_equal(restore_params(saved, shapes)[0], make_params())

    average = jax.tree.map(lambda x: x + 1, make_params())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state()._replace(average=average), {})
        checkpoints.save(make_state(2, decay=None), {})
        assert_equal(checkpoints.restore_params(1, make_params()), average)
        assert_equal(checkpoints.restore_params(2, make_params()), make_params())


def test_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=f"no checkpoint in {tmp_path}/checkpoints"):
        restore_params(tmp_path)
    with pytest.raises(ValueError, match="keep must be at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_saving_a_step_again_is_an_error(saved):
    with Checkpoints(saved) as checkpoints:
        for step in (1, 2):
            with pytest.raises(CheckpointError, match=rf"step {step} was not saved.*\[1, 2\]"):
                checkpoints.save(make_state(step), {})


def test_newest_stay_with_their_validation(tmp_path):
    for steps in ((1, 2), (3, 4)):
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            for step in steps:
                validation = {"loss": float(step), "undefined": float("nan")}
                checkpoints.save(make_state(step), {}, validation=validation)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3, 4]
        stored = json.loads((checkpoints.path(4) / "progress" / "metadata").read_text())
    assert stored["validation"] == {"loss": 4.0}


def test_only_a_finished_save_is_a_checkpoint(saved, tmp_path):
    assert has_checkpoint(saved)
    assert not has_checkpoint(tmp_path)
    shutil.copytree(saved / "checkpoints/2", tmp_path / "checkpoints/2.orbax-checkpoint-tmp")
    assert not has_checkpoint(tmp_path)


def damaged(saved, folder, name, damage):
    """Copies the folder, and damages the files of step 2 whose path matches."""
    shutil.copytree(saved, folder)
    files = [x for x in (folder / "checkpoints" / "2").glob(name) if x.is_file()]
    assert files
    for file in files:
        damage(file)
    return folder


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


# When one read fails, Orbax closes its event loop under the reads that are under way.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "name, damage",
    [
        ("params/d/*", cut),
        ("rest/_METADATA", cut),
        ("progress/*", Path.unlink),
        ("**/*", cut),
        ("**/*", Path.unlink),
    ],
)
def test_damage_is_named_and_nothing_changes(saved, tmp_path, name, damage):
    folder = damaged(saved, tmp_path / "run", name, damage)
    before = sorted(folder.rglob("*"))
    with Checkpoints(folder) as checkpoints:
        message = (
            f"{folder}/checkpoints/2 cannot be read.*Move that folder away to go on from step 1"
        )
        with pytest.raises(CheckpointError, match=message):
            checkpoints.restore_latest(make_state())
        time.sleep(0.2)  # for the late reads, see above
    assert sorted(folder.rglob("*")) == before
    # Doing what the message says helps.
    shutil.move(folder / "checkpoints" / "2", tmp_path / "away")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_latest(make_state())[0].step == 1


def test_changed_bits_are_noticed(saved, tmp_path):
    def change(file):
        text = file.read_text()
        assert '"params": ' in text
        file.write_text(text.replace('"params": ', '"params": 1'))

    folder = damaged(saved, tmp_path / "run", "progress/metadata", change)
    with pytest.raises(CheckpointError, match="the checksum of its params is wrong"):
        with Checkpoints(folder) as checkpoints:
            checkpoints.restore_latest(make_state())


def test_unfinished_save_is_ignored(saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    steps = folder / "checkpoints"
    shutil.copytree(steps / "2", steps / "3.orbax-checkpoint-tmp")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_latest(make_state())[0].step == 2
        checkpoints.save(make_state(3), {})
        assert checkpoints.steps() == [1, 2, 3]


@pytest.mark.parametrize(
    "params, lines",
    [
        (
            make_params(6),
            [
                r"params/dense/bias: the checkpoint has float32 \(4,\), the network now needs "
                r"float32 \(6,\)",
                r"params/dense/kernel: the checkpoint has float32 \(3, 4\)",
            ],
        ),
        (
            {**make_params(), "half": jnp.ones(2)},
            [r"params/half: the checkpoint has bfloat16 \(2,\), .* needs float32 \(2,\)"],
        ),
        (
            {**make_params(), "other": jnp.ones(1)},
            [r"params/other: the checkpoint has nothing, the network now needs float32 \(1,\)"],
        ),
        (
            {name: x for name, x in make_params().items() if name != "half"},
            [r"params/half: the checkpoint has bfloat16 \(2,\), the network now needs nothing"],
        ),
    ],
)
def test_other_networks_are_refused(saved, params, lines):
    with Checkpoints(saved) as checkpoints, pytest.raises(CheckpointError) as error:
        checkpoints.restore_latest(make_state(params=params))
    for line in lines:
        assert error.match(line)
    with pytest.raises(CheckpointError, match="is not of this network"):
        restore_params(saved, params)


def test_missing_average_is_noticed(saved):
    with Checkpoints(saved) as checkpoints:
        with pytest.raises(CheckpointError, match=r"average/dense/bias.* now needs nothing"):
            checkpoints.restore_latest(make_state(decay=None))
