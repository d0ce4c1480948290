"""Arrays that a user brings: `.npz` and `.npy` files, read without pickles."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jitter_jax.data._checks import checked_index
from jitter_jax.data.pipeline import Example

SIGNAL_KEY = "signal"
MEASUREMENT_KEY = "measurement"

# NumPy's own name for an array that was saved without one.
_UNNAMED = "arr_0"


def load_arrays(path: str | Path, *, keys: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a `.npz` archive or a `.npy` file.

    Pickles are never loaded, because loading one runs whatever its author put into it.

    Args:
        path: the file.
        keys: names of the arrays to read, all of which must be there. `None` reads every array.

    Returns:
        The arrays by name, as stored. The array of a `.npy` file is named `arr_0`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such an archive, is damaged, lacks a key or holds objects.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; a .npz or .npy file is expected")
    try:
        # Opened here so that a file which turns out not to be an archive is closed as well.
        with path.open("rb") as stream:
            return _read(path, np.load(stream, allow_pickle=False), keys)
    except _MissingKeyError as error:
        raise ValueError(str(error)) from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: cannot be read as a NumPy file ({error}); accepted: a whole .npz or .npy "
            "file of numbers, without objects (pickles)"
        ) from error


class _MissingKeyError(Exception):
    pass


def _read(path: Path, content, keys: Sequence[str] | None) -> dict[str, np.ndarray]:
    if isinstance(content, np.ndarray):
        content = {_UNNAMED: content}
    names = list(content)
    for key in keys or ():
        if key not in names:
            raise _MissingKeyError(f"{path}: has no array {key!r}; it holds {sorted(names)}")
    return {name: content[name] for name in (names if keys is None else keys)}


def as_float32(path: str | Path, key: str, array: np.ndarray) -> np.ndarray:
    """Return real numbers as float32.

    Args:
        path: where the array came from, for the message.
        key: its name, for the message.
        array: any shape; floating-point or integer.

    Raises:
        ValueError: the array is of another kind (complex, boolean, text, objects), or has a value
            that is NaN, infinite, or too large for float32.
    """
    if array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: {key!r} has dtype {array.dtype}; accepted: floating-point or integer"
        )
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    bad = ~np.isfinite(converted)
    if bad.any():
        first = tuple(int(i) for i in np.unravel_index(np.argmax(bad), bad.shape))
        raise ValueError(
            f"{path}: {key!r} has {int(bad.sum())} of {bad.size} values that are NaN or infinite "
            f"in float32, the first {array[first]} at index {first}; accepted: finite numbers"
        )
    return converted


def as_complex64(path: str | Path, key: str, array: np.ndarray) -> np.ndarray:
    """Return complex or real numbers as complex64.

    Args:
        path: where the array came from, for the message.
        key: its name, for the message.
        array: any shape; complex, floating-point or integer.

    Raises:
        ValueError: the array is of another kind, or has a value that is NaN, infinite, or too large
            for complex64.
    """
    if array.dtype.kind != "c":
        return as_float32(path, key, array).astype(np.complex64)
    converted = np.empty(array.shape, np.complex64)
    converted.real = as_float32(path, key, array.real)
    converted.imag = as_float32(path, key, array.imag)
    return converted


class FileSource:
    """Sections from a file of the user's own.

    Args:
        path: a `.npz` file with the arrays below, or a `.npy` file with one of them.
        signal_key: name of the array of truths.
        measurement_key: name of the array of measurements. At least one of the two must be in the
            archive, and so must a key whose name is not the default.
        npy_holds: what the array of a `.npy` file is, `"signal"` or `"measurement"`.
        shape: `(time, traces)` that every section must have; `None` accepts any.

    The arrays are `(examples, time, traces)`, `(examples, time, traces, 1)`, or ``(time,
    traces)`` for a single section. Floating-point and integer numbers of any width are converted
    to float32; nothing is rescaled.

    Items:
        `signal` and/or `measurement`: `(time, traces, 1)` float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file or an array in it is not as above, or the signals and the measurements
            differ in number.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        signal_key: str = SIGNAL_KEY,
        measurement_key: str = MEASUREMENT_KEY,
        npy_holds: str = SIGNAL_KEY,
        shape: tuple[int, int] | None = None,
    ):
        if npy_holds not in (SIGNAL_KEY, MEASUREMENT_KEY):
            raise ValueError(
                f"npy_holds={npy_holds!r} is not accepted: "
                f"{SIGNAL_KEY!r} or {MEASUREMENT_KEY!r} is expected"
            )
        arrays = load_arrays(path)
        if set(arrays) == {_UNNAMED}:
            wanted = {npy_holds: _UNNAMED}
        else:
            named = {SIGNAL_KEY: signal_key, MEASUREMENT_KEY: measurement_key}
            wanted = _present(path, arrays, named)
        self._arrays = {
            name: _as_sections(path, key, arrays[key], shape) for name, key in wanted.items()
        }
        lengths = {name: len(array) for name, array in self._arrays.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"{path}: {lengths} examples; accepted: as many of one as of the other"
            )
        self._length = next(iter(lengths.values()))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, self._length)
        return {name: array[number] for name, array in self._arrays.items()}


def _present(
    path: str | Path, arrays: dict[str, np.ndarray], named: dict[str, str]
) -> dict[str, str]:
    for name, key in named.items():
        if key != name and key not in arrays:
            raise ValueError(f"{path}: has no array {key!r}; it holds {sorted(arrays)}")
    wanted = {name: key for name, key in named.items() if key in arrays}
    if not wanted:
        raise ValueError(
            f"{path}: has neither {named[SIGNAL_KEY]!r} nor {named[MEASUREMENT_KEY]!r}; "
            f"it holds {sorted(arrays)}"
        )
    return wanted


def _as_sections(
    path: str | Path, key: str, array: np.ndarray, shape: tuple[int, int] | None
) -> np.ndarray:
    sections = as_float32(path, key, array)
    if sections.ndim == 2:
        sections = sections[None]
    # A 3-D array that ends in 1 may be many sections of one trace or one section with a channel.
    if sections.ndim == 3 and (array.ndim == 2 or sections.shape[-1] != 1):
        sections = sections[..., None]
    if sections.ndim != 4 or sections.shape[-1] != 1:
        raise ValueError(
            f"{path}: {key!r} has shape {array.shape}; accepted: (examples, time, traces), "
            "(examples, time, traces, 1) or (time, traces); sections of one trace need four axes"
        )
    if sections.size == 0:
        raise ValueError(
            f"{path}: {key!r} has shape {array.shape}; at least one example is expected"
        )
    if shape is not None and sections.shape[1:3] != tuple(shape):
        raise ValueError(
            f"{path}: the sections of {key!r} are {sections.shape[1:3]}; "
            f"accepted: shape={tuple(shape)}"
        )
    # Items are views of this array.
    sections.setflags(write=False)
    return sections
