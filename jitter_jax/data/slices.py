"""Slices that are images already: complex ones in `.npz`, magnitude volumes in NIfTI."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jitter_jax.data._checks import checked_index
from jitter_jax.data.fastmri import chosen_slices
from jitter_jax.data.files import as_complex64, as_float32, load_arrays
from jitter_jax.data.kspace import fourier_resize
from jitter_jax.data.pipeline import Example
from jitter_jax.extras import MissingExtraError

_IMAGE = "image"
_LABELS = ("subject", "view", "slice_id")


class ComplexSlices:
    """Complex slices from `.npz` files, held in memory.

    Args:
        paths: a file or several. Each has `image`, `(slices, height, width)`, complex, or real for
            zero phase; and may have `subject`, `view` and `slice_id`, each one value or one per
            slice.
        view: only slices whose `view` this is, such as `"axial"`.
        subjects: only slices whose `subject` is among these.
        size: give square slices of this side, see `fourier_resize`; `None` gives them as stored.

    Attributes:
        subjects: of each slice; `None` where its file does not say.
        views: of each slice, likewise.
        slice_ids: of each slice, likewise.

    Items:
        `signal`: `(height, width, 1)` complex64, amplitudes as stored. All have one shape.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file or an array in it is not as above; the slices differ in shape; a view
            or a subject is asked for that is not there; `size` is larger than the slices.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        view: str | None = None,
        subjects: Iterable[int | str] | None = None,
        size: int | None = None,
    ):
        wanted: dict[str, set] = {}
        if view is not None:
            wanted["view"] = {view}
        if subjects is not None:
            wanted["subject"] = set(subjects)
        files = [_load(path) for path in _as_paths(paths)]
        for label, values in wanted.items():
            _check_there(label, values, files)
        parts, rows = [], []
        for file in files:
            keep = [
                i
                for i, row in enumerate(file.rows)
                if all(row[label] in values for label, values in wanted.items())
            ]
            if keep:
                part = file.images[keep]
                parts.append(part if size is None else _resized(file.path, part, size))
                rows += [file.rows[i] for i in keep]
        self._images = _one_array(parts, [file.path for file in files], wanted)
        self.subjects, self.views, self.slice_ids = (
            tuple(row[label] for row in rows) for label in _LABELS
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        return {"signal": self._images[checked_index(index, len(self))][..., None]}


def refuse_shared_subjects(subjects: Mapping[str, Iterable[int | str | None]]) -> None:
    """Raise unless every subject is in one set only.

    Slices of one head are so alike that a test on a subject of the training set is no test.

    Args:
        subjects: of each set by its name, such as `{"train": train.subjects, "test":
            test.subjects}`, or the `patient_id` of fastMRI volumes.

    Raises:
        ValueError: a subject is in two sets, or one is not known (`None`).
    """
    sets = {name: set(members) for name, members in subjects.items()}
    for name, members in sets.items():
        if None in members:
            raise ValueError(
                f"the {name} set has slices of a subject that is not known; accepted: files that "
                "name the subject of every slice"
            )
    for one, other in combinations(sets, 2):
        if shared := sets[one] & sets[other]:
            raise ValueError(
                f"subjects {sorted(shared, key=str)} are in the {one} set and in the {other} set; "
                "accepted: each subject in one of them"
            )


class NiftiSlices:
    """Slices of one magnitude volume in a NIfTI file, held in memory; needs nibabel.

    Args:
        path: a `.nii` or `.nii.gz` file of three axes.
        axis: the volume's axis that counts slices, 0, 1 or 2.
        size: give square slices of this side, see `fourier_resize`; the imaginary part that
            arises from rounding and from the unpaired highest frequency is left out. `None` gives
            slices as stored.
        slices: `(start, stop)` fractions of the volume, see `chosen_slices`.
        middle: this many slices in the middle, see `chosen_slices`.

    Items:
        `signal`: `(height, width, 1)` complex64 with imaginary part zero; the other two axes in
        the order they are stored, in the unit of the file (its slope and intercept applied).
        `volume`: int32, 0. `maximum`: float32, largest magnitude of the chosen slices.

    Raises:
        MissingExtraError: nibabel is not installed.
        FileNotFoundError: there is no such file.
        ValueError: the file is not as above, is damaged, or has numbers that are NaN or infinite;
            no slice is chosen; or an argument outside its range.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        axis: int = 2,
        size: int | None = None,
        slices: tuple[float, float] | None = None,
        middle: int | None = None,
    ):
        if axis not in (0, 1, 2):
            raise ValueError(f"axis={axis!r} is not accepted: 0, 1 or 2 is expected")
        volume = np.moveaxis(_nifti(Path(path)), axis, 0)
        chosen = chosen_slices(len(volume), slices=slices, middle=middle)
        if not chosen:
            raise ValueError(
                f"slices={slices} is not accepted: no slice of {len(volume)} is chosen by it"
            )
        images = volume[chosen.start : chosen.stop]
        if size is not None:
            images = _resized(path, images.astype(np.complex64), size).real
        # Copied, so that the rest of the volume is not kept.
        self._images = np.ascontiguousarray(images).copy()
        self._maximum = np.float32(np.abs(self._images).max())

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        image = self._images[checked_index(index, len(self))]
        return {
            "signal": image.astype(np.complex64)[..., None],
            "volume": np.asarray(0, np.int32),
            "maximum": np.asarray(self._maximum),
        }


def _as_paths(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    listed = [Path(p) for p in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if not listed:
        raise ValueError(f"paths={paths} is not accepted: at least one .npz file is expected")
    return listed


class _File(NamedTuple):
    path: Path
    images: np.ndarray  # (slices, height, width) complex64
    rows: list[dict[str, Any]]  # the labels of each slice


def _load(path: Path) -> _File:
    arrays = load_arrays(path)
    if _IMAGE not in arrays:
        raise ValueError(f"{path}: has no array {_IMAGE!r}; it holds {sorted(arrays)}")
    images = as_complex64(path, _IMAGE, arrays[_IMAGE])
    if images.ndim != 3 or images.size == 0:
        raise ValueError(
            f"{path}: {_IMAGE!r} has shape {images.shape}; accepted: (slices, height, width), "
            "not empty"
        )
    columns = {}
    for label in _LABELS:
        values = arrays.get(label, np.array(None))
        if values.shape not in ((), (len(images),)):
            raise ValueError(
                f"{path}: {label!r} has shape {values.shape}; accepted: one value, or one for each "
                f"of {len(images)} slices"
            )
        columns[label] = np.broadcast_to(values, len(images)).tolist()
    rows = [{label: columns[label][i] for label in _LABELS} for i in range(len(images))]
    return _File(path, images, rows)


def _check_there(label: str, wanted: set, files: list[_File]) -> None:
    present = {row[label] for file in files for row in file.rows}
    if absent := wanted - present:
        raise ValueError(
            f"{label} {sorted(absent, key=str)} is not accepted: "
            f"the files have {sorted(present, key=str)}"
        )


def _resized(path: str | Path, images: np.ndarray, size: int) -> np.ndarray:
    try:
        return fourier_resize(images, size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _one_array(parts: list[np.ndarray], paths: list[Path], wanted: dict[str, set]) -> np.ndarray:
    if not parts:
        raise ValueError(f"{wanted} is not accepted: no slice has all of it")
    shapes = sorted({part.shape[1:] for part in parts})
    if len(shapes) > 1:
        raise ValueError(
            f"{', '.join(map(str, paths))}: slices of {shapes}; accepted: slices of one shape, as "
            "`size` makes them"
        )
    images = np.concatenate(parts)
    # Items are views of this array.
    images.setflags(write=False)
    return images


def _nifti(path: Path) -> np.ndarray:
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
    except ImportError as error:
        raise MissingExtraError("NIfTI files are read", "nibabel", "nifti") from error
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; a NIfTI file is expected")
    try:
        image: Any = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(
            f"{path}: cannot be read as a NIfTI file ({error}); accepted: a whole .nii or .nii.gz "
            "file"
        ) from error
    if array.ndim != 3 or array.size == 0:
        raise ValueError(
            f"{path}: the volume has shape {array.shape}; accepted: three axes, not empty"
        )
    return as_float32(path, "volume", array)
