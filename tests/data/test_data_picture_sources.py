import numpy as np
import pytest

from jitter_jax.config import default_config
from jitter_jax.data.sources import make_sources

SIDE = 24


def sources(kind, folder="", **fields):
    """Return the sources of a config's data with some fields changed, by dotted name."""
    config = default_config().data
    config.kind, config.folder = kind, str(folder)
    config.num_train, config.num_validation, config.num_test = 5, 2, 3
    config.images.shape = (SIDE, SIDE)
    config.images.train, config.images.test = "train.npz", "test"
    config.out_of_distribution = ()
    with config.ignore_type():
        config.update_from_flattened_dict(fields)
    settings = config.to_dict()
    for measuring in ("noise_std", "fresh_noise", "normalisation"):
        del settings[measuring]
    return make_sources(**settings)


@pytest.fixture
def folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (6, 30, 30), np.uint8)
    np.savez(tmp_path / "train.npz", images=stack)
    for name, shape in (("test", (32, 40)), ("other", (40, 30))):
        (tmp_path / name).mkdir()
        for number in range(4):
            pixels = rng.integers(0, 256, shape, np.uint8)
            image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_textures_of_the_sets_differ():
    made = sources("textures", out_of_distribution=("noise",))
    assert {name: len(source) for name, source in made.items()} == {
        "train": 5,
        "validation": 2,
        "test": 3,
        "noise": 3,
    }
    firsts = [made[name][0]["signal"] for name in ("train", "validation", "test")]
    assert all(first.shape == (SIDE, SIDE, 1) for first in firsts)
    assert not any(np.array_equal(firsts[i], firsts[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    np.testing.assert_array_equal(made["noise"][0]["signal"], firsts[2])
    assert made["noise"][0]["noise_std"] > 0


def test_pictures_come_from_the_named_files(folder):
    made = sources("pictures", folder, out_of_distribution=("other",))
    assert {name: len(source) for name, source in made.items()} == {
        "train": 4,
        "validation": 2,
        "test": 3,
        "other": 3,
    }
    assert {source[0]["signal"].shape for source in made.values()} == {(SIDE, SIDE, 1)}
    stored = np.load(folder / "train.npz")["images"][4]
    middle = stored[3 : 3 + SIDE, 3 : 3 + SIDE, None] / np.float32(255)
    np.testing.assert_allclose(made["validation"][0]["signal"], middle)


def test_training_pictures_are_whole_where_patches_are_cut(folder):
    made = sources("pictures", folder, **{"augment.patch": (8, 8)})
    assert made["train"][0]["signal"].shape == (30, 30, 1)
    assert made["test"][0]["signal"].shape == (SIDE, SIDE, 1)


def test_other_pictures_to_validate_on(folder):
    made = sources("pictures", folder, **{"images.validation": "other"})
    assert (len(made["train"]), len(made["validation"])) == (6, 4)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("textures", {"out_of_distribution": ("lesion",)}, "'noise' is expected"),
        ("textures", {"images.shape": (8, 8)}, "at least 16"),
        ("pictures", {"out_of_distribution": ("nowhere",)}, "name of a folder or a file"),
        ("pictures", {"images.test": "nowhere"}, "nowhere"),
        ("pictures", {"num_validation": 6}, "at least one must be left"),
        ("pictures", {"images.shape": (64, 64)}, "smaller"),
        ("pictures", {"on_bad_file": "ignore"}, "'error' or 'skip'"),
    ],
)
def test_bad_settings_are_refused(folder, kind, fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sources(kind, folder, **fields)


def test_pictures_need_a_folder():
    with pytest.raises(ValueError, match="folder is empty"):
        sources("pictures")
