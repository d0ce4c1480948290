"""Greyscale pictures from image files, or from a stack of them in an `.npz` archive.

A file of b bits a pixel declares the range of its values, 0 to 2^b - 1; divided by its upper end,
every picture is in `[0, 1]` by what it is, and nothing has to be clipped or scaled by its content.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jitter_jax.data._checks import checked_count, checked_index
from jitter_jax.data.files import load_arrays
from jitter_jax.data.kspace import crop_or_pad
from jitter_jax.data.pipeline import Example
from jitter_jax.extras import MissingExtraError

# Keys of a stack, and names of files that are looked for in a folder.
_IMAGES = "images"
_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff")
# Decoded pictures that are kept, as stored: 8000 of 180 x 180 pixels at one byte each.
_KEPT_BYTES = 2**28
# Pillow's names of what it turns into 8-bit luma, and of 16-bit grey.
_EIGHT_BITS = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L")
# Tags of a TIFF file; photometric 0 is black on white, which pillow turns at 8 bits only.
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262


class Pictures:
    """Greyscale pictures of one size.

    Colour is reduced to luma, `Y = 0.299 R + 0.587 G + 0.114 B` of ITU-R BT.601, rounded to 8 bits:
    pillow's `convert("L")`. Palettes are looked up first. Transparency and a rotation noted in a
    file's metadata are left out. 16-bit colour is read as 8-bit colour.

    Every file is decoded once when the source is made, so that a broken one is found then and not
    hours into a run. Pictures are kept as stored, at one or two bytes a pixel, until 256 MiB are
    full; the others are decoded anew whenever they are read. Nothing is evicted: an epoch visits
    every picture once, so a newer one is no likelier to be asked for than an older one.

    Args:
        paths: a folder, whose image files (bmp, jpeg, jpg, pgm, png, tif, tiff, also in capitals)
            are taken in order of name; an image file; a sequence of files and folders; or an
            `.npz` file with `images`, `(pictures, height, width)` uint8 or uint16, which is held
            in memory whole. Files other than `.npz` need pillow.
        crop: `(height, width)` cut out of the middle, pixel `n // 2` to pixel `size // 2`; `None`
            takes pictures whole, which must then be of one size.
        on_bad_file: `"error"` raises at the first file that cannot be decoded; `"skip"` leaves it
            out and lists it. A picture of the wrong size always raises.

    Attributes:
        paths: of each picture; the archive's own for all of its pictures.
        skipped: `(path, message)` of each bad file; empty with `on_bad_file="error"`.

    Items:
        `signal`: `(height, width, 1)` float32 in `[0, 1]`, v / (2^b - 1) of a stored value v.

    Raises:
        FileNotFoundError: a path does not exist (with `"skip"` it is listed as bad).
        MissingExtraError: pillow is not installed.
        ValueError: a file is broken, not an image, or without a declared range (32-bit integers,
            floating-point numbers), or has several pages; a folder has no image file; no good file
            is left; the pictures differ in size or are smaller than `crop`; or an argument is
            outside its range.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        crop: tuple[int, int] | None = None,
        on_bad_file: Literal["error", "skip"] = "error",
    ):
        if on_bad_file not in ("error", "skip"):
            raise ValueError(
                f"on_bad_file={on_bad_file!r} is not accepted: 'error' or 'skip' is expected"
            )
        self._crop = None if crop is None else _checked_crop(crop)
        self.skipped: tuple[tuple[Path, str], ...] = ()
        self._kept: list[tuple[np.ndarray, int] | None]
        if isinstance(paths, (str, Path)) and Path(paths).suffix.lower() == ".npz":
            self._take_stack(Path(paths))
        else:
            self._take_files(paths, on_bad_file)

    def _take_stack(self, path: Path) -> None:
        stack = load_arrays(path, keys=(_IMAGES,))[_IMAGES]
        if stack.dtype not in (np.uint8, np.uint16) or stack.ndim != 3 or stack.size == 0:
            raise ValueError(
                f"{path}: {_IMAGES!r} has shape {stack.shape} and dtype {stack.dtype}; accepted: "
                "(pictures, height, width), not empty, uint8 or uint16"
            )
        largest = np.iinfo(stack.dtype).max
        self._kept = [(_cut(path, picture, self._crop), largest) for picture in stack]
        self.paths = (path,) * len(stack)

    def _take_files(self, paths: str | Path | Sequence[str | Path], on_bad_file: str) -> None:
        kept: list[tuple[np.ndarray, int] | None] = []
        good: list[Path] = []
        skipped: list[tuple[Path, str]] = []
        room = _KEPT_BYTES
        shape = None
        files = list(_files_of(paths))
        for path in files:
            try:
                picture, largest = _decoded(path)
            except (FileNotFoundError, ValueError) as error:
                if on_bad_file == "error":
                    raise
                skipped.append((path, str(error)))
                continue
            # A copy, or a small cut would keep the whole picture alive.
            picture = _cut(path, picture, self._crop).copy()
            shape = shape or picture.shape
            if picture.shape != shape:
                raise ValueError(
                    f"{path}: the picture is {picture.shape}, but {good[0]} is {shape}; accepted: "
                    "pictures of one size, or a `crop` that cuts them to one"
                )
            room -= picture.nbytes
            kept.append((picture, largest) if room >= 0 else None)
            good.append(path)
        if not good:
            first = f", the first: {skipped[0][1]}" if skipped else ""
            raise ValueError(
                f"paths={paths} is not accepted: {len(files)} files, none of them a picture that "
                f"can be read{first}; at least one is expected"
            )
        self._kept, self._shape = kept, shape
        self.paths, self.skipped = tuple(good), tuple(skipped)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, len(self))
        picture, largest = self._kept[number] or self._read_again(self.paths[number])
        return {"signal": picture[..., None].astype(np.float32) / np.float32(largest)}

    def _read_again(self, path: Path) -> tuple[np.ndarray, int]:
        picture, largest = _decoded(path)
        picture = _cut(path, picture, self._crop)
        if picture.shape != self._shape:
            raise ValueError(f"{path}: the picture is {picture.shape}; it was {self._shape} before")
        return picture, largest


def _checked_crop(crop: Any) -> tuple[int, int]:
    if not isinstance(crop, Sequence) or isinstance(crop, str) or len(crop) != 2:
        raise ValueError(f"crop={crop!r} is not accepted: (height, width) or None is expected")
    height, width = (checked_count("crop's entry", side) for side in crop)
    return height, width


def _files_of(paths: str | Path | Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, [paths] if isinstance(paths, (str, Path)) else paths):
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
            # A folder without any is itself the bad file.
            yield from found or [path]
        else:
            yield path


def _cut(path: Path, picture: np.ndarray, crop: tuple[int, int] | None) -> np.ndarray:
    if crop is None:
        return picture
    if picture.shape[0] < crop[0] or picture.shape[1] < crop[1]:
        raise ValueError(
            f"crop={crop} is not accepted: {path} has a picture of {picture.shape}, which is "
            "smaller; at most its height and width are expected"
        )
    return crop_or_pad(picture, crop)


def _decoded(path: Path) -> tuple[np.ndarray, int]:
    """Return the picture as stored, `(height, width)`, and the largest value it could have."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("image files are read", "pillow", "images") from error
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; an image file is expected")
    if path.is_dir():
        raise ValueError(f"{path}: has no image file; accepted: {', '.join(_SUFFIXES)}")
    try:
        with Image.open(path) as image:
            image.load()
            return _grey(image)
    # Pillow's readers raise whatever the damage leads them to, not errors of one kind.
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as a picture ({error}); accepted: a whole image file of one "
            "page, 1 to 16 bits"
        ) from error


def _grey(image: Any) -> tuple[np.ndarray, int]:
    # A multi-picture JPEG of a camera is one picture and previews of it.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ValueError(f"it has {image.n_frames} pages")
    if image.mode in _EIGHT_BITS:
        # Pillow warns where it drops this.
        image.info.pop("transparency", None)
        return np.array(image.convert("L")), 2**8 - 1
    if image.mode in _SIXTEEN_BITS:
        tags = image.tag_v2 if image.format == "TIFF" else {}
        largest = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
        picture = np.array(image).astype(np.uint16)
        return (picture if tags.get(_PHOTOMETRIC, 1) else largest - picture), largest
    # Pillow brings the values of a 16-bit PGM to 0 .. 65535, but names the mode of 32-bit integers.
    if image.mode == "I" and image.format == "PPM":
        return np.array(image).astype(np.uint16), 2**16 - 1
    raise ValueError(f"its values, of pillow's mode {image.mode!r}, have no declared range")
