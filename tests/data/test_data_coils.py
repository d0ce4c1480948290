"""Coil maps, k-space that several coils recorded, and how examples with maps are measured."""

import io
import pickle
import sys
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from fastmri_files import write_fastmri_file
from helpers import near
from ml_collections import ConfigDict

from configs import mri_phantom
from jitter_jax import operators
from jitter_jax.commands.frame import explain_errors
from jitter_jax.data import (
    FastMRISlices,
    Lesions,
    MultiCoil,
    Phantoms,
    RecordedSlices,
    Scaled,
    check_maps,
    combine,
    espirit_maps,
    index_fastmri,
    object_region,
    simulated_maps,
)
from jitter_jax.data.coils import coils
from jitter_jax.data.kspace import centred_fft2, centred_ifft2, crop_or_pad, root_sum_of_squares
from jitter_jax.data.measure import make_measure
from jitter_jax.data.sources import make_sources
from jitter_jax.extras import MissingExtraError

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data" / "mri" / "brain_8coil.npz"
SHAPE = (24, 20)


def phantom(shape=SHAPE, seed=0):
    return Phantoms(1, seed, shape)[0]["signal"]


def centred_matrix(n):
    place = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(place, place) / n) / np.sqrt(n)


def correlation(one, other):
    """Returns `|<a, b>| / (|a| |b|)` over the coils, which a common phase does not change."""
    sizes = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.abs(np.sum(one.conj() * other, axis=-1)) / sizes


# Simulated maps


@pytest.mark.parametrize(("shape", "num_coils"), [((24, 20), 8), ((17, 33), 1), ((32, 32), 15)])
def test_simulated_maps_have_unit_sum_of_squares(shape, num_coils):
    maps = simulated_maps(shape, num_coils, seed=4)
    assert maps.shape == (*shape, num_coils) and maps.dtype == np.complex64
    near(np.sum(np.abs(maps) ** 2, axis=-1), np.ones(shape), 1e-6)
    check_maps(maps, maps.shape)


@pytest.mark.parametrize("seed", range(5))
def test_simulated_maps_are_smooth_and_not_flat(seed):
    maps = simulated_maps((64, 64), 8, seed=seed)
    for axis in (0, 1):
        # Of the order of (1 / 32) and (1 / 32)^2; of white maps both are about 1.
        assert np.abs(np.diff(maps, axis=axis)).max() < 0.06
        assert np.abs(np.diff(maps, 2, axis=axis)).max() < 0.005
    magnitude = np.abs(maps)
    # A flat map is 1 / sqrt(8) everywhere. Every coil sees somewhere better than all others.
    assert (magnitude.max((0, 1)) > 0.55).all() and (magnitude.min((0, 1)) < 0.1).all()
    assert set(np.unique(magnitude.argmax(-1))) == set(range(8))
    # And it does so at the border: these are coils around an object.
    row, column = np.unravel_index(magnitude.reshape(-1, 8).argmax(0), (64, 64))
    assert (np.hypot(row - 32, column - 32) > 28).all()
    assert np.abs(np.angle(maps[32, 8] / maps[32, 56])).max() > 0.3


def test_one_seed_is_one_set_of_maps():
    maps = simulated_maps(SHAPE, 4, seed=3)
    np.testing.assert_array_equal(maps, simulated_maps(SHAPE, 4, seed=3))
    for other in (4, (3, 1), (4, 1)):
        assert correlation(maps, simulated_maps(SHAPE, 4, seed=other)).min() < 0.9
    # The same field of view in finer pixels.
    fine = simulated_maps((2 * SHAPE[0], 2 * SHAPE[1]), 4, seed=3)
    near(fine[::2, ::2], maps, 1e-6)


def test_a_mean_over_coils_is_the_image():
    maps, image = simulated_maps(SHAPE, 5, seed=1), phantom()
    near(combine(maps * image, maps), image[..., 0], 1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 4), 3), r"shape=\(0, 4\) is not accepted"),
        (((4, 4, 4), 3), r"shape=\(4, 4, 4\) is not accepted"),
        (((4, 4), 0), "num_coils=0 is not accepted"),
        (((4, 4), 2.0), r"num_coils=2\.0 is not accepted"),
    ],
)
def test_what_no_maps_can_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulated_maps(*arguments)
    with pytest.raises(ValueError, match="seed=-1 is not accepted"):
        simulated_maps((4, 4), 2, seed=(1, -1))


def test_maps_are_checked():
    maps = simulated_maps(SHAPE, 3)
    some = maps.copy()
    some[:5] = 0
    check_maps(some, some.shape)
    with pytest.raises(ValueError, match=r"maps has shape \(24, 20, 3\) beside .* \(24, 20, 4\)"):
        check_maps(maps, (*SHAPE, 4))
    for bad in (1.01 * maps, np.full_like(maps, np.nan)):
        with pytest.raises(ValueError, match=r"sum of squares of 1 .*operators\.normalise_maps"):
            check_maps(bad, bad.shape)
    with pytest.raises(ValueError, match="maps is zero everywhere"):
        check_maps(np.zeros_like(maps), maps.shape)
    half = maps.copy()
    half[3, 4] *= 0.5
    with pytest.raises(ValueError, match=r"a deviation of 0\.75; "):
        check_maps(half, half.shape)
    check_maps(np.asarray(operators.normalise_maps(half)), half.shape)


def test_crop_or_pad_keeps_the_origin():
    for size in range(1, 7):
        array = np.arange(size * 2).reshape(size, 2) + 1
        for wanted in range(1, 9):
            found = crop_or_pad(array, (wanted, 2))
            assert found.shape == (wanted, 2)
            np.testing.assert_array_equal(found[wanted // 2], array[size // 2])
            assert (found != 0).sum() == 2 * min(size, wanted)
    with pytest.raises(ValueError, match=r"shape=\(0, 2\) is not accepted"):
        crop_or_pad(array, (0, 2))


# ESPIRiT


def test_espirit_finds_simulated_maps_up_to_a_phase():
    image, maps = phantom((48, 40)), simulated_maps((48, 40), 6, seed=2)
    found = espirit_maps(centred_fft2(image * maps), 20)
    inside = object_region(image)
    size = np.sum(np.abs(found) ** 2, axis=-1)
    near(size[size > 0], np.ones((size > 0).sum()), 1e-5)
    assert (size[inside] > 0).all() and (size == 0).any()
    assert correlation(found[inside], maps[inside]).min() > 0.99
    # Maps of another seed would not do.
    other = simulated_maps((48, 40), 6, seed=3)
    assert correlation(found[inside], other[inside]).mean() < 0.9
    first = found[..., 0]
    assert np.abs(first.imag).max() < 1e-5 and first.real.min() > -1e-5
    assert found.dtype == np.complex64


def test_espirit_reads_the_centre_alone():
    maps = simulated_maps((32, 32), 3, seed=1)
    kspace = centred_fft2(phantom((32, 32)) * maps)
    cut = np.zeros_like(kspace)
    cut[8:24, 8:24] = kspace[8:24, 8:24]
    near(espirit_maps(cut, 16), espirit_maps(kspace, 16), 1e-5)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (0, "num_calibration=0 is not accepted"),
        (5, r"num_calibration=5 is not accepted: .* 6\.\.20, is expected"),
        (21, r"num_calibration=21 is not accepted: .* 6\.\.20, is expected"),
        (16, r"num_calibration=16 is not accepted: 32 of the 256 central points are zero"),
        (6.0, r"num_calibration=6\.0 is not accepted"),
    ],
)
def test_calibration_that_is_not_there(number, message):
    kspace = centred_fft2(phantom() * simulated_maps(SHAPE, 3))
    kspace[:, [4, 8]] = 0
    with pytest.raises(ValueError, match=message):
        espirit_maps(kspace, number)


def test_espirit_refuses_what_gives_no_maps():
    with pytest.raises(ValueError, match=r"kspace has shape \(24, 20\)"):
        espirit_maps(np.zeros(SHAPE, np.complex64), 8)
    kspace = centred_fft2(phantom() * simulated_maps(SHAPE, 3))
    with pytest.raises(ValueError, match="smallest_eigenvalue=10 is not accepted: no pixel"):
        espirit_maps(kspace, 8, smallest_eigenvalue=10)


def test_espirit_says_what_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)
    kspace = centred_fft2(phantom() * simulated_maps(SHAPE, 3))
    with pytest.raises(MissingExtraError, match=r"by sigpy, .*pip install 'jitter_jax\[coils\]'"):
        espirit_maps(kspace, 8)


def test_a_missing_extra_is_a_message_to_users(capsys):
    with pytest.raises(SystemExit), explain_errors():
        raise MissingExtraError("coil maps are estimated", "sigpy", "coils")
    assert capsys.readouterr().err == (
        "error: coil maps are estimated by sigpy, which is not installed: "
        "pip install 'jitter_jax[coils]'\n"
    )
    with pytest.raises(ImportError), explain_errors():
        raise ImportError("a fault of the installation keeps its traceback")


# Examples with maps, and their measurement


def test_maps_for_all_or_for_each():
    phantoms = Phantoms(3, 0, SHAPE)
    fixed, own = (
        MultiCoil(phantoms, coils(4, seed=(5, 1), vary=vary)) for vary in ("fixed", "example")
    )
    assert len(own) == 3
    np.testing.assert_array_equal(own[2]["signal"], phantoms[2]["signal"])
    np.testing.assert_array_equal(fixed[0]["maps"], fixed[2]["maps"])
    np.testing.assert_array_equal(own[0]["maps"], fixed[0]["maps"])
    assert correlation(own[0]["maps"], own[2]["maps"]).min() < 0.9
    again = MultiCoil(phantoms, coils(4, seed=(5, 1), vary="example"))
    np.testing.assert_array_equal(own[2]["maps"], again[2]["maps"])
    with pytest.raises(ValueError, match="vary='slice' is not accepted"):
        coils(4, seed=(5,), vary="slice")
    with pytest.raises(ValueError, match="num_coils=0 is not accepted"):
        coils(0, seed=(5,))


def sense(example):
    return operators.sense(example["mask"], example["maps"])


MASK = np.broadcast_to(np.arange(SHAPE[1]) % 3 == 1, SHAPE)


def measured(item, *, noise_std=0.0):
    examples = {name: np.stack([value] * 2) for name, value in item.items()}
    examples |= {"index": np.arange(2, dtype=np.int32), "mask": np.stack([MASK, MASK])}
    measure = make_measure(sense, seed=0, noise_std=noise_std, normalisation="none")
    return np.asarray(measure(examples, "test").measurement)


def test_every_coil_is_measured_by_the_masked_transform():
    image, maps = phantom(), simulated_maps(SHAPE, 3, seed=1)
    left, right = centred_matrix(SHAPE[0]), centred_matrix(SHAPE[1])
    expected = np.zeros((*SHAPE, 3), np.complex128)
    for coil in range(3):
        expected[..., coil] = MASK * (left @ (maps[..., coil] * image[..., 0]) @ right.T)
    found = measured({"signal": image, "maps": maps})
    assert found.dtype == np.complex64
    near(found[0], expected, 1e-5)


def test_recorded_kspace_is_masked_and_nothing_is_simulated():
    maps = simulated_maps(SHAPE, 3, seed=1)
    rng = np.random.default_rng(0)
    recorded = rng.normal(size=(2, *SHAPE, 3)).astype(np.float32)
    recorded = recorded[0] + 1j * recorded[1]
    item = {"signal": phantom(), "maps": maps, "measurement": recorded}
    expected = recorded * MASK[..., None]
    # The noise of the config is in it already.
    np.testing.assert_array_equal(measured(item, noise_std=0.5)[0], expected)
    # That of a set of its own is added, at the samples.
    noisy = measured({**item, "noise_std": np.float32(0.25)}) - expected
    assert not noisy[:, ~MASK].any() and not np.array_equal(noisy[0], noisy[1])
    assert np.std(noisy[:, MASK].real) == pytest.approx(0.25, rel=0.1)


def test_units_hold_for_recorded_kspace():
    maps, image = simulated_maps(SHAPE, 3, seed=1), 7 * phantom()

    class One:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            kspace = centred_fft2(image * maps)
            return {"signal": image, "maps": maps, "measurement": kspace}

    for unit in ("slice", "component"):
        item = Scaled(One(), unit)[0]
        near(item["measurement"], centred_fft2(item["signal"] * maps), 1e-5)
        parts = [np.abs(item["signal"].real).max(), np.abs(item["signal"].imag).max()]
        largest = max(parts) if unit == "component" else np.abs(item["signal"]).max()
        assert largest == pytest.approx(1, rel=1e-6)
        near(item["maps"], maps, 1e-7)
    assert max(parts) < np.abs(item["signal"]).max()


# Recorded slices


def saved(path, num_slices=2, num_coils=3, shape=SHAPE, has_maps=True, **changes):
    own = np.stack([simulated_maps(shape, num_coils, seed=s) for s in range(num_slices)])
    images = np.stack([phantom(shape, seed) for seed in range(num_slices)])
    kspace = np.stack([centred_fft2(array) for array in images * own])
    arrays = {"kspace": np.moveaxis(kspace, -1, 1)}
    arrays |= {"maps": np.moveaxis(own, -1, 1)} if has_maps else {}
    np.savez(path, **{**arrays, **changes})
    return images


def test_recorded_slices(tmp_path):
    images = saved(tmp_path / "two.npz")
    slices = RecordedSlices(tmp_path / "two.npz")
    assert len(slices) == 2 and slices.num_coils == 3
    for i, image in enumerate(images):
        item = slices[i]
        near(item["signal"], image, 1e-5)
        near(centred_ifft2(item["measurement"]), image * item["maps"], 1e-5)
        arrays = [item[name] for name in ("signal", "maps", "measurement")]
        assert all(array.dtype == np.complex64 for array in arrays)
        assert item["volume"] == 0 and item["maximum"] == pytest.approx(np.abs(images).max(), 1e-5)
    with pytest.raises(IndexError):
        slices[2]
    whole = slices[1]
    for size in (24, 15):
        fitted = RecordedSlices(tmp_path / "two.npz", size=size)[1]
        # The middle of what was recorded, in a square field of view.
        square = centred_fft2(crop_or_pad(centred_ifft2(whole["measurement"]), (24, 24)))
        middle = crop_or_pad(square, (size, size)) * size / 24
        near(fitted["measurement"], middle, 1e-5)
        near(fitted["signal"][..., 0], combine(centred_ifft2(middle), fitted["maps"]), 1e-5)
        check_maps(fitted["maps"], (size, size, 3))
    near(RecordedSlices(tmp_path / "two.npz", size=24)[1]["maps"][:, 2:22], whole["maps"], 1e-6)


def test_recorded_slices_without_maps(tmp_path):
    (image,) = saved(tmp_path / "one.npz", 1, has_maps=False)
    item = RecordedSlices(tmp_path / "one.npz", num_calibration=16)[0]
    # Up to the phase of the first coil.
    near(np.abs(item["signal"]), np.abs(image), 0.02)
    model = centred_fft2(item["signal"] * item["maps"])
    near(model, item["measurement"], 0.02)
    with pytest.raises(ValueError, match=r"num_calibration=24 is not accepted: .* 6\.\.20"):
        RecordedSlices(tmp_path / "one.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kspace": np.ones((3, 8))}, r"'kspace' has shape \(3, 8\)"),
        ({"kspace": np.ones((2, 0, 8, 8))}, "not empty"),
        ({"kspace": np.full((2, 3, *SHAPE), np.nan)}, "NaN"),
        ({"maps": np.ones((3, *SHAPE))}, "maps of 1 slices beside 2 of k-space"),
        (
            {"maps": np.ones((2, 3, *SHAPE))},
            r"sum of squares of 1 .* a deviation of 2; .*normalise_maps",
        ),
        ({"maps": np.ones((2, 4, *SHAPE)) / 2}, r"maps has shape \(24, 20, 4\) beside k-space"),
    ],
)
def test_bad_recorded_files(tmp_path, changes, message):
    saved(tmp_path / "bad.npz", **changes)
    with pytest.raises(ValueError, match=message):
        RecordedSlices(tmp_path / "bad.npz")


def test_a_file_without_kspace(tmp_path):
    np.savez(tmp_path / "other.npz", image=np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"has no array 'kspace'; it holds \['image'\]"):
        RecordedSlices(tmp_path / "other.npz")


def recorded_file():
    if not RECORDED.exists():
        pytest.skip("the recorded slice brain_8coil.npz is not beside the checkout")
    return dict(np.load(RECORDED, allow_pickle=False))


def test_the_recorded_head_is_its_reference():
    arrays = recorded_file()
    item = RecordedSlices(RECORDED)[0]
    near(item["signal"][..., 0], arrays["reference"], 1e-6)
    operator = operators.sense(jnp.ones((230, 180), bool), item["maps"])
    near(operator.adjoint(item["measurement"])[..., 0], arrays["reference"], 1e-5)
    # The noise of the scan is in the measurement: it is no product of the truth and the maps.
    left_over = item["measurement"] - operator.forward(item["signal"])
    share = np.linalg.norm(left_over) / np.linalg.norm(item["measurement"])
    assert 0.05 < share < 0.2


def test_espirit_of_the_recorded_head():
    arrays = recorded_file()
    maps = np.moveaxis(arrays["maps"], 0, -1)
    found = espirit_maps(np.moveaxis(arrays["kspace"], 0, -1), 24)
    both = found.any(-1) & maps.any(-1)
    assert both.mean() > 0.7
    assert correlation(found[both], maps[both]).min() > 0.999


# fastMRI's multi-coil files


def volume(folder, name="file1.h5", **options):
    options = {"num_coils": 4, "num_slices": 2, "shape": (40, 36), **options}
    return index_fastmri(write_fastmri_file(folder / name, **options)).volumes[0]


def test_fastmri_signals_of_many_coils(tmp_path):
    chosen = volume(tmp_path)
    slices = FastMRISlices([chosen], crop=(24, 28), num_calibration=16)
    item = slices[1]
    assert item["signal"].shape == (24, 28, 1) and item["maps"].shape == (24, 28, 4)
    raw = FastMRISlices([chosen], raw=True)[1]["kspace"]
    coil_images = centred_ifft2(raw)[8:32, 4:32]
    near(centred_ifft2(item["measurement"]), coil_images, 1e-5)
    assert item["volume"] == 0 and item["slice"] == 1 and item["maximum"] > 0
    check_maps(item["maps"], (24, 28, 4))
    near(item["signal"][..., 0], combine(coil_images, item["maps"]), 1e-6)
    # Where there are maps, they see what all coils see together.
    seen = item["maps"].any(-1)
    assert seen.mean() > 0.5
    together = root_sum_of_squares(coil_images, axis=-1)
    left_over = np.linalg.norm(np.abs(item["signal"][..., 0])[seen] - together[seen])
    assert left_over < 0.1 * np.linalg.norm(together[seen])
    assert slices[1]["maps"] is item["maps"]  # seconds are spent once
    again = pickle.loads(pickle.dumps(slices))[1]
    np.testing.assert_array_equal(again["signal"], item["signal"])
    slices.close()


def test_estimated_maps_are_kept_on_disk(tmp_path, monkeypatch):
    chosen, folder = volume(tmp_path), tmp_path / "kept" / "maps"
    make = partial(FastMRISlices, [chosen], num_calibration=16, maps_folder=folder)
    first = make(crop=(24, 28))[1]
    (file,) = folder.iterdir()  # no part of a file is left over
    assert file.name == "file1-slice1-24x28x4-calibration16.npy"
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)
    np.testing.assert_array_equal(make(crop=(24, 28))[1]["maps"], first["maps"])
    # Of another slice or another crop they are others, to be estimated.
    for slices, index in ((make(crop=(24, 28)), 0), (make(crop=(24, 24)), 1)):
        with pytest.raises(MissingExtraError):
            slices[index]
    for content in (b"", file.read_bytes()[:300], _npy(np.ones((24, 28, 4), np.complex64))):
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"calibration16\.npy: holds no maps .* estimated anew"
        ):
            make(crop=(24, 28))[1]


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_fastmri_volumes_differ_in_coils(tmp_path):
    many, few = volume(tmp_path), volume(tmp_path, "file2.h5", num_coils=2)
    with pytest.raises(ValueError, match=r"the number of coils is 2, but 4 in .*file1\.h5"):
        FastMRISlices([many, few], crop=16, num_calibration=16)
    with pytest.raises(ValueError, match="or num_calibration to estimate the coils' maps"):
        FastMRISlices([many], crop=16)
    test_set = volume(tmp_path, "file3.h5", test_set=True)
    with pytest.raises(ValueError, match="has a mask"):
        FastMRISlices([test_set], crop=16, num_calibration=16)


# What a config asks for


def sources(**changes):
    config = mri_phantom.get_config().data.to_dict()
    config |= {"num_train": 3, "num_validation": 2, "num_test": 2, "out_of_distribution": ()}
    config["images"]["shape"] = (32, 32)
    config = ConfigDict(config)
    with config.ignore_type():
        config.update_from_flattened_dict({"coils.num": 3, **changes})
    measuring = ("noise_std", "fresh_noise", "normalisation")
    return make_sources(**{key: v for key, v in config.to_dict().items() if key not in measuring})


def test_sets_of_phantoms_with_coils(tmp_path):
    saved(tmp_path / "two.npz", shape=(40, 28))
    names = ("lesion", "contrast", "mask", "acceleration", "noise", "maps", "recorded")
    made = sources(
        **{"out_of_distribution": names, "folder": str(tmp_path), "coils.file": "two.npz"}
    )
    test = made["test"][1]
    for name, source in made.items():
        item = source[1]
        check_maps(item["maps"], (32, 32, 3))  # also those of recorded slices of 40 x 28
        assert item["mask"].shape == (32, 32) and item["signal"].shape == (32, 32, 1)
        same = np.array_equal(item["maps"], test["maps"])
        assert same == (name not in ("maps", "recorded")), name
        assert ("measurement" in item) == (name == "recorded")
        assert np.abs(item["signal"]).max() == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(made["maps"][1]["signal"], test["signal"])
    assert correlation(made["maps"][1]["maps"], test["maps"]).min() < 0.9
    recorded = made["recorded"][0]
    coil_images = centred_ifft2(recorded["measurement"])
    near(recorded["signal"][..., 0], combine(coil_images, recorded["maps"]), 1e-5)


def test_maps_of_each_example():
    made = sources(**{"coils.vary": "example", "out_of_distribution": ("lesion", "maps")})
    found = [
        made[name][i]["maps"] for name in ("train", "validation", "test", "maps") for i in (0, 1)
    ]
    for i, one in enumerate(found):
        assert all(correlation(one, other).min() < 0.95 for other in found[:i])
    np.testing.assert_array_equal(made["lesion"][1]["maps"], made["test"][1]["maps"])


def test_sets_of_multi_coil_fastmri(tmp_path):
    for name, seeds in (("train", (1, 2)), ("val", (3,))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            volume(tmp_path / name, f"{seed}.h5", seed=seed)
    fastmri = {
        "kind": "fastmri",
        "folder": str(tmp_path),
        "num_validation": 1,
        "images.train": "train",
        "images.test": "val",
        "images.shape": (24, 24),
        "coils.num": 4,
        "coils.maps": "espirit",
        "coils.num_calibration": 16,
    }
    made = sources(**fastmri, out_of_distribution=("noise", "lesion", "maps"))
    items = {name: source[0] for name, source in made.items()}
    assert {name for name in items if "measurement" in items[name]} == {
        "train",
        "validation",
        "test",
        "noise",
    }
    test = items["test"]
    assert test["measurement"].shape == test["maps"].shape == (24, 24, 4)
    near(
        np.sum(test["maps"].conj() * centred_ifft2(test["measurement"]), axis=-1),
        test["signal"][..., 0],
        1e-5,
    )
    np.testing.assert_array_equal(items["lesion"]["maps"], test["maps"])
    np.testing.assert_array_equal(items["maps"]["signal"], test["signal"])
    assert not np.array_equal(items["maps"]["maps"], test["maps"])
    volume(tmp_path / "train", "4.h5", num_coils=2)  # of another number of coils: left out
    assert len(sources(**fastmri)["train"]) == len(made["train"]) == 2
    fewer = sources(**fastmri, **{"images.max_train_slices": 1})
    assert [len(fewer[name]) for name in ("train", "validation", "test")] == [1, 2, 2]
    kept = sources(**fastmri, **{"coils.folder": str(tmp_path / "maps")})
    np.testing.assert_array_equal(kept["test"][0]["maps"], test["maps"])
    assert len(list((tmp_path / "maps").iterdir())) == 1
    with pytest.raises(ValueError, match=r"num_coils=5 is not accepted: the volumes have \[2, 4\]"):
        sources(**{**fastmri, "coils.num": 5})
    with pytest.raises(ValueError, match="has k-space of 4 coils"):
        sources(**{**fastmri, "coils.maps": "simulated"})


def test_a_lesion_is_not_drawn_into_what_was_recorded(tmp_path):
    saved(tmp_path / "two.npz")
    with pytest.raises(ValueError, match="'signal' without 'measurement'"):
        Lesions(RecordedSlices(tmp_path / "two.npz"), 0)[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coils.num": -1}, r"data\.coils\.num=-1 is not accepted"),
        ({"coils.maps": "espirit"}, "'espirit' is not accepted with data.kind='phantoms'"),
        ({"coils.maps": "flat"}, "'flat' is not accepted"),
        ({"coils.vary": "slice"}, "vary='slice' is not accepted"),
        ({"coils.num": 0, "out_of_distribution": ("maps",)}, r"'maps' .*num=0: of \['lesion'"),
        ({"coils.num": 0, "out_of_distribution": ("recorded",)}, r"'recorded' .*num=0"),
        ({"out_of_distribution": ("recorded",)}, r"data\.coils\.file is empty"),
        (
            {"out_of_distribution": ("recorded",), "coils.file": "two.npz", "coils.num": 4},
            r"data\.coils\.num=4 is not accepted: .*two\.npz has 3 coils",
        ),
    ],
)
def test_errors_name_the_value(tmp_path, changes, message):
    saved(tmp_path / "two.npz", shape=(32, 32))
    with pytest.raises(ValueError, match=message):
        sources(**{"folder": str(tmp_path), **changes})
