"""Images with their masks, units and noise levels, and the sets that a config asks for."""

import h5py
import numpy as np
import pytest
from fastmri_files import write_fastmri_file
from ml_collections import ConfigDict

from configs import mri_phantom
from jitter_jax import sampling
from jitter_jax.data import Masked, Noisy, Phantoms, Scaled
from jitter_jax.data.images import masks
from jitter_jax.data.sources import make_sources

MEASURING = ("noise_std", "fresh_noise", "normalisation")


def settings(**changes):
    config = mri_phantom.get_config().data.to_dict()
    config.update({"num_train": 4, "num_validation": 2, "num_test": 3})
    config["images"]["shape"] = (32, 32)
    config["out_of_distribution"] = ()
    config = ConfigDict(config)
    with config.ignore_type():
        config.update_from_flattened_dict(changes)
    return {key: value for key, value in config.to_dict().items() if key not in MEASURING}


def sources(**changes):
    skipped = []
    made = make_sources(**settings(**changes), on_skip=skipped.append)
    return made, skipped


class Volumes:
    """Slices of two volumes, of largest magnitude 4 and 8."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        signal = np.full((4, 4, 1), 1 + index, np.complex64)
        volume = np.int32(index // 2)
        return {"signal": signal, "volume": volume, "maximum": np.float32(4 * (1 + volume))}


@pytest.mark.parametrize(
    ("unit", "scales"),
    [("slice", [1, 2, 3, 4]), ("volume", [4, 4, 8, 8]), ("file", [1, 1, 1, 1])],
)
def test_units(unit, scales):
    items = [Scaled(Volumes(), unit)[i] for i in range(4)]
    largest = [np.abs(item["signal"]).max() for item in items]
    np.testing.assert_allclose(largest, np.array([1, 2, 3, 4]) / scales, 1e-6)
    assert [item["scale"] for item in items] == scales
    assert [item["volume_peak"] for item in items] == [4, 4, 8, 8]
    assert all(item["signal"].dtype == np.complex64 for item in items)
    assert all("maximum" not in item and item["volume_peak"].dtype == np.float32 for item in items)


def test_an_empty_image_stays_zero():
    class Empty(Volumes):
        def __getitem__(self, index):
            return {"signal": np.zeros((4, 4, 1), np.complex64)}

    assert (Scaled(Empty(), "slice")[0]["signal"] == 0).all()
    with pytest.raises(ValueError, match=r"unit='volume' is not accepted: .* no volume"):
        Scaled(Empty(), "volume")


@pytest.mark.parametrize(
    ("draw", "same"),
    [
        ("fixed", [(0, 1), (1, 2), (0, 3)]),
        ("example", []),
        ("file", [(0, 1), (2, 3)]),
    ],
)
def test_masks_are_drawn_as_said(draw, same):
    mask_of = masks("random", 2.0, seed=3, draw=draw, file_names=("a.h5", "b.h5"))
    images = Masked(Volumes16(), mask_of)
    drawn = [images[i]["mask"] for i in range(4)]
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    expected = set(same) if draw != "fixed" else set(pairs)
    assert {(i, j) for i, j in pairs if np.array_equal(drawn[i], drawn[j])} == expected
    again = Masked(
        Volumes16(), masks("random", 2.0, seed=3, draw=draw, file_names=("a.h5", "b.h5"))
    )
    assert all(np.array_equal(again[i]["mask"], drawn[i]) for i in range(4))
    if draw == "file":
        seed = sampling.seed_from_name("b.h5")
        np.testing.assert_array_equal(
            drawn[2], sampling.random_lines((16, 16), 2.0, seed=seed).array
        )


class Volumes16(Volumes):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return {**item, "signal": np.ones((16, 16, 1), np.complex64)}


def test_noise_level_of_a_set():
    items = Noisy(Volumes(), 0.25)
    assert len(items) == 4 and items[1]["noise_std"] == np.float32(0.25)


def test_phantom_sets():
    made, _ = sources(
        **{
            "out_of_distribution": ("lesion", "contrast", "mask", "acceleration", "noise"),
            "shifts.acceleration": 6.0,
            "shifts.mask": "radial",
        }
    )
    assert [len(made[name]) for name in ("train", "validation", "test")] == [4, 2, 3]
    test = made["test"][1]
    assert test["signal"].shape == (32, 32, 1) and test["mask"].shape == (32, 32)
    phantom = Phantoms(3, 2, (32, 32))[1]["signal"]
    np.testing.assert_allclose(test["signal"], phantom / np.abs(phantom).max(), rtol=1e-6)
    for name in ("lesion", "contrast"):
        assert np.abs(made[name][1]["signal"] - test["signal"]).max() > 0.01
        np.testing.assert_array_equal(made[name][1]["mask"], test["mask"])
    for name in ("mask", "acceleration"):
        np.testing.assert_array_equal(made[name][1]["signal"], test["signal"])
        assert not np.array_equal(made[name][1]["mask"], test["mask"])
    assert made["acceleration"][0]["mask"].sum() < test["mask"].sum()
    assert made["noise"][0]["noise_std"] == np.float32(0.05)
    own, _ = sources(**{"sampling.draw": "example", "out_of_distribution": ("noise",)})
    masks = {name: own[name][0]["mask"] for name in own}
    assert not np.array_equal(masks["train"], masks["test"])
    np.testing.assert_array_equal(masks["noise"], masks["test"])
    signals = [made[name][0]["signal"] for name in ("train", "validation", "test")]
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(signals) for b in signals[i + 1 :])


def saved_subject(folder, number, shape=(32, 32), views=("axial", "axial", "coronal")):
    rng = np.random.default_rng(number)
    image = rng.normal(size=(len(views), *shape, 2)).astype(np.float32)
    np.savez(
        folder / f"s{number}.npz",
        image=image[..., 0] + 1j * image[..., 1],
        subject=np.int16(number),
        view=np.array(views),
    )


def slices(folder, **changes):
    return sources(
        **{
            "kind": "slices",
            "folder": str(folder),
            "images.files": "s*.npz",
            "images.train_subjects": (1, 2),
            "images.test_subjects": (3,),
            "images.anatomy_file": "s4.npz",
            "num_validation": 1,
            **changes,
        }
    )[0]


def test_slices_are_split_by_subject(tmp_path):
    for number in (1, 2, 3):
        saved_subject(tmp_path, number)
    saved_subject(tmp_path, 4, shape=(40, 30))
    made = slices(tmp_path, out_of_distribution=("coronal", "anatomy", "lesion"))
    assert {name: len(source) for name, source in made.items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
        "coronal": 1,
        "anatomy": 3,
        "lesion": 2,
    }
    with pytest.raises(ValueError, match=r"subjects \[1\] are in the train set and in the test"):
        slices(tmp_path, **{"images.test_subjects": (1,)})
    own = slices(tmp_path, **{"images.train_subjects": (1,), "images.validation_subjects": (2,)})
    assert [len(own[name]) for name in ("train", "validation", "test")] == [2, 2, 2]
    with pytest.raises(ValueError, match="in the train set and in the validation set"):
        slices(tmp_path, **{"images.validation_subjects": (2,)})
    with pytest.raises(ValueError, match="num_validation=4 is not accepted: there are 4"):
        slices(tmp_path, num_validation=4)
    with pytest.raises(FileNotFoundError, match=r"no file matches 't\*.npz'"):
        slices(tmp_path, **{"images.files": "t*.npz"})


def fastmri(folder, **changes):
    return sources(**{"kind": "fastmri", "folder": str(folder), "num_validation": 1, **changes})


def written(folder):
    for name, count in (("singlecoil_train", 3), ("singlecoil_val", 2)):
        (folder / name).mkdir()
        for i in range(count):  # another seed is another patient
            path = folder / name / f"{name}{i}.h5"
            write_fastmri_file(path, shape=(40, 36), seed=10 * count + i)


def test_fastmri_volumes(tmp_path):
    written(tmp_path)
    made, skipped = fastmri(tmp_path, **{"sampling.draw": "file", "images.unit": "volume"})
    assert [len(made[name]) for name in ("train", "validation", "test")] == [6, 3, 6]
    item = made["test"][4]
    assert item["signal"].shape == (32, 32, 1) and item["volume"] == 1
    assert item["scale"] == item["volume_peak"] and not skipped
    name = sampling.seed_from_name("singlecoil_val1.h5")
    np.testing.assert_array_equal(
        item["mask"], sampling.gaussian_lines((32, 32), 4.0, seed=name).array
    )


def test_no_patient_is_in_two_sets(tmp_path):
    written(tmp_path)
    # A second volume of the patient that is held out to validate on.
    write_fastmri_file(tmp_path / "singlecoil_train" / "a.h5", shape=(40, 36), seed=32)
    made, _ = fastmri(tmp_path)
    assert [len(made[name]) for name in ("train", "validation")] == [6, 6]
    with pytest.raises(ValueError, match="num_validation=4 is not accepted: with it none of 4"):
        fastmri(tmp_path, num_validation=4)
    write_fastmri_file(tmp_path / "singlecoil_val" / "b.h5", shape=(40, 36), seed=30)
    with pytest.raises(ValueError, match="are in the train set and in the test set"):
        fastmri(tmp_path)


def test_a_bad_slice_shows_when_files_are_read_to_the_end(tmp_path):
    written(tmp_path)
    bad = tmp_path / "singlecoil_train" / "singlecoil_train0.h5"
    with h5py.File(bad, "r+") as file:
        file["kspace"][0, 3, 3] = np.nan
    fastmri(tmp_path)
    with pytest.raises(ValueError, match=r"singlecoil_train0\.h5: 'kspace', slice 0"):
        fastmri(tmp_path, read_all=True)
    made, skipped = fastmri(tmp_path, read_all=True, on_bad_file="skip")
    assert len(made["train"]) == 3 and [path.name for path, _ in skipped] == [bad.name]


def test_a_bad_file_is_reported_or_left_out(tmp_path):
    written(tmp_path)
    bad = tmp_path / "singlecoil_train" / "singlecoil_train1.h5"
    bad.write_bytes(bad.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"singlecoil_train1\.h5"):
        fastmri(tmp_path)
    made, skipped = fastmri(tmp_path, on_bad_file="skip")
    assert len(made["train"]) == len(made["validation"]) == 3
    assert [path.name for path, _ in skipped] == ["singlecoil_train1.h5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling.mask": "spiral"}, "data.sampling.mask='spiral' is not accepted"),
        ({"sampling.mask": "radial", "sampling.center_fraction": 0.1}, "has no such option"),
        ({"sampling.draw": "name"}, "draw='name' is not accepted"),
        ({"sampling.draw": "file"}, "these images do not come from named volumes"),
        ({"images.unit": "metre"}, "unit='metre' is not accepted"),
        ({"out_of_distribution": ("coronal",)}, "'coronal' is not accepted with data.kind='phan"),
        ({"kind": "slices", "folder": ""}, "data.folder is empty"),
        ({"kind": "fastmri"}, "data.folder is empty"),
        ({"kind": "fastmri", "folder": ".", "on_bad_file": "stop"}, "on_bad_file='stop' is not"),
        (
            {"kind": "slices", "folder": ".", "images.shape": (32, 16), "images.files": "*"},
            r"\(32, 16\)",
        ),
    ],
)
def test_errors_name_the_value(changes, message):
    with pytest.raises(ValueError, match=message):
        sources(**{"folder": "", **changes})
