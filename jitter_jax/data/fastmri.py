"""The HDF5 files of fastMRI: one volume a file, k-space beside the image made of it.

A file holds `kspace`, complex, `(slices, rows, columns)` of a single coil or `(slices, coils, rows,
columns)`, centred along rows and columns; the image made of it, `reconstruction_esc` (single coil)
or `reconstruction_rss`, `(slices, height, width)`; in test sets `mask`, `(columns,)`, instead of
an image; `ismrmrd_header`, XML; and the attributes `max` and `norm` (of the image's volume),
`acquisition` and `patient_id`. Rows are read out, columns are phase encodes.

`index_fastmri` looks into every file once, before anything long begins, and `FastMRISlices` reads
slice by slice.

Source: Zbontar et al., "fastMRI: An Open Dataset and Benchmarks for Accelerated MRI" (2018), and
the reading of the files in its public code.
"""

import functools
import math
import os
import threading
import weakref
import xml.etree.ElementTree as ElementTree
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jitter_jax.data._checks import checked_count, checked_index
from jitter_jax.data.coils import espirit_maps, load_maps, recorded_example, save_maps
from jitter_jax.data.kspace import centre_crop, centred_fft2, centred_ifft2, check_crop
from jitter_jax.data.pipeline import Example

_SINGLE_COIL_TARGET, _MULTI_COIL_TARGET = "reconstruction_esc", "reconstruction_rss"
_WHOLE = "accepted: a whole fastMRI file"
# The first maps that a source estimates, which takes seconds for each, stay in memory: of 320 x 320
# pixels and 15 coils they are 12 MB each, 1.6 GB in all.
_KEPT_MAPS = 128


class FastMRIHeader(NamedTuple):
    """What a file's ISMRMRD header says of its first encoding.

    Attributes:
        encoded_matrix: `(x, y, z)` points of k-space: rows, columns and partitions.
        recon_matrix: `(x, y, z)` pixels of the image that the scanner made.
        padding_left: first acquired column: `y // 2 - c` with y of `encoded_matrix` and the
            header's `kspace_encoding_step_1` centre c.
        padding_right: the column after the last acquired one: `padding_left` + maximum + 1.
    """

    encoded_matrix: tuple[int, int, int]
    recon_matrix: tuple[int, int, int]
    padding_left: int
    padding_right: int


class FastMRIVolume(NamedTuple):
    """What is known of a file without its slices.

    Attributes:
        path: the file.
        kspace_shape: `(slices, rows, columns)` or `(slices, coils, rows, columns)`.
        target_shape: `(height, width)` of the target, `reconstruction_esc` of a single coil and
            `reconstruction_rss` of many; `None` in test sets.
        has_mask: whether k-space is undersampled, as in test sets.
        header: from `ismrmrd_header`.
        maximum: attribute `max`, the target volume's largest value; `None` if absent.
        norm: attribute `norm`, the target volume's l2 norm; `None` if absent.
        acquisition: attribute `acquisition`, such as `"CORPD_FBK"`; `None` if absent.
        patient_id: attribute `patient_id`; `None` if absent.
    """

    path: Path
    kspace_shape: tuple[int, ...]
    target_shape: tuple[int, int] | None
    has_mask: bool
    header: FastMRIHeader
    maximum: float | None
    norm: float | None
    acquisition: str | None
    patient_id: str | None

    @property
    def num_slices(self) -> int:
        """Slices in the file."""
        return self.kspace_shape[0]

    @property
    def num_coils(self) -> int:
        """Coils, 0 for single-coil k-space, which has no axis of coils."""
        return self.kspace_shape[1] if len(self.kspace_shape) == 4 else 0


class FastMRIIndex(NamedTuple):
    """The files that can be read, and those that cannot.

    Attributes:
        volumes: one of each good file, in order of path where a folder was given.
        skipped: `(path, message)` of each bad file; empty with `on_bad_file="error"`.
    """

    volumes: tuple[FastMRIVolume, ...]
    skipped: tuple[tuple[Path, str], ...]


def index_fastmri(
    paths: str | Path | Sequence[str | Path],
    *,
    on_bad_file: Literal["error", "skip"] = "error",
    read_all: bool = False,
) -> FastMRIIndex:
    """Look into every file, so that a bad one is found now and not hours into a run.

    Each file is opened; its keys, shapes, types, header and attributes are checked; and the last
    slice of each dataset (of its last coil) is read, because downloads break off at their end.
    What is wrong in the middle of a file is found only by `read_all`, or else when `FastMRISlices`
    comes to it, which raises whatever `on_bad_file` was: the length of a source cannot change.

    Args:
        paths: a folder, whose `*.h5` files are taken in order of name, a file, or a sequence of
            files and folders.
        on_bad_file: `"error"` raises at the first bad file; `"skip"` leaves it out and lists it.
        read_all: read every slice as well. That takes as long as reading all files takes.

    Raises:
        FileNotFoundError: a path does not exist (with `"skip"` it is listed as bad).
        ValueError: a file is not as described at the top of this module: truncated, not HDF5,
            without a key, of another type or shape, with numbers that are NaN or infinite; a
            folder has no `*.h5` file; no good file is left; or `on_bad_file` is unknown.
    """
    if on_bad_file not in ("error", "skip"):
        raise ValueError(
            f"on_bad_file={on_bad_file!r} is not accepted: 'error' or 'skip' is expected"
        )
    files = list(_files_of(paths))
    volumes: list[FastMRIVolume] = []
    skipped: list[tuple[Path, str]] = []
    for path in files:
        try:
            volumes.append(_inspected(path, read_all))
        except (FileNotFoundError, ValueError) as error:
            if on_bad_file == "error":
                raise
            skipped.append((path, str(error)))
    if not volumes:
        first = f", the first: {skipped[0][1]}" if skipped else ""
        raise ValueError(
            f"paths={paths} is not accepted: {len(files)} files, none of them a fastMRI file that "
            f"can be read{first}; at least one .h5 file is expected"
        )
    return FastMRIIndex(tuple(volumes), tuple(skipped))


def _files_of(paths: str | Path | Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, [paths] if isinstance(paths, (str, Path)) else paths):
        if path.is_dir():
            # A folder without any is itself the bad file.
            yield from sorted(path.glob("*.h5")) or [path]
        else:
            yield path


def select_volumes(
    volumes: Sequence[FastMRIVolume],
    *,
    acquisition: str | None = None,
    matrix: tuple[int, int] | None = None,
    num_coils: int | None = None,
    num_volumes: int | None = None,
) -> tuple[FastMRIVolume, ...]:
    """Return the volumes of one kind.

    Args:
        volumes: of `index_fastmri`.
        acquisition: only these, such as `"CORPD_FBK"` (knee, no fat suppression).
        matrix: only those with this `(rows, columns)` of k-space.
        num_coils: only those of so many coils.
        num_volumes: this many of what remains, from the first on.

    Raises:
        ValueError: no volume, or fewer than `num_volumes`, is of that kind.
    """
    _check_volumes(volumes)
    chosen = tuple(volumes)
    if acquisition is not None:
        kept = tuple(v for v in chosen if v.acquisition == acquisition)
        if not kept:
            present = sorted({str(v.acquisition) for v in chosen})
            raise ValueError(
                f"acquisition={acquisition!r} is not accepted: the volumes have {present}"
            )
        chosen = kept
    if matrix is not None:
        kept = tuple(v for v in chosen if v.kspace_shape[-2:] == tuple(matrix))
        if not kept:
            present = sorted({str(v.kspace_shape[-2:]) for v in chosen})
            raise ValueError(f"matrix={matrix} is not accepted: the volumes have {present}")
        chosen = kept
    if num_coils is not None:
        kept = tuple(v for v in chosen if v.num_coils == num_coils)
        if not kept:
            counts = sorted({v.num_coils for v in chosen})
            raise ValueError(f"num_coils={num_coils} is not accepted: the volumes have {counts}")
        chosen = kept
    if num_volumes is not None:
        if checked_count("num_volumes", num_volumes) > len(chosen):
            raise ValueError(
                f"num_volumes={num_volumes} is not accepted: there are {len(chosen)} volumes"
            )
        chosen = chosen[:num_volumes]
    return chosen


class FastMRISlices:
    """Slices of fastMRI volumes, read when they are asked for.

    Files are opened at the first slice read from them and the `max_open` latest stay open. A
    source may be read from several threads, pickled, and carried over a fork: every process opens
    files of its own.

    Args:
        volumes: of `index_fastmri`; all single-coil or all multi-coil.
        crop: `(height, width)` of the signals, or one size for both; 320 in the papers. `None`
            keeps the size of k-space. Not with `raw`.
        raw: give k-space as it is stored, the fastMRI way, instead of signals.
        num_calibration: of multi-coil volumes, whose signals need coil maps: side of the square
            that `espirit_maps` estimates them from.
        maps_folder: keeps the estimated maps, one file a slice, and is made if absent; `None` keeps
            the first 128 in memory.
        slices: `(start, stop)` in `[0, 1]`: of every volume, the slices whose middle
            `(i + 1/2) / num_slices` lies in `[start, stop)`.
        middle: of every volume, this many slices in the middle; all where it has fewer.
        max_open: files that stay open, at least 1.

    Items, as signals (single coil):
        `signal`: `(height, width, 1)` complex64, the central crop of the centred orthonormal
        inverse transform of the slice's k-space. Its measurements are simulated on its own grid.

    Items, as signals (many coils):
        `signal`, `maps` and `measurement` as of `recorded_example`, of the central crop of every
        coil's image. The maps are estimated from the crop as well, when a slice is first asked for.

    Items, raw:
        `kspace`: `(rows, columns)` complex64, or `(rows, columns, coils)`. `target`: `(height,
        width, 1)` float32, where the files have it. `mask`: `(columns,)` bool, where they have it.

    Items, both:
        `volume`: int32, place in `volumes`. `slice`: int32, place in the file. `maximum`: float32,
        the attribute `max`, peak of fastMRI's metrics, where the files have it. `padding_left` and
        `padding_right`: int32, unless cropped: the columns `padding_left .. padding_right - 1`
        were acquired, the others are padding. fastMRI's masks are false on the padding.

    Amplitudes are as stored; nothing is normalised.

    Raises:
        ValueError: an argument outside its range; volumes whose items would differ in keys or
            shapes; a crop larger than an image; signals from many coils without
            `num_calibration`, or from undersampled k-space, whose images are not the truth; when
            indexed, a slice that cannot be read, has numbers that are NaN or infinite, or gives no
            maps.
        FileNotFoundError: when indexed, the file is no longer there.
    """

    def __init__(
        self,
        volumes: Sequence[FastMRIVolume],
        *,
        crop: int | tuple[int, int] | None = None,
        raw: bool = False,
        num_calibration: int | None = None,
        maps_folder: str | Path | None = None,
        slices: tuple[float, float] | None = None,
        middle: int | None = None,
        max_open: int = 16,
    ):
        _check_volumes(volumes)
        self.volumes = tuple(volumes)
        self._raw = raw
        self._num_calibration = num_calibration
        self._maps: dict[int, np.ndarray] = {}
        self._maps_folder = None if maps_folder is None else Path(maps_folder)
        self._crop = None if crop is None else _crop_shape(crop)
        self._check_kind()
        self._check_alike()
        chosen = [
            list(chosen_slices(v.num_slices, slices=slices, middle=middle)) for v in self.volumes
        ]
        self._volume_of = np.repeat(np.arange(len(chosen)), [len(c) for c in chosen])
        self._slice_of = np.concatenate([np.asarray(c, int) for c in chosen])
        if not len(self):
            raise ValueError(
                f"slices={slices} is not accepted: no slice of the volumes is chosen by it"
            )
        self._files = _OpenFiles(checked_count("max_open", max_open))

    def __len__(self) -> int:
        return len(self._volume_of)

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, len(self))
        place, slice_number = int(self._volume_of[number]), int(self._slice_of[number])
        volume = self.volumes[place]
        item = self._raw_arrays(volume, slice_number)
        if not self._raw:
            image = centred_ifft2(item.pop("kspace"))
            if self._crop is not None:
                # Copied, so that a batch does not keep what was cut off.
                image = centre_crop(image, self._crop).copy()
            if volume.num_coils:
                item = recorded_example(image, self._maps_of(number, image))
            else:
                item = {"signal": image[..., None]}
        labels: dict[str, float] = {"volume": place, "slice": slice_number}
        if self._crop is None:
            labels["padding_left"] = volume.header.padding_left
            labels["padding_right"] = volume.header.padding_right
        item |= {name: np.asarray(label, np.int32) for name, label in labels.items()}
        if volume.maximum is not None:
            item["maximum"] = np.asarray(volume.maximum, np.float32)
        return item

    def close(self) -> None:
        """Close the open files. Those that are read later are opened again."""
        self._files.close()

    def _maps_of(self, number: int, coil_images: np.ndarray) -> np.ndarray:
        if (maps := self._maps.get(number)) is None:
            path = None if self._maps_folder is None else self._maps_path(number, coil_images)
            if path is not None and path.exists():
                return load_maps(path, coil_images.shape)
            assert self._num_calibration is not None
            maps = espirit_maps(centred_fft2(coil_images), self._num_calibration)
            if path is not None:
                save_maps(path, maps)
            elif len(self._maps) < _KEPT_MAPS:
                self._maps[number] = maps
        return maps

    def _maps_path(self, number: int, coil_images: np.ndarray) -> Path:
        """Return where the maps of a slice are kept: what they hang on is in the name."""
        assert self._maps_folder is not None
        stem = self.volumes[int(self._volume_of[number])].path.stem
        size = "x".join(map(str, coil_images.shape))
        name = f"{stem}-slice{self._slice_of[number]}-{size}-calibration{self._num_calibration}.npy"
        return self._maps_folder / name

    def _raw_arrays(self, volume: FastMRIVolume, slice_number: int) -> Example:
        with self._files.opened(volume.path) as file:
            kspace = _read(volume.path, file, "kspace", slice_number).astype(np.complex64)
            if volume.num_coils:
                kspace = np.ascontiguousarray(np.moveaxis(kspace, 0, -1))
            arrays: Example = {"kspace": kspace}
            if self._raw and volume.target_shape is not None:
                target = _read(volume.path, file, _target_key(volume.num_coils), slice_number)
                arrays["target"] = target.astype(np.float32)[..., None]
            if self._raw and volume.has_mask:
                arrays["mask"] = _read(volume.path, file, "mask", None).astype(bool)
        return arrays

    def _check_kind(self) -> None:
        if self._raw:
            if self._crop is not None:
                raise ValueError(
                    f"crop={self._crop} with raw=True is not accepted: crop=None is expected"
                )
            return
        for volume in self.volumes:
            if volume.num_coils and self._num_calibration is None:
                raise ValueError(
                    f"{volume.path}: has k-space of {volume.num_coils} coils; accepted without "
                    "raw=True: single-coil volumes, or num_calibration to estimate the coils' maps"
                )
            if volume.has_mask:
                raise ValueError(
                    f"{volume.path}: has a mask, so that its k-space is undersampled and holds no "
                    "truth; accepted without raw=True: volumes of training and validation sets"
                )
            if self._crop is not None:
                check_crop("crop", self._crop, str(volume.path), volume.kspace_shape[-2:])

    def _check_alike(self) -> None:
        traits: dict[str, Callable[[FastMRIVolume], Any]] = {
            "attribute 'max'": lambda v: "there" if v.maximum is not None else "absent"
        }
        if self._crop is None:
            traits["a slice of 'kspace'"] = lambda v: v.kspace_shape[1:]
        if self._raw:
            traits["a slice of the target"] = lambda v: v.target_shape
            traits["'mask'"] = lambda v: "there" if v.has_mask else "absent"
        else:
            traits["the number of coils"] = lambda v: v.num_coils
        first = self.volumes[0]
        for name, trait in traits.items():
            for volume in self.volumes:
                if trait(volume) != trait(first):
                    raise ValueError(
                        f"{volume.path}: {name} is {trait(volume)}, but {trait(first)} in "
                        f"{first.path}; accepted: volumes alike, as from `select_volumes`"
                    )


def chosen_slices(
    num_slices: int, *, slices: tuple[float, float] | None = None, middle: int | None = None
) -> range:
    """Return the slices of a volume that two options choose; all if both are `None`.

    Args:
        num_slices: how many there are.
        slices: `(start, stop)` in `[0, 1]`: those with `start <= (i + 1/2) / num_slices < stop`, so
            that `(0, a)` and `(a, 1)` share none and leave none out.
        middle: this many in the middle, or all where there are fewer.

    Raises:
        ValueError: both are given, or one is outside its range.
    """
    if slices is not None and middle is not None:
        raise ValueError(
            f"slices={slices} with middle={middle} is not accepted: at most one of them is expected"
        )
    if slices is not None:
        if len(slices) != 2 or not 0 <= slices[0] < slices[1] <= 1:
            raise ValueError(
                f"slices={slices} is not accepted: (start, stop) with 0 <= start < stop <= 1 is "
                "expected"
            )
        start, stop = (math.ceil(bound * num_slices - 0.5) for bound in slices)
        return range(start, stop)
    if middle is not None:
        count = min(checked_count("middle", middle), num_slices)
        start = (num_slices - count) // 2
        return range(start, start + count)
    return range(num_slices)


class _OpenFiles:
    """The files read last, open; one read at a time.

    The lock is one for all, because HDF5 itself does one thing at a time, and it is held during
    the read, so that no thread closes a file that another reads.
    """

    def __init__(self, most: int):
        self._most = most
        self._files: OrderedDict[Path, Any] = OrderedDict()
        _FILES.add(self)

    def __reduce__(self):
        return _OpenFiles, (self._most,)

    @contextmanager
    def opened(self, path: Path) -> Iterator[Any]:
        with _READING:
            _close_at_fork()
            if path not in self._files:
                while len(self._files) >= self._most:
                    self._files.popitem(last=False)[1].close()
                self._files[path] = _open(path)
            self._files.move_to_end(path)
            yield self._files[path]

    def close(self) -> None:
        with _READING:
            self.close_unlocked()

    def close_unlocked(self) -> None:
        while self._files:
            self._files.popitem()[1].close()


_READING = threading.Lock()
_FILES: "weakref.WeakSet[_OpenFiles]" = weakref.WeakSet()


@functools.cache
def _close_at_fork() -> None:
    """Have all files closed before a fork, as HDF5 must not be handed open files by its parent."""
    # h5py takes its own lock before a fork. Those who come later go first, and a read takes
    # _READING before h5py's lock, so this must be registered after h5py was imported.
    import h5py  # noqa: F401

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_READING.release,
            after_in_child=_READING.release,
        )


def _before_fork() -> None:
    _READING.acquire()
    for files in list(_FILES):
        files.close_unlocked()


def _open(path: Path) -> Any:
    import h5py

    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; a fastMRI HDF5 file is expected")
    if path.is_dir():
        raise ValueError(f"{path}: a folder without .h5 files; a fastMRI HDF5 file is expected")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as an HDF5 file ({error}); {_WHOLE}") from error


def _read(
    path: Path, file: Any, key: str, slice_number: int | None, coil: int | None = None
) -> np.ndarray:
    """Read a slice, of one coil or of all, or with `slice_number` None the whole dataset."""
    place = f"{path}: {key!r}" + ("" if slice_number is None else f", slice {slice_number},")
    where = tuple(number for number in (slice_number, coil) if number is not None)
    try:
        array = np.asarray(file[key][where])
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{place} cannot be read ({error}); {_WHOLE}") from error
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(
            f"{place} has {int(bad.sum())} of {bad.size} values that are NaN or infinite; "
            "accepted: finite numbers"
        )
    return array


def _inspected(path: Path, read_all: bool) -> FastMRIVolume:
    with _open(path) as file:
        try:
            volume = _volume(path, file)
        except (OSError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); {_WHOLE}") from error
        last = volume.num_slices - 1
        coil = -1 if volume.num_coils and not read_all else None
        for number in range(0 if read_all else last, last + 1):
            _read(path, file, "kspace", number, coil)
            if volume.target_shape is not None:
                _read(path, file, _target_key(volume.num_coils), number)
        return volume


def _volume(path: Path, file: Any) -> FastMRIVolume:
    kspace = _dataset(path, file, "kspace", "c")
    if len(kspace.shape) not in (3, 4) or 0 in kspace.shape:
        raise ValueError(
            f"{path}: 'kspace' has shape {kspace.shape}; accepted: (slices, rows, columns) or "
            "(slices, coils, rows, columns), not empty"
        )
    num_slices, *coils, _, columns = kspace.shape
    target_shape = None
    target_key = _target_key(len(coils))
    if target_key in file:
        target = _dataset(path, file, target_key, "f")
        if len(target.shape) != 3 or target.shape[0] != num_slices or 0 in target.shape:
            raise ValueError(
                f"{path}: {target_key!r} has shape {target.shape}; accepted: ({num_slices}, "
                "height, width), as many slices as 'kspace'"
            )
        target_shape = target.shape[1:]
    if has_mask := "mask" in file:
        _check_mask(path, file, columns)
    return FastMRIVolume(
        path=path,
        kspace_shape=kspace.shape,
        target_shape=target_shape,
        has_mask=has_mask,
        header=_header(path, _header_text(path, file), columns),
        maximum=_number(path, file, "max"),
        norm=_number(path, file, "norm"),
        acquisition=_text(file, "acquisition"),
        patient_id=_text(file, "patient_id"),
    )


def _target_key(num_coils: int) -> str:
    return _MULTI_COIL_TARGET if num_coils else _SINGLE_COIL_TARGET


def _dataset(path: Path, file: Any, key: str, kinds: str) -> Any:
    if key not in file or not hasattr(file[key], "dtype"):
        raise ValueError(f"{path}: has no dataset {key!r}; it holds {sorted(file)}")
    dataset = file[key]
    if dataset.dtype.kind not in kinds:
        words = {"c": "complex", "f": "floating-point", "biuf": "boolean or real", "OS": "text"}
        raise ValueError(f"{path}: {key!r} has dtype {dataset.dtype}; accepted: {words[kinds]}")
    return dataset


def _check_mask(path: Path, file: Any, columns: int) -> None:
    shape = _dataset(path, file, "mask", "biuf").shape
    if shape != (columns,):
        raise ValueError(f"{path}: 'mask' has shape {shape}; accepted: ({columns},)")
    values = np.unique(_read(path, file, "mask", None))
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"{path}: 'mask' has values {values[:4]}; accepted: 0 and 1")


def _header_text(path: Path, file: Any) -> bytes | str:
    text = _dataset(path, file, "ismrmrd_header", "OS")[()]
    if not isinstance(text, (bytes, str)):
        raise ValueError(
            f"{path}: 'ismrmrd_header' has shape {text.shape}; accepted: one string of XML"
        )
    return text


def _header(path: Path, text: bytes | str, columns: int) -> FastMRIHeader:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(
            f"{path}: 'ismrmrd_header' cannot be read as XML ({error}); accepted: an ISMRMRD header"
        ) from error

    def number(*names: str) -> int:
        # Of several encodings the first counts, as in fastMRI's code; any namespace will do.
        found = root.findtext("/".join(f"{{*}}{name}" for name in ("encoding", *names)), "")
        if not found.strip().isdecimal():
            raise ValueError(
                f"{path}: 'ismrmrd_header' has {found!r} for encoding/{'/'.join(names)}; "
                "accepted: a whole number of at least 0"
            )
        return int(found)

    def matrix(space: str) -> tuple[int, int, int]:
        x, y, z = (number(space, "matrixSize", axis) for axis in "xyz")
        return x, y, z

    encoded = matrix("encodedSpace")
    steps = ("encodingLimits", "kspace_encoding_step_1")
    left = encoded[1] // 2 - number(*steps, "center")
    right = left + number(*steps, "maximum") + 1
    if not 0 <= left < min(right, columns):
        raise ValueError(
            f"{path}: 'ismrmrd_header' has acquired columns {left}..{right - 1} by its "
            f"encodingLimits; accepted: some of the {columns} columns of 'kspace'"
        )
    return FastMRIHeader(encoded, matrix("reconSpace"), left, right)


def _number(path: Path, file: Any, name: str) -> float | None:
    value = file.attrs.get(name)
    if value is None:
        return None
    if not isinstance(value, (int, float, np.integer, np.floating)) or not math.isfinite(value):
        raise ValueError(f"{path}: attribute {name!r} is {value!r}; accepted: a finite number")
    return float(value)


def _text(file: Any, name: str) -> str | None:
    value = file.attrs.get(name)
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_volumes(volumes: Sequence[FastMRIVolume]) -> None:
    if len(volumes) == 0:
        raise ValueError("volumes is empty: at least one volume is expected")


def _crop_shape(crop: int | tuple[int, int]) -> tuple[int, int]:
    sizes = crop if isinstance(crop, Sequence) else (crop, crop)
    if len(sizes) != 2:
        raise ValueError(f"crop={crop!r} is not accepted: a size or (height, width) is expected")
    return checked_count("crop", sizes[0]), checked_count("crop", sizes[1])
