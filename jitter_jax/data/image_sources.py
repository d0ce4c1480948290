"""Sources of images by name: what the `data` part of a config asks for in MRI."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jitter_jax.data._checks import checked_count
from jitter_jax.data.coils import MultiCoil, RecordedSlices, Unmeasured
from jitter_jax.data.coils import coils as simulated_coils
from jitter_jax.data.fastmri import FastMRISlices, FastMRIVolume, index_fastmri, select_volumes
from jitter_jax.data.images import Masked, Noisy, Scaled, masks
from jitter_jax.data.part import Part
from jitter_jax.data.phantoms import Phantoms
from jitter_jax.data.pipeline import Source
from jitter_jax.data.shifts import Blocks, Contrast, Lesions
from jitter_jax.data.slices import ComplexSlices, NiftiSlices, refuse_shared_subjects
from jitter_jax.sampling import MASKS

KINDS = ("phantoms", "slices", "fastmri", "nifti")
# Test sets that only their measurement tells apart from the test set.
MEASUREMENTS = ("mask", "acceleration", "noise")
# Other planes and another anatomy, of complex slices in files.
VIEWS = ("axial", "coronal", "sagittal")
ANATOMY = "anatomy"
# Slices that several coils recorded.
RECORDED = "recorded"

# (path of a file that was left out, why)
OnSkip = Callable[[tuple[Path, str]], None]


class _Images(NamedTuple):
    """Images before they are scaled and masked, with the files of the volumes they come from."""

    source: Source
    files: tuple[str, ...] = ()


def make_image_sources(
    kind: str,
    *,
    seed: int,
    counts: Mapping[str, int],
    out_of_distribution: Sequence[str],
    folder: str,
    on_bad_file: str,
    read_all: bool,
    images: Mapping[str, Any],
    sampling: Mapping[str, Any],
    coils: Mapping[str, Any],
    shifts: Mapping[str, Any],
    on_skip: OnSkip,
) -> dict[str, Source]:
    """Return the sources of one imaging problem, every example with its mask.

    With `coils["num"]` every example also has `maps`. Those of recorded k-space have `measurement`
    too; where their truth or their maps are changed it is left out, to be simulated.

    Args:
        kind: `"phantoms"` (generated), `"slices"` (complex slices in `.npz` files, split by
            subject), `"fastmri"` (HDF5) or `"nifti"` (magnitude volumes).
        seed: of phantoms, lesions and contrasts; the sets draw from different seeds.
        counts: examples to train, validate and test on. Of files, all are trained on but for the
            last `counts["validation"]`, and at most `counts["test"]` are tested on; of fastMRI's
            files these two count volumes.
        out_of_distribution: names of more test sets. Of all kinds: `"lesion"`, `"contrast"` and
            `"block"` change the test images, `"mask"`, `"acceleration"` and `"noise"` measure them
            as `shifts` says. Of slices also the views, `"axial"`, `"coronal"` and `"sagittal"`,
            and `"anatomy"`, the images of another file. With coils also `"maps"`, the test images
            measured through other simulated maps, and `"recorded"`, `RecordedSlices`.
        folder: where the files are.
        on_bad_file: `"error"` or `"skip"`, see `index_fastmri`.
        read_all: read every slice of every file before training begins.
        images: `shape`, `unit`, and what each kind needs.
        sampling: `mask`, `acceleration`, `seed`, `draw` and options of the mask.
        coils: `num` (0 is a single coil without a map); `maps`, `"simulated"` or, of multi-coil
            fastMRI files, `"espirit"`; `vary` and `seed` of simulated maps, `num_calibration` of
            estimated ones and the `folder` that keeps them; `file`, in the data's folder, of
            `"recorded"`.
        shifts: `mask`, `acceleration` and `noise_std` of the sets of those names.
        on_skip: called with every file that is skipped.

    Returns:
        `"train"`, `"validation"`, `"test"`, and each out-of-distribution set by its name.

    Raises:
        FileNotFoundError: a file that is asked for is not there.
        ValueError: a name is unknown, or an argument outside its range.
    """
    check_coils(kind, coils)
    if kind == "phantoms":
        raw = _phantoms(seed, counts, images)
    elif kind == "slices":
        raw = _slices(folder, counts, images)
    elif kind == "fastmri":
        raw = _fastmri(folder, counts, images, coils, on_bad_file, read_all, on_skip)
    else:
        raw = _nifti(folder, counts, images)
    test = raw["test"]
    truth = Unmeasured(test.source)
    made: dict[str, Callable[[], Source]] = {
        "lesion": lambda: Lesions(truth, seed),
        "contrast": lambda: Contrast(truth, seed),
        # The block has a level of its own, for images of largest magnitude 1.
        "block": lambda: Blocks(Scaled(truth, "slice")),
    }
    if coils["num"]:
        made["maps"] = lambda: truth
    for name in out_of_distribution:
        if name in made:
            raw[name] = _Images(made[name](), test.files)
        elif coils["num"] and name == RECORDED:
            raw[name] = _recorded(folder, images, coils)
        elif name in MEASUREMENTS:
            raw[name] = test
        elif kind == "slices" and name in (*VIEWS, ANATOMY):
            raw[name] = _Images(_other_slices(name, folder, images))
        else:
            accepted = [*made, *MEASUREMENTS] + ([*VIEWS, ANATOMY] if kind == "slices" else [])
            accepted += [RECORDED] if coils["num"] else []
            raise ValueError(
                f"data.out_of_distribution={name!r} is not accepted with data.kind={kind!r} and "
                f"data.coils.num={coils['num']}: of {accepted} are expected"
            )
    return {
        name: _measurable(name, part, images["unit"], sampling, coils, shifts)
        for name, part in raw.items()
    }


def _measurable(
    name: str,
    images: _Images,
    unit: Any,
    settings: Mapping[str, Any],
    coils: Mapping[str, Any],
    shifts: Mapping[str, Any],
) -> Source:
    """Return images in their unit, with maps and masks, those of a shifted set with theirs."""
    chosen = dict(settings)
    if name in ("mask", "acceleration"):
        chosen[name] = shifts[name]
    mask_of = masks(
        chosen["mask"],
        chosen["acceleration"],
        seed=_mask_seed(name, chosen["draw"], chosen["seed"]),
        draw=chosen["draw"],
        file_names=images.files,
        **_mask_options(chosen),
    )
    scaled = images.source if name == "block" else Scaled(images.source, unit)
    source: Source = Masked(_through_coils(name, scaled, coils), mask_of)
    return Noisy(source, shifts["noise_std"]) if name == "noise" else source


def check_coils(kind: str, coils: Mapping[str, Any]) -> None:
    """Raise a ValueError unless images of a kind can be measured so."""
    if coils["num"]:
        checked_count("data.coils.num", coils["num"])
    accepted = ("simulated", "espirit") if kind == "fastmri" else ("simulated",)
    if coils["maps"] not in accepted:
        raise ValueError(
            f"data.coils.maps={coils['maps']!r} is not accepted with data.kind={kind!r}: "
            f"one of {accepted} is expected"
        )


def _through_coils(name: str, source: Source, settings: Mapping[str, Any]) -> Source:
    """Give images simulated maps, unless they are of one coil or have maps of their own."""
    other = name == "maps"
    recorded = name == RECORDED or (settings["maps"] == "espirit" and not other)
    if not settings["num"] or recorded:
        return source
    # One set of maps for all is that of the test set, from which `maps` differs.
    part = 2
    if other:
        part = 3
    elif settings["vary"] == "example" and name in ("train", "validation"):
        part = ("train", "validation").index(name)
    seed = (settings["seed"], part)
    return MultiCoil(source, simulated_coils(settings["num"], seed=seed, vary=settings["vary"]))


def _recorded(folder: str, images: Mapping[str, Any], settings: Mapping[str, Any]) -> _Images:
    if not settings["file"]:
        raise ValueError("data.coils.file is empty: a .npz file of recorded k-space is expected")
    (path,) = _files(folder, settings["file"])
    source = RecordedSlices(
        path,
        size=_square_side(images, "the set 'recorded'"),
        num_calibration=settings["num_calibration"],
    )
    _check_num_coils(path, source.num_coils, settings)
    return _Images(source, (path.name,))


def _check_num_coils(path: Path, found: int, settings: Mapping[str, Any]) -> None:
    if found != settings["num"]:
        raise ValueError(
            f"data.coils.num={settings['num']} is not accepted: {path} has {found} coils"
        )


def _mask_seed(name: str, draw: str, seed: int) -> int | tuple[int, int]:
    """Return a seed of the set's own where every example has its mask; test sets share theirs."""
    if draw != "example":
        return seed
    return seed, ("train", "validation").index(name) if name in ("train", "validation") else 2


def _mask_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the named mask takes, of those that a config can set."""
    name = settings["mask"]
    if name not in MASKS:
        raise ValueError(
            f"data.sampling.mask={name!r} is not accepted: one of {sorted(MASKS)} is expected"
        )
    taken = inspect.signature(MASKS[name]).parameters
    options = {
        option: settings[option]
        for option in ("axis", "adjust_spacing", "power", "slope", "angles")
        if option in taken
    }
    for option in ("num_calibration", "center_fraction"):
        if settings[option] < 0:  # the mask's own default
            continue
        if option not in taken:
            raise ValueError(
                f"data.sampling.{option}={settings[option]} is not accepted: "
                f"the mask {name!r} has no such option"
            )
        options[option] = settings[option]
    return options


def _phantoms(
    seed: int, counts: Mapping[str, int], images: Mapping[str, Any]
) -> dict[str, _Images]:
    shape, phase = tuple(images["shape"]), images["phase"]
    return {
        name: _Images(Phantoms(count, len(counts) * seed + part, shape, phase=phase))
        for part, (name, count) in enumerate(counts.items())
    }


def _square_side(images: Mapping[str, Any], what: str) -> int:
    height, width = images["shape"]
    if height != width:
        raise ValueError(
            f"data.images.shape={tuple(images['shape'])} is not accepted with {what}: a square is "
            "expected"
        )
    return height


def _files(folder: str, pattern: str) -> list[Path]:
    if not folder:
        raise ValueError(f"data.folder is empty: the folder that has {pattern} is expected")
    found = sorted(Path(folder).glob(pattern))
    if not found:
        raise FileNotFoundError(f"{folder}: no file matches {pattern!r}")
    return found


def _slices(
    folder: str, counts: Mapping[str, int], images: Mapping[str, Any]
) -> dict[str, _Images]:
    load = partial(
        ComplexSlices,
        _files(folder, images["files"]),
        view=images["view"] or None,
        size=_square_side(images, "data.kind='slices'"),
    )
    names = ["train", "test"] + ["validation"] * bool(images["validation_subjects"])
    parts = {name: load(subjects=tuple(images[f"{name}_subjects"])) for name in names}
    refuse_shared_subjects({name: part.subjects for name, part in parts.items()})
    if "validation" in parts:
        found = {name: _Images(parts[name]) for name in ("train", "validation", "test")}
        return found | {"test": _first(found["test"], counts["test"])}
    return _split(_Images(parts["train"]), _Images(parts["test"]), counts)


def _other_slices(name: str, folder: str, images: Mapping[str, Any]) -> Source:
    size = _square_side(images, "data.kind='slices'")
    if name == ANATOMY:
        return ComplexSlices(_files(folder, images["anatomy_file"]), size=size)
    subjects = tuple(images["test_subjects"])
    return ComplexSlices(_files(folder, images["files"]), view=name, subjects=subjects, size=size)


def _split(whole: _Images, test: _Images, counts: Mapping[str, int]) -> dict[str, _Images]:
    """Hold the last training images out to validate on; they may be of a subject trained on."""
    cut = len(whole.source) - counts["validation"]
    if cut < 1:
        raise ValueError(
            f"data.num_validation={counts['validation']} is not accepted: there are "
            f"{len(whole.source)} training images, and at least one must be left to train on"
        )
    return {
        "train": _Images(Part(whole.source, 0, cut), whole.files),
        "validation": _Images(Part(whole.source, cut, len(whole.source)), whole.files),
        "test": _first(test, counts["test"]),
    }


def _first(images: _Images, count: int) -> _Images:
    return images._replace(source=Part(images.source, 0, min(len(images.source), count)))


def _fastmri(
    folder: str,
    counts: Mapping[str, int],
    images: Mapping[str, Any],
    coils: Mapping[str, Any],
    on_bad_file: Any,
    read_all: bool,
    on_skip: OnSkip,
) -> dict[str, _Images]:
    if not folder:
        raise ValueError("data.folder is empty: the folder that has fastMRI's files is expected")

    espirit = coils["num"] > 0 and coils["maps"] == "espirit"

    def volumes(name: str) -> tuple[FastMRIVolume, ...]:
        if on_bad_file not in ("error", "skip"):
            raise ValueError(
                f"data.on_bad_file={on_bad_file!r} is not accepted: 'error' or 'skip' is expected"
            )
        path = Path(folder) / images[name]
        index = index_fastmri(path, on_bad_file=on_bad_file, read_all=read_all)
        for skipped in index.skipped:
            on_skip(skipped)
        return select_volumes(
            index.volumes,
            acquisition=images["acquisition"] or None,
            num_coils=coils["num"] if espirit else None,
        )

    def sliced(chosen: Sequence[FastMRIVolume]) -> _Images:
        source = FastMRISlices(
            chosen,
            crop=tuple(images["shape"]),
            num_calibration=coils["num_calibration"] if espirit else None,
            maps_folder=coils["folder"] or None if espirit else None,
            middle=images["middle"] or None,
        )
        return _Images(source, tuple(volume.path.name for volume in chosen))

    train, test = volumes("train"), volumes("test")[: counts["test"]]
    if images["validation"]:
        parts = {"train": train, "validation": volumes("validation"), "test": test}
    else:
        train, held_out = _split_by_patient(train, counts["validation"])
        parts = {"train": train, "validation": held_out, "test": test}
    refuse_shared_subjects(
        {
            name: [volume.patient_id for volume in part if volume.patient_id is not None]
            for name, part in parts.items()
        }
    )
    made = {name: sliced(part) for name, part in parts.items()}
    if images["max_train_slices"]:
        most = checked_count("data.images.max_train_slices", images["max_train_slices"])
        made["train"] = _first(made["train"], most)
    return made


def _split_by_patient(
    volumes: Sequence[FastMRIVolume], count: int
) -> tuple[tuple[FastMRIVolume, ...], tuple[FastMRIVolume, ...]]:
    """Hold out the last volumes, and all others of their patients."""
    last = volumes[-count:]
    patients = {volume.patient_id for volume in last} - {None}
    held_out = tuple(v for v in volumes if v in last or v.patient_id in patients)
    kept = tuple(volume for volume in volumes if volume not in held_out)
    if not kept:
        raise ValueError(
            f"data.num_validation={count} is not accepted: with it none of {len(volumes)} volumes "
            "is left to train on; of fastMRI's files it counts volumes, and takes whole patients"
        )
    return kept, held_out


def _nifti(folder: str, counts: Mapping[str, int], images: Mapping[str, Any]) -> dict[str, _Images]:
    size = _square_side(images, "data.kind='nifti'")
    load = partial(NiftiSlices, axis=images["axis"], size=size, middle=images["middle"] or None)
    (train,), (test,) = (_files(folder, images[name]) for name in ("train", "test"))
    if train == test:
        raise ValueError(f"data.images.train and data.images.test are the same file: {train}")
    return _split(_Images(load(train)), _Images(load(test)), counts)
