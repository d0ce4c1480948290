import os
import sys
from pathlib import Path

import numpy as np
import pytest
from fastmri_files import smooth, to_image, to_kspace

from jitter_jax.data.slices import (
    ComplexSlices,
    NiftiSlices,
    fourier_resize,
    refuse_shared_subjects,
)

REAL = (
    Path(
        os.environ.get("JITTER_JAX_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
    )
    / "mri"
)
ROUNDING = 1e-6  # of float32 transforms, relative to the largest value
VIEWS = ["axial", "axial", "coronal", "sagittal"]


def real(name):
    if not (REAL / name).exists():
        pytest.skip(f"no real data at {REAL / name}")
    return REAL / name


def images(seed=0, num=4, shape=(12, 10)):
    return smooth(np.random.default_rng(seed), (num, *shape), width=2).astype(np.complex64)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def subject(tmp_path, number, **changes):
    arrays = {
        "image": images(number),
        "subject": np.int16(number),
        "view": np.array(VIEWS),
        "slice_id": np.arange(4, dtype="i2") + 10 * number,
        "scale": np.ones(4),
        **changes,
    }
    path = tmp_path / f"s{number}.npz"
    return saved(path, **{name: array for name, array in arrays.items() if array is not None})


def near(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=ROUNDING * np.abs(expected).max())


# Resizing


@pytest.mark.parametrize("side", [8, 9, 16, 17])
@pytest.mark.parametrize("size", [3, 4, 7, 8])
def test_waves_that_fit_keep_their_magnitude_and_phase(side, size):
    """A plane wave with few enough periods is the same wave on the coarse grid."""
    places = [(np.arange(n) - n // 2) / n for n in (side, size)]
    for down in range(-((size - 1) // 2), (size - 1) // 2 + 1):
        fine, coarse = (
            2 * np.exp(2j * np.pi * (down * x[:, None] - x[None, :])).astype(np.complex64)
            for x in places
        )
        near(fourier_resize(fine, size), coarse)


@pytest.mark.parametrize("shape", [(9, 9), (8, 6), (6, 9), (7, 10)])
@pytest.mark.parametrize("size", [5, 6])
def test_resizing_is_the_middle_of_k_space(shape, size):
    image = images(shape=shape)
    side = max(shape)
    square = np.zeros((4, side, side), complex)
    top, left = (side // 2 - n // 2 for n in shape)
    square[:, top : top + shape[0], left : left + shape[1]] = image
    start = side // 2 - size // 2
    middle = to_kspace(square)[:, start : start + size, start : start + size]
    resized = fourier_resize(image, size)
    assert resized.dtype == np.complex64
    near(resized, to_image(middle) * size / side)
    near(fourier_resize(image[0], size), resized[0])


@pytest.mark.parametrize("shape", [(6, 6), (6, 9), (10, 7)])
def test_the_full_size_only_pads(shape):
    image = images(shape=shape)
    padded = fourier_resize(image, max(shape))
    assert padded.shape == (4, max(shape), max(shape))
    assert np.count_nonzero(padded) == np.count_nonzero(image)
    assert padded[0, max(shape) // 2, max(shape) // 2] == image[0, shape[0] // 2, shape[1] // 2]


@pytest.mark.parametrize("size", [11, 0, -1, 2.0])
def test_a_size_that_cannot_be(size):
    with pytest.raises(ValueError, match=f"size={size}"):
        fourier_resize(images(shape=(10, 9)), size)


# Complex slices


def test_slices_are_as_stored_and_know_where_they_are_from(tmp_path):
    source = ComplexSlices([subject(tmp_path, i) for i in (1, 2)])
    assert len(source) == 8
    for i in range(8):
        assert list(source[i]) == ["signal"]
        signal = source[i]["signal"]
        assert signal.dtype == np.complex64
        np.testing.assert_array_equal(signal[..., 0], images(1 + i // 4)[i % 4])
    assert source.subjects == (1, 1, 1, 1, 2, 2, 2, 2)
    assert source.views == (*VIEWS, *VIEWS)
    assert source.slice_ids == (10, 11, 12, 13, 20, 21, 22, 23)
    with pytest.raises(IndexError, match=r"index=8.*0\.\.7"):
        source[8]


@pytest.mark.parametrize(
    ("options", "slice_ids"),
    [
        ({"view": "axial"}, (10, 11, 20, 21, 30, 31)),
        ({"view": "sagittal", "subjects": (3, 1)}, (13, 33)),
        ({"subjects": [2]}, (20, 21, 22, 23)),
        ({"subjects": range(1, 3), "view": "coronal", "size": 6}, (12, 22)),
    ],
)
def test_some_slices(tmp_path, options, slice_ids):
    source = ComplexSlices([subject(tmp_path, i) for i in (1, 2, 3)], **options)
    assert source.slice_ids == slice_ids and len(source) == len(slice_ids)
    for i, name in enumerate(slice_ids):
        expected = images(name // 10)[name % 10]
        if "size" in options:
            expected = fourier_resize(expected, 6)
        np.testing.assert_array_equal(source[i]["signal"][..., 0], expected)


def test_a_file_of_images_alone(tmp_path):
    source = ComplexSlices(saved(tmp_path / "knee.npz", image=images()))
    assert source.subjects == source.views == source.slice_ids == (None,) * 4


@pytest.mark.parametrize("dtype", ["c16", ">c8", "f8", "u1"])
def test_numbers_of_any_kind_become_complex64(tmp_path, dtype):
    stored = (100 * images()).astype(dtype if "c" in dtype else complex)
    stored = stored if "c" in dtype else np.abs(stored).astype(dtype)
    signal = ComplexSlices(saved(tmp_path / "own.npz", image=stored))[1]["signal"]
    assert signal.dtype == np.complex64
    np.testing.assert_array_equal(signal[..., 0], stored[1].astype(np.complex64))


def test_slices_of_different_shapes_become_alike_by_a_size(tmp_path):
    paths = [subject(tmp_path, 1), subject(tmp_path, 2, image=images(shape=(9, 12)))]
    with pytest.raises(ValueError, match=r"s2\.npz: slices of \[\(9, 12\), \(12, 10\)\]"):
        ComplexSlices(paths)
    assert {item["signal"].shape for item in ComplexSlices(paths, size=8)} == {(8, 8, 1)}


def test_items_cannot_be_changed_by_accident(tmp_path):
    with pytest.raises(ValueError, match="read-only"):
        ComplexSlices(subject(tmp_path, 1))[0]["signal"][:] = 0


NOT_FINITE = images()
NOT_FINITE[1, 2, 3] = complex(0, np.nan)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"image": None}, {}, "no array 'image'; it holds"),
        ({"image": images()[0]}, {}, r"'image' has shape \(12, 10\)"),
        ({"image": images()[:0]}, {}, r"'image' has shape \(0, 12, 10\)"),
        ({"image": images().real > 0}, {}, "'image' has dtype bool"),
        ({"image": NOT_FINITE}, {}, r"'image' has 1 of 480 values .* \(1, 2, 3\)"),
        ({"image": images().astype(complex) + 1e39}, {}, "'image' has 480 of 480 values"),
        ({"view": np.array(VIEWS[:3])}, {}, r"'view' has shape \(3,\).*each of 4"),
        ({}, {"view": "oblique"}, r"view \['oblique'\].*\['axial', 'coronal', 'sagittal'\]"),
        ({}, {"subjects": (1, 7)}, r"subject \[7\].*the files have \[1\]"),
        ({"view": None}, {"view": "axial"}, r"view \['axial'\].*\[None\]"),
        ({}, {"subjects": ()}, "no slice has all of it"),
        ({}, {"size": 13}, r"s1\.npz: size=13.*\(12, 10\)"),
    ],
)
def test_bad_files_and_arguments(tmp_path, changes, options, message):
    with pytest.raises(ValueError, match=message):
        ComplexSlices(subject(tmp_path, 1, **changes), **options)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz: no such file"):
        ComplexSlices(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match=r"paths=\[\]"):
        ComplexSlices([])
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(ValueError, match=r"text\.npz: cannot be read"):
        ComplexSlices(tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        ({"train": [1, 2], "test": [3]}, None),
        ({"train": [1, 1, 2], "validation": ["1"], "test": []}, None),
        ({"train": [1, 2, 3], "test": [3, 2, 4]}, r"subjects \[2, 3\] are in the train .* test"),
        ({"train": [1], "validation": [2], "test": [2]}, r"\[2\] are in the validation .* test"),
        ({"train": ["a"], "test": [None]}, "the test set has slices of a subject that is not"),
    ],
)
def test_subjects_are_in_one_set_only(subjects, message):
    if message is None:
        refuse_shared_subjects(subjects)
        return
    with pytest.raises(ValueError, match=message):
        refuse_shared_subjects(subjects)


def test_real_brains():
    paths = [real(f"brain_complex_s{i}.npz") for i in range(1, 7)]
    train = ComplexSlices(paths, view="axial", subjects=range(1, 6), size=128)
    test = ComplexSlices(paths[5], view="coronal", size=128)
    assert (len(train), len(test)) == (25, 5)
    refuse_shared_subjects({"train": train.subjects, "test": test.subjects})
    with pytest.raises(ValueError, match=r"\[6\] are in the train"):
        refuse_shared_subjects({"train": range(1, 7), "test": test.subjects})
    for source in (train, test):
        for item in source:
            assert item["signal"].shape == (128, 128, 1)
            # The stored slices peak at 1, some of them in a bright vessel of one pixel.
            assert 0.65 < np.abs(item["signal"]).max() < 1.1
    full = ComplexSlices(paths[0])
    assert full[0]["signal"].shape == (256, 256, 1)
    assert np.abs(full[0]["signal"]).max() == pytest.approx(1)
    # The middle quarter of k-space has nearly all of the energy.
    kept = [
        np.linalg.norm(fourier_resize(item["signal"][..., 0], 128))
        * 2
        / np.linalg.norm(item["signal"])
        for item in full
    ]
    assert 0.98 < min(kept) and max(kept) <= 1


def test_real_knee():
    source = ComplexSlices(real("knee_complex.npz"), size=256)
    assert len(source) == 1 and source.views == (None,)
    assert source[0]["signal"].shape == (256, 256, 1)
    # 288 x 236 in the middle of 288 x 288: the sides are empty but for ringing.
    sides = np.abs(source[0]["signal"][:, [*range(20), *range(236, 256)]])
    assert sides.max() < 0.01 * np.abs(source[0]["signal"]).max()


# NIfTI


VOLUME = np.abs(images(7, 5, (6, 8))).astype(np.float32)  # (5, 6, 8)


def nifti(path, volume=VOLUME, **options):
    nibabel = pytest.importorskip("nibabel", reason="nibabel, an extra, is not installed")
    image = nibabel.Nifti1Image(volume, np.eye(4))
    for name, value in options.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["head.nii", "head.nii.gz"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_along_an_axis_with_zero_phase(tmp_path, name, axis):
    source = NiftiSlices(nifti(tmp_path / name), axis=axis)
    assert len(source) == VOLUME.shape[axis]
    for i, item in enumerate(source):
        assert list(item) == ["signal", "volume", "maximum"]
        assert item["volume"] == 0 and item["maximum"] == np.abs(VOLUME).max()
        assert item["signal"].dtype == np.complex64
        np.testing.assert_array_equal(item["signal"][..., 0], np.take(VOLUME, i, axis))


def test_whole_numbers_are_read_in_the_files_unit(tmp_path):
    pytest.importorskip("nibabel", reason="nibabel, an extra, is not installed")
    import nibabel

    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, 1)
    nibabel.save(image, tmp_path / "head.nii")
    signal = NiftiSlices(tmp_path / "head.nii", axis=0)[1]["signal"]
    near(signal[..., 0], (stored[1] / 2 + 1).astype(np.complex64))


def test_some_and_smaller_slices_of_a_volume(tmp_path):
    path = nifti(tmp_path / "head.nii")
    source = NiftiSlices(path, axis=0, middle=3, size=6)
    assert len(source) == 3
    for i, item in enumerate(source):
        assert item["signal"].shape == (6, 6, 1) and not item["signal"].imag.any()
        near(item["signal"].real[..., 0], fourier_resize(VOLUME[1 + i], 6).real)
    halves = [NiftiSlices(path, axis=0, slices=part) for part in ((0, 0.5), (0.5, 1))]
    assert [len(half) for half in halves] == [2, 3]


def damaged(tmp_path, kind):
    path = nifti(tmp_path / ("head.nii.gz" if kind == "torn" else "head.nii"))
    whole = path.read_bytes()
    if kind == "torn":
        path.write_bytes(whole[:-20])
    else:
        path.write_bytes({"empty": b"", "text": b"not an image", "short": whole[:-9]}[kind])
    return path


@pytest.mark.parametrize("kind", ["torn", "empty", "text", "short"])
def test_damaged_volumes(tmp_path, kind):
    with pytest.raises(ValueError, match=r"head\.nii.*cannot be read as a NIfTI file"):
        NiftiSlices(damaged(tmp_path, kind))


@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (VOLUME, {"axis": 3}, "axis=3"),
        (VOLUME, {"middle": 0}, "middle=0"),
        (VOLUME, {"slices": (0, 0.01)}, "no slice of 8"),
        (VOLUME, {"size": 7}, r"head\.nii: size=7"),
        (VOLUME[..., None], {}, r"head\.nii: the volume has shape \(5, 6, 8, 1\)"),
        (np.full_like(VOLUME, np.nan), {}, r"head\.nii: 'volume' has 240 of 240 values"),
    ],
)
def test_bad_volumes(tmp_path, volume, options, message):
    with pytest.raises(ValueError, match=message):
        NiftiSlices(nifti(tmp_path / "head.nii", volume), **options)


def test_no_volume(tmp_path):
    pytest.importorskip("nibabel", reason="nibabel, an extra, is not installed")
    with pytest.raises(FileNotFoundError, match=r"absent\.nii: no such file"):
        NiftiSlices(tmp_path / "absent.nii")


def test_without_nibabel_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImportError, match=r"pip install 'jitter_jax\[nifti\]'"):
        NiftiSlices(tmp_path / "head.nii")
