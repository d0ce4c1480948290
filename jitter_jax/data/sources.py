"""Sources by name: what the `data` part of a config asks for."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jitter_jax.data._checks import checked_count
from jitter_jax.data.files import FileSource
from jitter_jax.data.image_sources import KINDS as IMAGE_KINDS
from jitter_jax.data.image_sources import OnSkip, make_image_sources
from jitter_jax.data.part import Part
from jitter_jax.data.picture_sources import KINDS as PICTURE_KINDS
from jitter_jax.data.picture_sources import make_picture_sources
from jitter_jax.data.pipeline import Source
from jitter_jax.data.points import BIASED_TRUTH, PointSource
from jitter_jax.data.seismic import (
    GeneratedSections,
    LayeredSource,
    PatchSource,
    Structure,
    WellSections,
    sigmoid_reflectivity,
    velocity_reflectivity,
)

KINDS = ("points", "generated", "wells", "file", *IMAGE_KINDS, *PICTURE_KINDS)
# Out-of-distribution companions of the test set.
LAYERS = {"small_layer": 0.1, "large_layer": 0.3}
BIASES = {"small_bias": BIASED_TRUTH, "large_bias": (10 * BIASED_TRUTH[0], 0.0)}
SECTIONS = ("sigmoid", "velocity_model")
_STRUCTURE = (
    "dip",
    "fold",
    "thickening",
    "faults",
    "throw",
    "fault_lean",
    "amplitude_change",
)
_LAYERING = ("mean_spacing", "min_spacing", "smallest")


def make_sources(
    kind: str,
    *,
    seed: int,
    num_train: int,
    num_validation: int,
    num_test: int,
    out_of_distribution: Sequence[str],
    folder: str,
    sections: Mapping[str, Any],
    wells: Mapping[str, Any],
    file: Mapping[str, Any],
    on_bad_file: str,
    read_all: bool,
    images: Mapping[str, Any],
    sampling: Mapping[str, Any],
    coils: Mapping[str, Any],
    shifts: Mapping[str, Any],
    augment: Mapping[str, Any],
    on_skip: OnSkip = lambda skipped: None,
) -> dict[str, Source]:
    """Return the sources of one problem.

    Args:
        kind: `"points"`, `"generated"` sections, `"wells"` (sections made of well logs),
            `"file"` (a user's own arrays), images of magnetic resonance (one of `IMAGE_KINDS`) or
            pictures (one of `PICTURE_KINDS`).
        seed: of what is generated; training, validation and test draw from different seeds.
        num_train: examples to train on. Of a file all but the last `num_validation` are used,
            whatever this says.
        num_validation: examples to validate on.
        num_test: examples to test on; of a file, at most this many.
        out_of_distribution: names of more test sets: of `LAYERS` (the test set's sections with a
            layer added), of `BIASES` (points beside the origin), of `SECTIONS` (windows of those).
        folder: where `f3_wells.npz`, `sigmoid.npz` and `velocity_model.npz` are.
        sections: `shape`, the options of `reflectivity_section` and `Structure`, `added_layer`.
        wells: `train` and `test` names, `interval_s`.
        file: `train` and `test` paths, and the options of `FileSource`.
        on_bad_file: of images, as the rest; see `make_image_sources`.
        read_all: whether files are read to the end before anything begins.
        images: what they are.
        sampling: their masks.
        coils: the coils that see them.
        shifts: how the shifted measurements of test sets differ.
        augment: what the training step makes of an example; `patch` is used.
        on_skip: called with every file that is skipped.

    Returns:
        `"train"`, `"validation"`, `"test"`, and each out-of-distribution set by its name.

    Raises:
        FileNotFoundError: a file that is asked for is not there.
        ValueError: a name is unknown, or an argument outside its range.
    """
    if kind not in KINDS:
        raise ValueError(f"data.kind={kind!r} is not accepted: one of {KINDS} is expected")
    counts = {"train": num_train, "validation": num_validation, "test": num_test}
    for name, count in counts.items():
        checked_count(f"data.num_{name}", count)
    if kind in IMAGE_KINDS:
        return make_image_sources(
            kind,
            seed=seed,
            counts=counts,
            out_of_distribution=out_of_distribution,
            folder=folder,
            on_bad_file=on_bad_file,
            read_all=read_all,
            images=images,
            sampling=sampling,
            coils=coils,
            shifts=shifts,
            on_skip=on_skip,
        )
    if kind in PICTURE_KINDS:
        return make_picture_sources(
            kind,
            seed=seed,
            counts=counts,
            out_of_distribution=out_of_distribution,
            folder=folder,
            on_bad_file=on_bad_file,
            images=images,
            shifts=shifts,
            patches=bool(augment["patch"]),
            on_skip=on_skip,
        )
    make: Callable[[str, int, int], Source]
    structure = Structure(**{key: sections[key] for key in _STRUCTURE})
    shape = tuple(sections["shape"])
    if kind == "file":
        sources = _file_sources(file, num_validation, num_test)
    else:
        if kind == "points":
            make = lambda name, count, stream: PointSource(count, stream)
        elif kind == "generated":
            layering = {key: sections[key] for key in _LAYERING}
            make = lambda name, count, stream: GeneratedSections(
                count, stream, shape, structure=structure, **layering
            )
        else:
            make = partial(_well_sections, folder, wells, shape, structure)
        streams = (len(counts) * seed + part for part in range(len(counts)))
        sources = {
            name: make(name, count, stream)
            for (name, count), stream in zip(counts.items(), streams, strict=True)
        }
    for name in out_of_distribution:
        sources[name] = _shifted(name, kind, sources["test"], seed, folder, sections, wells)
    return sources


def _in_folder(folder: str, file: str) -> Path:
    if not folder:
        raise ValueError(f"data.folder is empty: the folder that has {file} is expected")
    return Path(folder) / file


def _well_sections(
    folder: str,
    wells: Mapping[str, Any],
    shape: tuple[int, int],
    structure: Structure,
    name: str,
    count: int,
    stream: int,
) -> Source:
    if both := set(wells["train"]) & set(wells["test"]):
        raise ValueError(f"data.wells has {sorted(both)} in train and in test")
    return WellSections(
        _in_folder(folder, "f3_wells.npz"),
        wells["test" if name == "test" else "train"],
        count,
        stream,
        shape,
        interval_s=wells["interval_s"],
        structure=structure,
    )


def _file_sources(file: Mapping[str, Any], num_validation: int, num_test: int) -> dict[str, Source]:
    for name in ("train", "test"):
        if not file[name]:
            raise ValueError(f"data.file.{name} is empty: a .npz or .npy file is expected")
    if Path(file["train"]).resolve() == Path(file["test"]).resolve():
        raise ValueError(f"data.file.train and data.file.test are the same file: {file['test']}")
    options = {key: file[key] for key in ("signal_key", "measurement_key", "npy_holds")}
    whole, test = (FileSource(file[name], **options) for name in ("train", "test"))
    cut = len(whole) - num_validation
    if cut < 1:
        raise ValueError(
            f"data.num_validation={num_validation} is not accepted: {file['train']} has "
            f"{len(whole)} examples, and at least one must be left to train on"
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
    seed: int,
    folder: str,
    sections: Mapping[str, Any],
    wells: Mapping[str, Any],
) -> Source:
    if name in BIASES and kind == "points":
        return PointSource(len(test), seed, BIASES[name])
    if name in LAYERS and kind != "points":
        if "measurement" in test[0]:
            raise ValueError(
                f"data.out_of_distribution={name!r} is not accepted: the test file has "
                "measurements, and a layer added to its signals would not be in them"
            )
        return LayeredSource(test, LAYERS[name], seed, reading=sections["added_layer"])
    if name in SECTIONS and kind != "points":
        path = _in_folder(folder, f"{name}.npz")
        section = (
            velocity_reflectivity(path, interval_s=wells["interval_s"])
            if name == "velocity_model"
            else sigmoid_reflectivity(path)
        )
        shape = tuple(sections["shape"])
        return PatchSource(section, shape, num_patches=len(test), seed=seed, normalise=True)
    accepted = sorted(BIASES) if kind == "points" else sorted([*LAYERS, *SECTIONS])
    raise ValueError(
        f"data.out_of_distribution={name!r} is not accepted with data.kind={kind!r}: "
        f"of {accepted} are expected"
    )
