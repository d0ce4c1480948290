"""Sources of greyscale pictures by name: what the `data` part of a config asks for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jitter_jax.data.image_sources import OnSkip
from jitter_jax.data.images import Noisy
from jitter_jax.data.part import Part
from jitter_jax.data.pictures import Pictures
from jitter_jax.data.pipeline import Source
from jitter_jax.data.textures import Textures

KINDS = ("textures", "pictures")
_NOISE = "noise"


def make_picture_sources(
    kind: str,
    *,
    seed: int,
    counts: Mapping[str, int],
    out_of_distribution: Sequence[str],
    folder: str,
    on_bad_file: Any,
    images: Mapping[str, Any],
    shifts: Mapping[str, Any],
    patches: bool,
    on_skip: OnSkip,
) -> dict[str, Source]:
    """Return the sources of one problem of real pictures in `[0, 1]`.

    Args:
        kind: `"textures"` (generated) or `"pictures"` (files).
        seed: of textures; the sets draw from different seeds.
        counts: pictures to train, validate and test on. Of files, all are trained on but for the
            last `counts["validation"]`, unless there are others to validate on, and at most
            `counts["test"]` of a set are tested on.
        out_of_distribution: names of more test sets: `"noise"`, the test pictures measured with
            another noise, and of files the names of other folders or archives in the folder.
        folder: where the files are.
        on_bad_file: `"error"` or `"skip"`, see `Pictures`.
        images: `shape` of a picture, cut out of the middle of larger ones, and the names of what to
            `train`, `validation` and `test` on in the folder: a folder, a file, or an archive.
        shifts: `noise_std` of the set `"noise"`.
        patches: whether the training step cuts patches out of the training pictures, which then
            are not cut here and must be of one size.
        on_skip: called with every file that is skipped.

    Returns:
        `"train"`, `"validation"`, `"test"`, and each out-of-distribution set by its name.

    Raises:
        FileNotFoundError: a file that is asked for is not there.
        ValueError: a name is unknown, or an argument outside its range.
    """
    shape = tuple(images["shape"])

    def read(name: str, crop: tuple[int, int] | None) -> Source:
        if not folder:
            raise ValueError(f"data.folder is empty: the folder that has {name} is expected")
        pictures = Pictures(Path(folder) / name, crop=crop, on_bad_file=on_bad_file)
        for skipped in pictures.skipped:
            on_skip(skipped)
        return pictures

    sources: dict[str, Source]
    if kind == "textures":
        sources = {
            name: Textures(count, len(counts) * seed + part, shape)
            for part, (name, count) in enumerate(counts.items())
        }
    else:
        train = read(images["train"], None if patches else shape)
        if images["validation"]:
            sources = {"train": train, "validation": read(images["validation"], shape)}
        else:
            sources = _held_out(train, counts["validation"])
        sources["test"] = _first(read(images["test"], shape), counts["test"])
    for name in out_of_distribution:
        if name == _NOISE:
            sources[name] = Noisy(sources["test"], shifts["noise_std"])
        elif kind == "pictures" and (Path(folder) / name).exists():
            sources[name] = _first(read(name, shape), counts["test"])
        else:
            more = f" or the name of a folder or a file in {folder}" if kind == "pictures" else ""
            raise ValueError(
                f"data.out_of_distribution={name!r} is not accepted with data.kind={kind!r}: "
                f"{_NOISE!r}{more} is expected"
            )
    return sources


def _held_out(whole: Source, count: int) -> dict[str, Source]:
    cut = len(whole) - count
    if cut < 1:
        raise ValueError(
            f"data.num_validation={count} is not accepted: there are {len(whole)} training "
            "pictures, and at least one must be left to train on"
        )
    return {"train": Part(whole, 0, cut), "validation": Part(whole, cut, len(whole))}


def _first(source: Source, count: int) -> Source:
    return Part(source, 0, min(len(source), count))
