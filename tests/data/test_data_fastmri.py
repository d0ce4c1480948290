import gc
import os
import pickle
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from fastmri_files import crop, to_image, to_kspace, write_fastmri_file

from jitter_jax import data
from jitter_jax.data import fastmri
from jitter_jax.data import kspace as host
from jitter_jax.data.fastmri import FastMRISlices, index_fastmri, select_volumes

# Rounding of a float32 transform of some thousand points, relative to the largest value.
ROUNDING = 1e-6
SIZES = [
    ((32, 24), (16, 16), (0, 0)),
    ((33, 24), (16, 15), (3, 0)),
    ((32, 25), (17, 16), (2, 3)),
    ((35, 27), (27, 27), (4, 5)),
    ((20, 30), (19, 30), (0, 7)),
]


def near(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=ROUNDING * np.abs(expected).max())


def one(path, **options):
    return index_fastmri(write_fastmri_file(path / "file1.h5", **options)).volumes[0]


def folder(path, *many):
    for i, options in enumerate(many):
        write_fastmri_file(path / f"file{i}.h5", seed=i, **options)
    return index_fastmri(path).volumes


def stored(volume, key):
    with h5py.File(volume.path) as file:
        return file[key][()]


# The host's transforms


@pytest.mark.parametrize("shape", [(1, 1), (4, 6), (5, 7), (6, 5), (1, 8)])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_transforms_are_numpys_shifted_unitary_and_of_the_same_precision(shape, dtype):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3, *shape)) + 1j * rng.normal(size=(3, *shape))).astype(dtype)
    k = host.centred_fft2(x, axes=(1, 2))
    assert k.dtype == dtype
    near(k, to_kspace(x.astype(complex)))
    near(host.centred_ifft2(k, axes=(1, 2)), x)
    near(host.centred_fft2(np.moveaxis(x, 0, -1)), np.moveaxis(k, 0, -1))
    near(host.centred_ifft2(np.moveaxis(x, 0, -1)), np.moveaxis(to_image(x), 0, -1))
    # A constant image is one point, at n // 2.
    point = host.centred_fft2(np.ones(shape, dtype))
    assert abs(point[shape[0] // 2, shape[1] // 2]) == pytest.approx(np.sqrt(np.prod(shape)))


@pytest.mark.parametrize(
    ("n", "m", "start"), [(4, 4, 0), (4, 3, 0), (5, 4, 0), (5, 3, 1), (6, 1, 2)]
)
def test_the_crop_begins_where_fastmri_begins_it(n, m, start):
    image = np.arange(2 * n * (n + 1)).reshape(2, n, n + 1)
    cropped = host.centre_crop(image, (m, n + 1), axes=(1, 2))
    np.testing.assert_array_equal(cropped, image[:, start : start + m])
    assert np.shares_memory(cropped, image)
    turned = np.moveaxis(image, 0, -1)
    np.testing.assert_array_equal(
        host.centre_crop(turned, (n, m + 1)), turned[:, start : start + m + 1]
    )


@pytest.mark.parametrize("shape", [(5, 4), (4, 6), (0, 4), (-1, 4)])
def test_a_crop_that_does_not_fit(shape):
    with pytest.raises(ValueError, match=rf"shape=\({shape[0]}, {shape[1]}\).*has \(4, 5\)"):
        host.centre_crop(np.zeros((4, 5)), shape)


@pytest.mark.parametrize("num_coils", [1, 2, 15])
@pytest.mark.parametrize("axis", [0, -1])
def test_root_sum_of_squares(num_coils, axis):
    rng = np.random.default_rng(0)
    coils = rng.normal(size=(num_coils, 5, 4)) + 1j * rng.normal(size=(num_coils, 5, 4))
    images = np.moveaxis(coils, 0, axis)
    near(host.root_sum_of_squares(images, axis=axis), np.linalg.norm(coils, axis=0))
    near(host.root_sum_of_squares(images.real, axis=axis), np.linalg.norm(coils.real, axis=0))


# The index


@pytest.mark.parametrize("num_coils", [None, 1, 15])
@pytest.mark.parametrize(("shape", "recon_size", "padding"), SIZES)
def test_what_the_index_knows(tmp_path, num_coils, shape, recon_size, padding):
    volume = one(
        tmp_path, num_coils=num_coils, shape=shape, recon_size=recon_size, padding=padding, seed=4
    )
    assert volume.path == tmp_path / "file1.h5"
    assert volume.num_slices == 3 and volume.num_coils == (num_coils or 0)
    assert volume.kspace_shape == (3, *([num_coils] if num_coils else []), *shape)
    assert volume.target_shape == recon_size and not volume.has_mask
    assert volume.header == ((*shape, 1), (*recon_size, 1), padding[0], shape[1] - padding[1])
    target = stored(volume, "reconstruction_rss" if num_coils else "reconstruction_esc")
    assert volume.maximum == pytest.approx(target.max(), rel=1e-6)
    assert volume.norm == pytest.approx(np.linalg.norm(target), rel=1e-6)
    assert volume.acquisition == "CORPD_FBK" and len(volume.patient_id) == 64


def test_a_test_set_has_a_mask_and_no_target(tmp_path):
    volume = one(tmp_path, test_set=True)
    assert volume.has_mask and volume.target_shape is None
    assert volume.maximum is None and volume.norm is None


def test_a_folder_is_read_in_order_of_name_and_files_in_order_of_the_list(tmp_path):
    folder(tmp_path, *[{}] * 3)
    (tmp_path / "notes.txt").write_text("not a volume")
    paths = [tmp_path / f"file{i}.h5" for i in range(3)]
    assert [v.path for v in index_fastmri(tmp_path).volumes] == paths
    assert [v.path for v in index_fastmri(str(tmp_path)).volumes] == paths
    assert [v.path for v in index_fastmri([paths[2], paths[0]]).volumes] == [paths[2], paths[0]]


def test_attributes_may_be_absent(tmp_path):
    path = write_fastmri_file(tmp_path / "own.h5")
    with h5py.File(path, "r+") as file:
        for name in list(file.attrs):
            del file.attrs[name]
    volume = index_fastmri(path).volumes[0]
    assert volume.maximum is volume.norm is volume.acquisition is volume.patient_id is None
    assert sorted(FastMRISlices([volume], raw=True)[0]) == [
        "kspace",
        "padding_left",
        "padding_right",
        "slice",
        "target",
        "volume",
    ]


def replace(key, value):
    def damage(path):
        with h5py.File(path, "r+") as file:
            del file[key]
            if value is not None:
                file[key] = value

    return damage


def attribute(name, value):
    def damage(path):
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return damage


def rename(old, new):
    def damage(path):
        with h5py.File(path, "r+") as file:
            file.move(old, new)

    return damage


def header(old, new):
    def damage(path):
        with h5py.File(path, "r+") as file:
            text = file["ismrmrd_header"][()].decode()
            assert old in text
            del file["ismrmrd_header"]
            file["ismrmrd_header"] = text.replace(old, new)

    return damage


def not_finite(key, where, value):
    def damage(path):
        with h5py.File(path, "r+") as file:
            file[key][where] = value

    return damage


def overwrite(content):
    return lambda path: path.write_bytes(content(path.read_bytes()))


def group_for_kspace(path):
    with h5py.File(path, "r+") as file:
        del file["kspace"]
        file.create_group("kspace")


ONES = np.ones((3, 32, 24), np.complex64)
TARGET = np.ones((3, 16, 16), np.float32)
STEP = "<kspace_encoding_step_1>\n"
BAD = {
    "absent": (lambda path: path.unlink(), "no such file"),
    "empty": (overwrite(lambda whole: b""), "cannot be read as an HDF5 file"),
    "text": (overwrite(lambda whole: b"slices,rows\n1,2\n"), "cannot be read as an HDF5 file"),
    "half": (overwrite(lambda whole: whole[: len(whole) // 2]), "cannot be read as an HDF5 file"),
    "short": (overwrite(lambda whole: whole[:-9]), "cannot be read as an HDF5 file"),
    "folder": (
        lambda path: (path.unlink(), path.mkdir()),
        "a folder without .h5 files",
    ),
    "no k-space": (replace("kspace", None), "no dataset 'kspace'; it holds .*'reconstruction_esc'"),
    "renamed": (rename("kspace", "k_space"), "no dataset 'kspace'; it holds .*'k_space'"),
    "group": (group_for_kspace, "no dataset 'kspace'"),
    "no header": (replace("ismrmrd_header", None), "no dataset 'ismrmrd_header'"),
    "real": (replace("kspace", ONES.real), "'kspace' has dtype float32; accepted: complex"),
    "rank": (replace("kspace", ONES[0]), r"'kspace' has shape \(32, 24\); accepted: \(slices"),
    "no slices": (replace("kspace", ONES[:0]), r"'kspace' has shape \(0, 32, 24\)"),
    "NaN": (not_finite("kspace", (2, 5, 6), np.nan), "'kspace', slice 2, has 1 of 768 values"),
    "infinite": (not_finite("kspace", (2, 0, 0), 1j * np.inf), "'kspace', slice 2, has 1 of 768"),
    "complex target": (
        replace("reconstruction_esc", TARGET * 1j),
        "'reconstruction_esc' has dtype complex.*floating-point",
    ),
    "target's slices": (
        replace("reconstruction_esc", TARGET[:2]),
        r"'reconstruction_esc' has shape \(2, 16, 16\); accepted: \(3, height",
    ),
    "NaN target": (
        not_finite("reconstruction_esc", (2, 1, 1), np.nan),
        "'reconstruction_esc', slice 2, has 1 of 256",
    ),
    "number for header": (replace("ismrmrd_header", 7), "'ismrmrd_header' has dtype int64.*text"),
    "two headers": (replace("ismrmrd_header", ["<a/>", "<a/>"]), r"has shape \(2,\).*one string"),
    "torn header": (header("</encoding>", ""), "'ismrmrd_header' cannot be read as XML"),
    "other XML": (header("encodedSpace", "space"), "has '' for encoding/encodedSpace/matrixSize/x"),
    "word": (
        header("<center>12<", "<center>mid<"),
        "has 'mid' for .*kspace_encoding_step_1/center",
    ),
    "no limits": (header("encodingLimits", "limits"), "has '' for encoding/encodingLimits/kspace_"),
    "left of all": (header("<center>12<", "<center>13<"), r"columns -1\.\.22 .* the 24 columns"),
    "max": (attribute("max", np.nan), "attribute 'max' is .*nan"),
    "norm": (attribute("norm", "large"), "attribute 'norm' is 'large'"),
}
BAD_TESTS = {
    "mask's shape": (replace("mask", np.ones(23, bool)), r"'mask' has shape \(23,\).*\(24,\)"),
    "mask's values": (replace("mask", np.arange(24)), r"'mask' has values \[0 1 2 3\]"),
    "NaN mask": (replace("mask", np.full(24, np.nan)), "'mask' has 24 of 24 values that are NaN"),
    "complex mask": (replace("mask", 1j * np.ones(24)), "'mask' has dtype complex128"),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_TESTS])
def test_a_bad_file_is_named_with_its_key_or_skipped_and_listed(tmp_path, name):
    damage, message = {**BAD, **BAD_TESTS}[name]
    volumes = folder(tmp_path, *[{"test_set": name in BAD_TESTS}] * 3)
    paths = [volume.path for volume in volumes]
    damage(paths[1])
    with pytest.raises((ValueError, FileNotFoundError), match=rf"file1\.h5: .*{message}") as caught:
        index_fastmri(paths)
    found = index_fastmri(paths, on_bad_file="skip")
    assert [v.path for v in found.volumes] == [paths[0], paths[2]]
    assert found.skipped == ((paths[1], str(caught.value)),)


def test_nothing_left(tmp_path):
    (tmp_path / "a.h5").write_text("text")
    with pytest.raises(ValueError, match=r"1 files, none .* the first: .*a\.h5: cannot be read"):
        index_fastmri(tmp_path, on_bad_file="skip")
    (tmp_path / "a.h5").unlink()
    with pytest.raises(ValueError, match="0 files, none of them"):
        index_fastmri([])
    with pytest.raises(ValueError, match=r"a folder without \.h5 files"):
        index_fastmri(tmp_path)
    with pytest.raises(ValueError, match="on_bad_file='ignore'"):
        index_fastmri(tmp_path, on_bad_file="ignore")


def break_chunk(path, key, number):
    with h5py.File(path) as file:
        chunk = file[key].id.get_chunk_info(number)
    with path.open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xff" * 16)


CHUNKED = {"chunks": (1, 32, 24), "fletcher32": True}


def test_a_broken_last_slice_is_found_by_the_index(tmp_path):
    path = write_fastmri_file(tmp_path / "file1.h5", **CHUNKED)
    break_chunk(path, "kspace", 2)
    with pytest.raises(ValueError, match=r"file1\.h5: 'kspace', slice 2, cannot be read"):
        index_fastmri(path)


def test_a_broken_slice_amid_a_file_is_found_by_reading_all_or_when_it_is_read(tmp_path):
    path = write_fastmri_file(tmp_path / "file1.h5", **CHUNKED)
    break_chunk(path, "kspace", 1)
    message = r"file1\.h5: 'kspace', slice 1, cannot be read .*accepted: a whole"
    with pytest.raises(ValueError, match=message):
        index_fastmri(path, read_all=True)
    source = FastMRISlices(index_fastmri(path).volumes)
    with pytest.raises(ValueError, match=message):
        source[1]
    assert np.isfinite(source[0]["signal"]).all() and np.isfinite(source[2]["signal"]).all()


@pytest.mark.parametrize("num_coils", [None, 3])
def test_reading_all_passes_whole_files_and_finds_each_bad_value(tmp_path, num_coils):
    path = write_fastmri_file(tmp_path / "file1.h5", num_coils=num_coils)
    assert index_fastmri(path, read_all=True) == index_fastmri(path)
    not_finite("kspace", (0,) * (3 if num_coils is None else 4), np.nan)(path)
    with pytest.raises(ValueError, match=r"file1\.h5: 'kspace', slice 0, has 1 of"):
        index_fastmri(path, read_all=True)
    with pytest.raises(ValueError, match=r"file1\.h5: 'kspace', slice 0, has 1 of"):
        FastMRISlices(index_fastmri(path).volumes, raw=True)[0]


def test_a_file_that_is_gone_when_it_is_read(tmp_path):
    volume = one(tmp_path)
    volume.path.unlink()
    with pytest.raises(FileNotFoundError, match=r"file1\.h5: no such file"):
        FastMRISlices([volume])[0]


# Signals and raw items


@pytest.mark.parametrize(("shape", "recon_size", "padding"), SIZES)
def test_signals_are_the_reconstruction_with_its_phase(tmp_path, shape, recon_size, padding):
    volume = one(tmp_path, shape=shape, recon_size=recon_size, padding=padding)
    source = FastMRISlices([volume], crop=recon_size)
    target, kspace = stored(volume, "reconstruction_esc"), stored(volume, "kspace")
    assert len(source) == 3
    for i, item in enumerate(source):
        assert sorted(item) == ["maximum", "signal", "slice", "volume"]
        assert item["signal"].dtype == np.complex64
        near(np.abs(item["signal"][..., 0]), target[i])
        near(item["signal"][..., 0], crop(to_image(kspace[i]), recon_size))
        assert item["signal"].base is None or item["signal"].base.size == item["signal"].size
    peak = max(np.abs(item["signal"]).max() for item in source)
    assert peak == pytest.approx(source[0]["maximum"], rel=1e-5)


def test_without_a_crop_the_grid_and_its_padding_are_the_files(tmp_path):
    volume = one(tmp_path, shape=(33, 24), padding=(3, 4))
    item = FastMRISlices([volume])[1]
    assert item["signal"].shape == (33, 24, 1)
    near(host.centred_fft2(item["signal"])[..., 0], stored(volume, "kspace")[1])
    assert (item["padding_left"], item["padding_right"]) == (3, 20)
    acquired = np.abs(stored(volume, "kspace")).max(axis=(0, 1)) > 0
    assert np.flatnonzero(acquired).tolist() == list(range(3, 20))


@pytest.mark.parametrize("num_coils", [1, 2, 5, 15])
@pytest.mark.parametrize(("shape", "recon_size", "padding"), SIZES[::2])
def test_raw_coils_come_last_and_make_the_target(tmp_path, num_coils, shape, recon_size, padding):
    volume = one(tmp_path, num_coils=num_coils, shape=shape, recon_size=recon_size, padding=padding)
    for i, item in enumerate(FastMRISlices([volume], raw=True)):
        kspace = stored(volume, "kspace")[i]
        assert item["kspace"].dtype == np.complex64 and item["kspace"].flags.c_contiguous
        np.testing.assert_array_equal(item["kspace"], np.moveaxis(kspace, 0, -1))
        assert item["target"].dtype == np.float32 and item["target"].shape == (*recon_size, 1)
        images = host.centre_crop(host.centred_ifft2(item["kspace"]), recon_size)
        near(host.root_sum_of_squares(images, axis=-1), item["target"][..., 0])
        near(
            host.root_sum_of_squares(images, axis=-1),
            np.linalg.norm(crop(to_image(kspace), recon_size), axis=0),
        )
        assert (item["padding_left"], item["padding_right"]) == volume.header[2:]


def test_raw_single_coil(tmp_path):
    volume = one(tmp_path)
    item = FastMRISlices([volume], raw=True)[2]
    np.testing.assert_array_equal(item["kspace"], stored(volume, "kspace")[2])
    np.testing.assert_array_equal(item["target"][..., 0], stored(volume, "reconstruction_esc")[2])
    assert item["slice"] == 2 and item["slice"].dtype == np.int32 and item["slice"].shape == ()


@pytest.mark.parametrize("num_coils", [None, 4])
def test_raw_test_sets_have_their_mask(tmp_path, num_coils):
    volume = one(tmp_path, num_coils=num_coils, test_set=True)
    item = FastMRISlices([volume], raw=True)[0]
    assert sorted(item) == ["kspace", "mask", "padding_left", "padding_right", "slice", "volume"]
    assert item["mask"].dtype == bool and item["mask"].shape == (24,)
    sampled = np.abs(item["kspace"]).reshape(32, 24, -1).max(axis=(0, 2)) > 0
    np.testing.assert_array_equal(sampled, item["mask"])


@pytest.mark.parametrize("dtype", ["<c16", ">c8"])
def test_other_complex_numbers_become_complex64(tmp_path, dtype):
    path = write_fastmri_file(tmp_path / "file1.h5")
    volume = index_fastmri(path).volumes[0]
    expected = FastMRISlices([volume], raw=True)[0]["kspace"]
    replace("kspace", stored(volume, "kspace").astype(dtype))(path)
    again = FastMRISlices(index_fastmri(path).volumes, raw=True)[0]["kspace"]
    assert again.dtype == np.complex64
    np.testing.assert_array_equal(again, expected)


def test_labels_say_where_a_slice_is_from(tmp_path):
    volumes = folder(tmp_path, {"num_slices": 2}, {"num_slices": 5}, {"num_slices": 1})
    source = FastMRISlices(volumes, crop=16)
    labels = [(int(item["volume"]), int(item["slice"])) for item in source]
    assert labels == [(0, 0), (0, 1), *((1, i) for i in range(5)), (2, 0)]
    for item in source:
        volume = source.volumes[item["volume"]]
        near(np.abs(item["signal"][..., 0]), stored(volume, "reconstruction_esc")[item["slice"]])
        assert item["maximum"] == np.float32(volume.maximum)
    with pytest.raises(IndexError, match=r"index=8.*0\.\.7"):
        source[8]


def test_training_batches(tmp_path):
    source = FastMRISlices(folder(tmp_path, *[{}] * 3), crop=16, max_open=1)
    iterator = data.training_iterator(source, 4, 0, num_threads=3)
    with iterator:
        for _ in range(9):
            batch = next(iterator)
            assert batch["signal"].shape == (4, 16, 16, 1) and batch["maximum"].shape == (4,)
            for i, number in enumerate(batch["index"]):
                np.testing.assert_array_equal(batch["signal"][i], source[number]["signal"])


# Choice of slices and volumes


@pytest.mark.parametrize(
    ("slices", "middle", "expected"),
    [
        (None, None, range(10)),
        ((0, 1), None, range(10)),
        ((0.25, 0.75), None, range(2, 7)),
        ((0.26, 0.76), None, range(3, 8)),
        ((0.5, 1), None, range(5, 10)),
        ((0.0, 0.04), None, range(0)),
        (None, 4, range(3, 7)),
        (None, 3, range(3, 6)),
        (None, 10, range(10)),
        (None, 30, range(10)),
    ],
)
def test_chosen_slices(slices, middle, expected):
    assert list(fastmri.chosen_slices(10, slices=slices, middle=middle)) == list(expected)


@pytest.mark.parametrize("num_slices", [1, 2, 7, 36])
@pytest.mark.parametrize("cut", [0.01, 0.3, 0.5, 0.77, 0.99])
def test_two_parts_of_a_volume_share_nothing_and_leave_nothing_out(num_slices, cut):
    parts = [fastmri.chosen_slices(num_slices, slices=part) for part in ((0, cut), (cut, 1))]
    assert [i for part in parts for i in part] == list(range(num_slices))


def test_sources_of_some_slices(tmp_path):
    volumes = folder(tmp_path, {"num_slices": 2}, {"num_slices": 5})
    for options, expected in [
        ({"middle": 3}, [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3)]),
        ({"slices": (0.5, 1)}, [(0, 1), (1, 2), (1, 3), (1, 4)]),
        ({"slices": (0, 0.2)}, [(1, 0)]),
    ]:
        source = FastMRISlices(volumes, **options)
        assert [(item["volume"], item["slice"]) for item in source] == expected


def test_select_volumes(tmp_path):
    volumes = folder(
        tmp_path,
        {},
        {"acquisition": "CORPDFS_FBK", "shape": (32, 25)},
        {"shape": (32, 25)},
        {"acquisition": "CORPDFS_FBK"},
    )
    for options, expected in [
        ({}, [0, 1, 2, 3]),
        ({"acquisition": "CORPDFS_FBK"}, [1, 3]),
        ({"matrix": (32, 24)}, [0, 3]),
        ({"num_volumes": 3}, [0, 1, 2]),
        ({"acquisition": "CORPDFS_FBK", "matrix": (32, 25), "num_volumes": 1}, [1]),
    ]:
        assert select_volumes(volumes, **options) == tuple(volumes[i] for i in expected)
    for options, message in [
        ({"acquisition": "AXT1"}, r"acquisition='AXT1'.*\['CORPDFS_FBK', 'CORPD_FBK'\]"),
        ({"matrix": (32, 26)}, r"matrix=\(32, 26\).*\(32, 24\).*\(32, 25\)"),
        ({"num_volumes": 5}, "num_volumes=5 .* 4 volumes"),
        ({"num_volumes": 0}, "num_volumes=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            select_volumes(volumes, **options)
    with pytest.raises(ValueError, match="volumes is empty"):
        select_volumes([])


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ({}, {"crop": 25}, r"crop=\(25, 25\).*file1\.h5 has \(32, 24\)"),
        ({}, {"crop": 0}, "crop=0"),
        ({}, {"crop": (16, 16, 1)}, r"crop=\(16, 16, 1\)"),
        ({}, {"crop": 16, "raw": True}, "crop=.* with raw=True"),
        ({}, {"slices": (0.5, 0.5)}, r"slices=\(0\.5, 0\.5\)"),
        ({}, {"slices": (-0.1, 0.5)}, "slices="),
        ({}, {"slices": (0.5, 1.1)}, "slices="),
        ({}, {"slices": (0, 0.1)}, "no slice"),
        ({}, {"middle": 0}, "middle=0"),
        ({}, {"middle": 1, "slices": (0, 1)}, "at most one"),
        ({}, {"max_open": 0}, "max_open=0"),
        ({"num_coils": 2}, {}, r"file1\.h5: has k-space of 2 coils"),
        ({"test_set": True}, {}, r"file1\.h5: has a mask"),
    ],
)
def test_bad_arguments(tmp_path, file, options, message):
    volume = one(tmp_path, **file)
    with pytest.raises(ValueError, match=message):
        FastMRISlices([volume], **options)


def test_no_volumes():
    with pytest.raises(ValueError, match="volumes is empty"):
        FastMRISlices([])


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        (
            {"shape": (32, 25)},
            {},
            r"file1\.h5: .*'kspace' is \(32, 25\), but \(32, 24\) in .*file0",
        ),
        ({"shape": (32, 25)}, {"raw": True}, r"file1\.h5: .*\(32, 25\), but \(32, 24\) in"),
        ({"num_coils": 2}, {"raw": True}, r"file1\.h5: .*\(2, 32, 24\), but \(32, 24\)"),
        ({"recon_size": (15, 16)}, {"raw": True}, r"target is \(15, 16\), but \(16, 16\)"),
        ({"test_set": True}, {"raw": True}, "'max' is absent, but there in"),
    ],
)
def test_volumes_whose_items_would_differ(tmp_path, other, options, message):
    with pytest.raises(ValueError, match=message):
        FastMRISlices(folder(tmp_path, {}, other), **options)


def test_volumes_of_different_grids_have_alike_crops(tmp_path):
    source = FastMRISlices(folder(tmp_path, {}, {"shape": (33, 25)}), crop=16)
    assert {item["signal"].shape for item in source} == {(16, 16, 1)}


# Open files, memory, threads and processes


def open_files(path):
    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not list open files under /proc")
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(link).startswith(str(path))
        except OSError:  # the listing's own
            pass
    return count


@pytest.mark.parametrize("max_open", [1, 2, 10])
def test_open_files_are_bounded_and_closed(tmp_path, max_open):
    source = FastMRISlices(folder(tmp_path, *[{}] * 4), max_open=max_open)
    assert open_files(tmp_path) == 0
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(source)), 3))
    counts = [(source[i], open_files(tmp_path))[1] for i in order]
    assert max(counts) == min(max_open, 4)
    source.close()
    assert open_files(tmp_path) == 0
    assert np.isfinite(source[0]["signal"]).all()
    del source
    gc.collect()
    assert open_files(tmp_path) == 0


def resident_bytes():
    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not tell a process's memory under /proc")
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_flat_over_epochs(tmp_path):
    source = FastMRISlices(
        folder(tmp_path, *[{"shape": (128, 96), "num_slices": 4}] * 6), crop=90, max_open=2
    )

    def epochs(count):
        for i in np.tile(np.arange(len(source)), count):
            source[i]

    epochs(4)
    tracemalloc.start()
    try:
        epochs(1)
        before, resident_before = tracemalloc.get_traced_memory()[0], resident_bytes()
        epochs(25)
        gc.collect()
        after, resident_after = tracemalloc.get_traced_memory()[0], resident_bytes()
    finally:
        tracemalloc.stop()
    # 25 epochs read 600 slices of 98 kB and open 150 files: kept, they would be 59 MB.
    assert after - before < 1e5
    assert resident_after - resident_before < 6e6


def test_threads_read_what_one_reads(tmp_path):
    source = FastMRISlices(folder(tmp_path, *[{}] * 5), max_open=2)
    expected = [item["signal"] for item in source]
    order = np.random.default_rng(0).integers(len(source), size=200)
    with ThreadPoolExecutor(4) as pool:
        for i, item in zip(order, pool.map(source.__getitem__, order), strict=True):
            np.testing.assert_array_equal(item["signal"], expected[i])


def test_a_pickled_source_reads_the_same(tmp_path):
    source = FastMRISlices(folder(tmp_path, *[{}] * 2), crop=16, max_open=1)
    expected = [item["signal"] for item in source]
    copied = pickle.loads(pickle.dumps(source))
    source.close()
    for i, item in enumerate(copied):
        np.testing.assert_array_equal(item["signal"], expected[i])
        assert open_files(tmp_path) == 1


PROCESSES = """
import multiprocessing, os, pathlib, sys, threading
import numpy as np
from jitter_jax.data.fastmri import FastMRISlices, index_fastmri

def opened():
    links = list(pathlib.Path("/proc/self/fd").iterdir())
    return sum(os.path.realpath(link).endswith(".h5") for link in links)

source = FastMRISlices(index_fastmri(sys.argv[1]).volumes, max_open=2)
expected = [item["signal"] for item in source]
def same():
    return all(np.array_equal(item["signal"], e) for item, e in zip(source, expected))

stop = threading.Event()
def read():
    while not stop.is_set():
        same() or os._exit(3)
threads = [threading.Thread(target=read) for _ in range(2)]
[thread.start() for thread in threads]
for _ in range(10):
    source[0]
    if (child := os.fork()) == 0:
        os._exit(0 if opened() == 0 and same() and 0 < opened() <= 2 else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), end=" ")
stop.set()
[thread.join() for thread in threads]
print(same(), end=" ")
with multiprocessing.get_context("spawn").Pool(1) as pool:
    items = pool.map(source.__getitem__, range(len(source)))
print(all(np.array_equal(item["signal"], e) for item, e in zip(items, expected)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_forked_and_spawned_processes_open_files_of_their_own(tmp_path):
    open_files(tmp_path)
    folder(tmp_path, *[{}] * 3)
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["0"] * 10 + ["True", "True"], done.stderr
