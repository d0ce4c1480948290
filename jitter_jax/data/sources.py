"""Sources by name: what the `data` part of a config asks for."""

from collections.abc import Sequence
from pathlib import Path

from jitter_jax.data.files import FileSource
from jitter_jax.data.pipeline import Example, Source
from jitter_jax.data.points import BIASED_TRUTH, PointSource
from jitter_jax.data.seismic import (
    GeneratedSections,
    LayeredSource,
    PatchSource,
    WellSections,
    sigmoid_reflectivity,
    velocity_reflectivity,
)

KINDS = ("points", "generated", "wells", "file")
# Out-of-distribution companions of the test set.
LAYERS = {"small_layer": 0.1, "large_layer": 0.3}
BIASES = {"small_bias": BIASED_TRUTH, "large_bias": (10 * BIASED_TRUTH[0], 0.0)}
SECTIONS = {
    "sigmoid": ("sigmoid.npz", sigmoid_reflectivity),
    "velocity_model": ("velocity_model.npz", velocity_reflectivity),
}


class Part:
    """Examples `start .. stop - 1` of another source, numbered from zero.

    Args:
        source: the whole.
        start: first example.
        stop: the one after the last.

    Raises:
        ValueError: the range is empty or not within the source.
    """

    def __init__(self, source: Source, start: int, stop: int):
        if not 0 <= start < stop <= len(source):
            raise ValueError(
                f"examples {start}..{stop - 1} are not accepted: the source has {len(source)}"
            )
        self._source, self._start, self._stop = source, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"index={index} is not accepted: there are {len(self)} examples")
        return self._source[self._start + index]


def make_sources(
    kind: str,
    *,
    seed: int,
    shape: tuple[int, int],
    num_train: int,
    num_validation: int,
    num_test: int,
    out_of_distribution: Sequence[str] = (),
    data_dir: str = "",
    train_wells: Sequence[str] = (),
    test_wells: Sequence[str] = (),
    interval_s: float = 0.004,
    train_file: str = "",
    test_file: str = "",
) -> dict[str, Source]:
    """Return the sources of one problem.

    Args:
        kind: `"points"`, `"generated"` sections, `"wells"` (sections made of well logs) or
            `"file"` (a user's own arrays).
        seed: of what is generated; training, validation and test draw from different seeds.
        shape: `(time, traces)` of a section; not read for points and files.
        num_train: examples to train on. Of a file: all but the last `num_validation` are used,
            whatever this says.
        num_validation: examples to validate on.
        num_test: examples to test on; of a file, at most this many.
        out_of_distribution: names of more test sets: `"small_layer"` and `"large_layer"` (the
            test set's sections with a layer of magnitude 0.1 or 0.3), `"small_bias"` and
            `"large_bias"` (points beside the origin), `"sigmoid"` and `"velocity_model"`
            (windows of those sections).
        data_dir: folder of `f3_wells.npz`, `sigmoid.npz` and `velocity_model.npz`.
        train_wells: wells to train and validate on.
        test_wells: wells to test on.
        interval_s: sampling interval of wells and velocity model, in seconds.
        train_file: a user's own training file.
        test_file: a user's own test file.

    Returns:
        `"train"`, `"validation"`, `"test"`, and each out-of-distribution set by its name.

    Raises:
        FileNotFoundError: a file that is asked for is not there.
        ValueError: a name is unknown, or an argument outside its range.
    """
    if kind not in KINDS:
        raise ValueError(f"data.kind={kind!r} is not accepted: one of {KINDS} is expected")

    if kind == "file":
        sources = _file_sources(train_file, test_file, num_validation, num_test)
    else:
        sources = {}
        counts = {"train": num_train, "validation": num_validation, "test": num_test}
        for part, (name, num) in enumerate(counts.items()):
            stream = len(counts) * seed + part
            if kind == "points":
                sources[name] = PointSource(num, stream)
            elif kind == "generated":
                sources[name] = GeneratedSections(num, stream, shape)
            else:
                wells = test_wells if name == "test" else train_wells
                path = Path(data_dir) / "f3_wells.npz"
                sources[name] = WellSections(path, wells, num, stream, shape, interval_s=interval_s)
    for name in out_of_distribution:
        sources[name] = _shifted(
            name, kind, sources["test"], Path(data_dir), shape, num_test, seed, interval_s
        )
    return sources


def _file_sources(
    train_file: str, test_file: str, num_validation: int, num_test: int
) -> dict[str, Source]:
    for name, path in (("train_file", train_file), ("test_file", test_file)):
        if not path:
            raise ValueError(f"data.{name} is empty: data.kind='file' needs a .npz or .npy file")
    whole, test = FileSource(train_file), FileSource(test_file)
    cut = len(whole) - num_validation
    if cut < 1:
        raise ValueError(
            f"data.num_validation={num_validation} is not accepted: {train_file} has {len(whole)} "
            "examples, and at least one must be left to train on"
        )
    return {
        "train": Part(whole, 0, cut),
        "validation": Part(whole, cut, len(whole)),
        "test": Part(test, 0, min(len(test), num_test)),
    }


def _shifted(
    name: str,
    kind: str,
    test: Source,
    data_dir: Path,
    shape: tuple[int, int],
    num: int,
    seed: int,
    interval_s: float,
) -> Source:
    if name in BIASES and kind == "points":
        return PointSource(len(test), seed, BIASES[name])
    if name in LAYERS and kind != "points":
        return LayeredSource(test, LAYERS[name], seed)
    if name in SECTIONS and kind != "points":
        file, read = SECTIONS[name]
        path = data_dir / file
        section = (
            velocity_reflectivity(path, interval_s=interval_s)
            if name == "velocity_model"
            else read(path)
        )
        return PatchSource(section, shape, num_patches=num, seed=seed, normalise=True)
    accepted = sorted(BIASES) if kind == "points" else sorted([*LAYERS, *SECTIONS])
    raise ValueError(
        f"data.out_of_distribution={name!r} is not accepted with data.kind={kind!r}: "
        f"of {accepted} are expected"
    )
