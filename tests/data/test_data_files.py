import os
import pickle

import numpy as np
import pytest

from jitter_jax import data

SECTIONS = np.random.default_rng(0).normal(size=(3, 5, 4))


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def saved(tmp_path, **arrays):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "i2", "u1", "i8"])
@pytest.mark.parametrize("channel", [False, True])
def test_real_numbers_of_any_width_become_float32(tmp_path, dtype, channel):
    stored = (10 * np.abs(SECTIONS)).astype(dtype)
    path = saved(tmp_path, signal=stored[..., None] if channel else stored)
    source = data.FileSource(path)
    assert len(source) == 3
    for i in range(3):
        assert list(source[i]) == ["signal"]
        assert source[i]["signal"].dtype == np.float32
        np.testing.assert_array_equal(source[i]["signal"], stored[i, ..., None].astype("f4"))


def test_one_section_is_one_example(tmp_path):
    source = data.FileSource(saved(tmp_path, measurement=SECTIONS[0]), shape=(5, 4))
    assert len(source) == 1
    assert source[0]["measurement"].shape == (5, 4, 1)


def test_signal_and_measurement_under_names_of_ones_own(tmp_path):
    path = saved(tmp_path, r=SECTIONS, d=2 * SECTIONS, unused=np.ones(1))
    source = data.FileSource(path, signal_key="r", measurement_key="d")
    item = source[2]
    assert sorted(item) == ["measurement", "signal"]
    np.testing.assert_array_equal(item["measurement"], 2 * item["signal"])


@pytest.mark.parametrize("holds", ["signal", "measurement"])
def test_npy(tmp_path, holds):
    path = tmp_path / "own.npy"
    np.save(path, SECTIONS)
    assert list(data.FileSource(path, npy_holds=holds)[1]) == [holds]
    np.testing.assert_array_equal(data.load_arrays(path)["arr_0"], SECTIONS)


def test_load_arrays_reads_what_is_asked_as_stored(tmp_path):
    path = saved(tmp_path, a=np.arange(3, dtype="i2"), b=np.ones(2) * 1j, c=np.array(["x"]))
    assert sorted(data.load_arrays(path)) == ["a", "b", "c"]
    (array,) = data.load_arrays(path, keys=["a"]).values()
    assert array.dtype == np.int16


def test_items_cannot_be_changed_by_accident(tmp_path):
    item = data.FileSource(saved(tmp_path, signal=SECTIONS))[0]
    with pytest.raises(ValueError, match="read-only"):
        item["signal"][:] = 0


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"signal": SECTIONS * 1j}, {}, "'signal' has dtype complex128"),
        ({"signal": SECTIONS > 0}, {}, "dtype bool"),
        ({"signal": np.full((1, 2, 3), "a")}, {}, "dtype <U1"),
        ({"signal": np.zeros((0, 5, 4))}, {}, "at least one example"),
        ({"signal": np.zeros((2, 0, 4))}, {}, "at least one example"),
        ({"signal": np.zeros(5)}, {}, r"shape \(5,\)"),
        ({"signal": np.zeros((2, 5, 4, 2))}, {}, r"shape \(2, 5, 4, 2\)"),
        ({"signal": np.zeros((2, 5, 1))}, {}, "need four axes"),
        ({"signal": np.zeros((2, 5, 4, 1, 1))}, {}, "shape"),
        ({"signal": SECTIONS}, {"shape": (4, 5)}, r"are \(5, 4\); accepted: shape=\(4, 5\)"),
        ({"signal": SECTIONS, "measurement": SECTIONS[:2]}, {}, "'signal': 3, 'measurement': 2"),
        ({"truth": SECTIONS}, {}, r"neither 'signal' nor 'measurement'; it holds \['truth'\]"),
        ({"signal": SECTIONS}, {"measurement_key": "d"}, r"no array 'd'; it holds \['signal'\]"),
        ({"signal": SECTIONS}, {"npy_holds": "truth"}, "npy_holds='truth'"),
        ({"signal": np.full((1, 2, 3), 1e39)}, {}, r"6 of 6 values.*first 1e\+39"),
    ],
)
def test_bad_arrays(tmp_path, arrays, options, message):
    with pytest.raises(ValueError, match=message):
        data.FileSource(saved(tmp_path, **arrays), **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_and_located(tmp_path, value):
    array = SECTIONS.copy()
    array[1, 2, 3] = array[2, 4, 0] = value
    with pytest.raises(ValueError, match=r"2 of 60 values.*index \(1, 2, 3\)"):
        data.FileSource(saved(tmp_path, signal=array))


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz: no such file"):
        data.load_arrays(tmp_path / "absent.npz")


def test_a_missing_key_is_named_with_those_present(tmp_path):
    with pytest.raises(ValueError, match=r"own\.npz: has no array 'b'; it holds \['a'\]"):
        data.load_arrays(saved(tmp_path, a=np.ones(1)), keys=["a", "b"])


def damaged(kind, tmp_path):
    path = saved(tmp_path, signal=SECTIONS)
    whole = path.read_bytes()
    if kind == "flipped":
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + b"\xff" * 8 + whole[middle + 8 :])
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "npy":
        np.save(tmp_path / "own.npy", SECTIONS)
        path = tmp_path / "own.npy"
        path.write_bytes(path.read_bytes()[:-9])
    else:
        content = {"empty": b"", "half": whole[: len(whole) // 2], "text": b"time,traces\n1,2\n"}
        path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize("kind", ["empty", "half", "flipped", "text", "npy", "folder"])
def test_damaged_files(tmp_path, kind):
    with pytest.raises(ValueError, match=r"own\.np[yz]: cannot be read .*accepted: a whole"):
        data.FileSource(damaged(kind, tmp_path))


@pytest.mark.parametrize("kind", ["pickle", "npy", "npz"])
def test_pickles_are_never_loaded(tmp_path, kind):
    trapped = tmp_path / "trapped"
    path = tmp_path / "own.npz"
    objects = np.array([Trap(trapped)], dtype=object)
    with path.open("wb") as stream:
        if kind == "pickle":
            pickle.dump(Trap(trapped), stream)
        elif kind == "npy":
            np.save(stream, objects)
        else:
            np.savez(stream, signal=objects)
    with pytest.raises(ValueError, match=r"own\.npz: cannot be read .*pickles"):
        data.FileSource(path)
    assert not trapped.exists()
    # The trap does spring where pickles are loaded.
    content = np.load(path, allow_pickle=True)
    if kind == "npz":
        with content:
            _ = content["signal"]
    assert trapped.exists()
