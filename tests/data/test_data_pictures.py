import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jitter_jax.data import pictures
from jitter_jax.data.pictures import Pictures
from jitter_jax.extras import MissingExtraError

try:
    from PIL import Image
except ImportError:
    Image = None

needs_pillow = pytest.mark.skipif(Image is None, reason="pillow, an extra, is not installed")
REAL = (
    Path(
        os.environ.get("JITTER_JAX_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
    )
    / "images"
)
SHAPE = (6, 7)


def values(largest=255, shape=SHAPE, seed=0):
    drawn = np.random.default_rng(seed).integers(0, largest + 1, shape)
    drawn[:1, :2] = [[0, largest]] if len(shape) == 2 else drawn[:1, :2]
    return drawn.astype(np.uint8 if largest < 256 else np.uint16)


def luma(colour):
    return colour[..., :3] @ np.array([0.299, 0.587, 0.114])


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def folder_of(path, **arrays):
    for name, array in arrays.items():
        saved(path / f"{name}.png", array)
    return path


def item(path, **options):
    source = Pictures(path, **options)
    assert len(source) == 1
    return source[0]["signal"]


@needs_pillow
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "pgm", "PNG"])
def test_8_bit_files_are_divided_by_255(tmp_path, suffix):
    array = values()
    signal = item(saved(tmp_path / f"one.{suffix}", array))
    assert signal.dtype == np.float32 and signal.shape == (*SHAPE, 1)
    np.testing.assert_array_equal(signal[..., 0], array.astype(np.float32) / np.float32(255))
    assert signal.min() == 0 and signal.max() == 1


@needs_pillow
def test_a_jpeg_is_read(tmp_path):
    array = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8) * 5
    signal = item(saved(tmp_path / "one.jpg", array, quality=95))
    assert np.abs(255 * signal[..., 0] - array).max() < 6  # lossy


@needs_pillow
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_files_are_divided_by_65535(tmp_path, suffix):
    array = values(65535)
    # Nothing is scaled by its content.
    for picture in (array, array // 1000):
        signal = item(saved(tmp_path / f"one.{suffix}", picture))
        np.testing.assert_array_equal(signal[..., 0], picture.astype(np.float32) / 65535)


@needs_pillow
@pytest.mark.parametrize(("bits", "black"), [(12, 0), (16, 0), (16, 65535)])
def test_tiff_files_that_pillow_reads_but_cannot_write(tmp_path, bits, black):
    largest = 2**bits - 1
    array = values(largest, (2, 4))
    if bits == 12:  # two values share three bytes
        digits = "".join(f"{value:012b}" for value in array.ravel().tolist())
        data = int(digits, 2).to_bytes(len(digits) // 8)
    else:
        data = array.astype("<u2").tobytes()
    tags = {
        256: 4,
        257: 2,
        258: bits,
        259: 1,
        262: int(black == 0),
        273: 8,
        277: 1,
        278: 2,
        279: len(data),
    }
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    path = tmp_path / "one.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    expected = np.abs(array.astype(np.float32) - black) / largest
    np.testing.assert_array_equal(item(path)[..., 0], expected)


@needs_pillow
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_becomes_luma_and_transparency_is_left_out(tmp_path, channels):
    array = values(shape=(*SHAPE, channels))
    signal = item(saved(tmp_path / "one.png", array))
    assert np.abs(255 * signal[..., 0] - luma(array)).max() < 0.51  # rounded to 8 bits


@needs_pillow
@pytest.mark.parametrize("transparency", [None, bytes(range(16))])
def test_a_palette_is_looked_up(tmp_path, transparency):
    indices, colours = values(15), values(shape=(16, 3))
    image = Image.frombytes("P", SHAPE[::-1], indices.tobytes())
    image.putpalette(colours.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "one.png", **options)
    signal = item(tmp_path / "one.png")
    assert np.abs(255 * signal[..., 0] - luma(colours[indices])).max() < 0.51


@needs_pillow
def test_grey_with_transparency_and_black_and_white(tmp_path):
    array = values()
    grey = Image.merge("LA", [Image.fromarray(array), Image.fromarray(array[::-1].copy())])
    grey.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(item(tmp_path / "grey.png")[..., 0], np.float32(array) / 255)
    bits = array > 100
    np.testing.assert_array_equal(item(saved(tmp_path / "two.png", bits))[..., 0], bits)


@needs_pillow
def test_a_folder_is_read_in_order_of_name_and_other_files_are_left_alone(tmp_path):
    arrays = {name: values(seed=i) for i, name in enumerate(("b", "c", "a"))}
    folder_of(tmp_path, **arrays)
    (tmp_path / "README.md").write_text("not a picture")
    source = Pictures(tmp_path)
    assert [path.name for path in source.paths] == ["a.png", "b.png", "c.png"]
    assert len(source) == 3 and source.skipped == ()
    for i, name in enumerate("abc"):
        assert list(source[i]) == ["signal"]
        np.testing.assert_array_equal(source[i]["signal"][..., 0], np.float32(arrays[name]) / 255)
    one = Pictures([tmp_path / "c.png", tmp_path])
    assert [path.name for path in one.paths] == ["c.png", "a.png", "b.png", "c.png"]
    for index in (3, -1):
        with pytest.raises(IndexError, match=f"index={index}"):
            source[index]


@needs_pillow
@pytest.mark.parametrize(("kept_pictures", "reads"), [(0, 3), (2, 1), (3, 0)])
def test_files_beyond_the_memory_kept_are_read_anew(tmp_path, monkeypatch, kept_pictures, reads):
    arrays = [values(seed=i) for i in range(3)]
    folder_of(tmp_path, **{f"p{i}": array for i, array in enumerate(arrays)})
    monkeypatch.setattr(pictures, "_KEPT_BYTES", kept_pictures * arrays[0].size)
    source = Pictures(tmp_path)
    decoded, found = pictures._decoded, []
    monkeypatch.setattr(pictures, "_decoded", lambda path: found.append(path) or decoded(path))
    with ThreadPoolExecutor(2) as pool:
        signals = list(pool.map(lambda i: source[i]["signal"], range(3)))
    for array, signal in zip(arrays, signals, strict=True):
        np.testing.assert_array_equal(signal[..., 0], np.float32(array) / 255)
    assert len(found) == reads


@needs_pillow
def test_a_file_that_changed_its_size_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_KEPT_BYTES", 0)
    source = Pictures(saved(tmp_path / "one.png", values()))
    saved(tmp_path / "one.png", values(shape=(3, 3)))
    with pytest.raises(ValueError, match=r"one\.png: the picture is \(3, 3\); it was \(6, 7\)"):
        source[0]


@needs_pillow
@pytest.mark.parametrize("crop", [(6, 7), (4, 3), (5, 4), (1, 1), [2, 6]])
def test_the_middle_is_cut_out(tmp_path, crop):
    array = values()
    top, left = (n // 2 - side // 2 for n, side in zip(SHAPE, crop, strict=True))
    expected = np.float32(array[top : top + crop[0], left : left + crop[1]]) / 255
    np.savez(tmp_path / "stack.npz", images=array[None])
    for path in (saved(tmp_path / "one.png", array), tmp_path / "stack.npz"):
        np.testing.assert_array_equal(item(path, crop=crop)[..., 0], expected)


@needs_pillow
def test_pictures_of_several_sizes_need_a_crop(tmp_path):
    folder_of(tmp_path, a=values(), b=values(shape=(7, 6)), c=values(shape=(4, 9)))
    with pytest.raises(ValueError, match=r"b\.png: .*\(7, 6\), but .*a\.png is \(6, 7\)"):
        Pictures(tmp_path)
    with pytest.raises(ValueError, match=r"crop=\(5, 5\) .*c\.png .*\(4, 9\)"):
        Pictures(tmp_path, crop=(5, 5), on_bad_file="skip")
    assert {s["signal"].shape for s in Pictures(tmp_path, crop=(4, 6))} == {(4, 6, 1)}


def truncated(path):
    saved(path, values(shape=(64, 64)))
    path.write_bytes(path.read_bytes()[:1500])


def two_pages(path):
    pages = [Image.fromarray(values(seed=i)) for i in range(2)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


BAD = {
    "truncated.png": (truncated, "cannot be read as a picture"),
    "truncated.bmp": (truncated, "cannot be read as a picture"),
    "truncated.tif": (truncated, "cannot be read as a picture"),
    "text.png": (lambda path: path.write_text("no picture"), "cannot identify"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "cannot identify"),
    "float.tif": (lambda path: saved(path, np.zeros(SHAPE, np.float32)), "no declared range"),
    "long.tif": (lambda path: saved(path, np.zeros(SHAPE, np.int32)), "no declared range"),
    "pages.tif": (two_pages, "2 pages"),
}


@needs_pillow
@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_or_skipped(tmp_path, name):
    write, message = BAD[name]
    saved(tmp_path / "good.png", values())
    write(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        Pictures(tmp_path)
    source = Pictures(tmp_path, on_bad_file="skip")
    assert [path.name for path in source.paths] == ["good.png"] and len(source) == 1
    ((path, said),) = source.skipped
    assert path.name == name and message in said
    with pytest.raises(ValueError, match=f"none of them a picture .*{name}"):
        Pictures(tmp_path / name, on_bad_file="skip")


@needs_pillow
def test_a_missing_file_and_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such file"):
        Pictures(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"has no image file; accepted: \.bmp"):
        Pictures(tmp_path)
    with pytest.raises(ValueError, match=r"paths=\[\] is not accepted: 0 files"):
        Pictures([])
    good = saved(tmp_path / "good.png", values())
    source = Pictures([tmp_path / "none.png", good], on_bad_file="skip")
    assert source.paths == (good,) and "no such file" in source.skipped[0][1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_stack_is_divided_by_the_full_scale_of_its_type(tmp_path, dtype):
    largest = np.iinfo(dtype).max
    stack = values(largest, (3, *SHAPE))
    np.savez(tmp_path / "stack.npz", images=stack, other=np.zeros(2))
    source = Pictures(tmp_path / "stack.npz")
    assert len(source) == 3 and set(source.paths) == {tmp_path / "stack.npz"}
    for i in range(3):
        signal = source[i]["signal"]
        assert signal.dtype == np.float32 and signal.shape == (*SHAPE, 1)
        np.testing.assert_array_equal(signal[..., 0], stack[i].astype(np.float32) / largest)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((2, 3, 4), np.uint8)}, "has no array 'images'"),
        ({"images": np.zeros((2, 3, 4), np.float32)}, "dtype float32; accepted: .*uint8"),
        ({"images": np.zeros((2, 3, 4), np.int16)}, "dtype int16"),
        ({"images": np.zeros((3, 4), np.uint8)}, r"shape \(3, 4\)"),
        ({"images": np.zeros((2, 3, 4, 3), np.uint8)}, r"shape \(2, 3, 4, 3\)"),
        ({"images": np.zeros((0, 3, 4), np.uint8)}, r"shape \(0, 3, 4\)"),
    ],
)
def test_a_stack_of_another_kind_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "stack.npz", **arrays)
    with pytest.raises(ValueError, match=rf"stack\.npz: .*{message}"):
        Pictures(tmp_path / "stack.npz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 5}, r"crop=5 is not accepted"),
        ({"crop": (5,)}, r"crop=\(5,\) is not accepted"),
        ({"crop": (0, 5)}, r"crop's entry=0"),
        ({"crop": (2.0, 5)}, r"crop's entry=2\.0"),
        ({"crop": (9, 5)}, r"crop=\(9, 5\) .*smaller"),
        ({"on_bad_file": "warn"}, "on_bad_file='warn'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, options, message):
    np.savez(tmp_path / "stack.npz", images=values()[None])
    with pytest.raises(ValueError, match=message):
        Pictures(tmp_path / "stack.npz", **options)


def test_without_pillow_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "one.png").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"by pillow, .*pip install 'jitter_jax\[images\]'"):
        Pictures(tmp_path, on_bad_file="skip")
    np.savez(tmp_path / "stack.npz", images=values()[None])
    assert len(Pictures(tmp_path / "stack.npz")) == 1


@pytest.mark.parametrize(
    ("name", "crop", "count", "shape"),
    [
        ("train400.npz", None, 400, (180, 180)),
        ("set11", None, 8, (256, 256)),
        ("set12", (256, 256), 12, (256, 256)),
        ("bsd68", (320, 320), 58, (320, 320)),
    ],
)
def test_published_sets(name, crop, count, shape):
    if not (REAL / name).exists():
        pytest.skip(f"no real data at {REAL / name}")
    if Image is None and not name.endswith(".npz"):
        pytest.skip("pillow, an extra, is not installed")
    source = Pictures(REAL / name, crop=crop)
    assert len(source) == count
    for i in range(0, count, 7):
        signal = source[i]["signal"]
        assert signal.shape == (*shape, 1)
        assert 0 <= signal.min() < 0.3 and 0.5 < signal.max() <= 1
    if crop is not None:
        with pytest.raises(ValueError, match="pictures of one size"):
            Pictures(REAL / name)
