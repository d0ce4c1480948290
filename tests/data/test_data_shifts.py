import os
from pathlib import Path

import numpy as np
import pytest

from jitter_jax.data.phantoms import Phantoms, object_region
from jitter_jax.data.shifts import (
    Blocks,
    Contrast,
    Lesions,
    add_lesion,
    change_contrast,
    repo_block,
)

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
GOLDEN = [
    folder / "sgdj_metrics.npz"
    for folder in (
        ROOT / "tests" / "golden",
        Path(os.environ.get("JITTER_JAX_GOLDEN", SHARED / "golden")),
    )
]
REAL = Path(os.environ.get("JITTER_JAX_DATA") or SHARED / "data") / "mri"
ROUNDING = 1e-6  # float32, magnitudes up to 1
SHAPES = [(64, 64), (65, 63), (48, 96), (97, 40), (16, 16)]


def heads(shape=(64, 64), num=24, seed=0):
    return Phantoms(num, seed, shape)


def pairs(source, changed):
    return [(source[i]["signal"], changed[i]["signal"]) for i in range(len(source))]


def assert_phase_kept(before, after):
    assert (after[before == 0] == 0).all()
    # Re(conj(x) x') = |x| |x'| only where the directions are the same.
    along = (before.conj() * after).real
    np.testing.assert_allclose(along, np.abs(before) * np.abs(after), atol=ROUNDING)
    across = (before.conj() * after).imag
    np.testing.assert_allclose(across, 0, atol=ROUNDING)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_lesion_changes_and_it_is_inside_the_object(shape):
    source = heads(shape, 8)
    lesions = Lesions(source, 3)
    assert len(lesions) == len(source)
    for i in range(len(source)):
        before, item = source[i]["signal"], lesions[i]
        after, mask = item["signal"], item["lesion"]
        assert sorted(item) == ["lesion", "signal"]
        assert after.shape == before.shape and after.dtype == np.complex64
        assert mask.shape == before.shape and mask.dtype == np.float32
        assert mask.min() == 0 and 0.5 < mask.max() <= 1
        assert not mask[~object_region(before)].any()
        np.testing.assert_array_equal(after[mask == 0], before[mask == 0])
        assert np.abs(after - before)[mask > 0.5].max() > 0.03
        assert np.abs(after).max() <= 1 + ROUNDING
        assert_phase_kept(before, after)


@pytest.mark.parametrize("contrast", [(0.2, 0.2), (0.4, 0.8), (1.0, 1.0)])
def test_a_lesion_has_one_level_as_far_from_the_tissue_as_asked(contrast):
    source = heads((96, 96))
    lesions = Lesions(source, 1, contrast=contrast, size=(0.06, 0.1))
    bright = 0
    for i, (before, after) in enumerate(pairs(source, lesions)):
        mask = lesions[i]["lesion"]
        levels = np.abs(after[mask == 1])
        assert levels.size > 50
        np.testing.assert_allclose(levels, levels[0], atol=ROUNDING)
        mean = np.average(np.abs(before), weights=mask)
        change = levels[0] / mean - 1
        if levels[0] < 1 - ROUNDING:  # nothing is brighter than the brightest tissue
            assert contrast[0] - 1e-5 <= abs(change) <= contrast[1] + 1e-5
        bright += change > 0
    # Of 24 fair draws, fewer than 4 or more than 20 come once in 3000 times.
    assert 4 <= bright <= 20


@pytest.mark.parametrize("size", [(0.04, 0.04), (0.1, 0.1), (0.03, 0.08)])
def test_lesions_are_as_large_as_asked_and_not_round(size):
    source = heads((128, 128), 16)
    lesions = Lesions(source, 2, size=size)
    lengths = []
    for i in range(len(source)):
        mask = lesions[i]["lesion"][..., 0]
        radius = np.sqrt(mask.sum() / np.pi) / 128
        # The waves add up to 3 % to the area, and the soft edge some pixels.
        assert 0.9 * size[0] < radius < 1.15 * size[1]
        rows, columns = np.nonzero(mask > 0.5)
        spread = np.linalg.eigvalsh(np.cov([rows, columns]))
        lengths.append(np.sqrt(spread[1] / spread[0]))
    assert max(lengths) > 1.3 and min(lengths) < 1.25


def test_lesions_have_soft_edges():
    mask = Lesions(heads((128, 128), 1), 0, size=(0.08, 0.08))[0]["lesion"][..., 0]
    assert np.mean((mask > 0.1) & (mask < 0.9)) > 0.002
    for axis in (0, 1):
        assert np.abs(np.diff(mask, axis=axis)).max() < 0.7


def test_places_differ_and_are_tissue():
    source = heads(num=30)
    lesions = Lesions(source, 0)
    centres, tissue = [], []
    for i in range(len(source)):
        mask = lesions[i]["lesion"][..., 0]
        centres.append(
            np.average(np.indices(mask.shape), axis=(1, 2), weights=np.tile(mask, (1, 1)))
        )
        magnitude = np.abs(source[i]["signal"][..., 0])[mask > 0.5]
        tissue.append(np.mean((magnitude > 0.1) & (magnitude < 0.6)))
    assert (np.ptp(centres, axis=0) > 15).all()
    assert np.min(tissue) > 0.7 and np.mean(tissue) > 0.97


@pytest.mark.parametrize("make", [Lesions, Contrast])
def test_a_changed_source_repeats_and_its_seed_matters(make):
    source = heads(num=4)
    one, again, other = ([make(source, seed)[i]["signal"] for i in range(4)] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    for a, b in zip(one, other, strict=True):
        assert not np.array_equal(a, b)


def test_examples_do_not_share_their_lesion():
    image = heads(num=1)[0]["signal"]
    masks = [
        item["lesion"] for item in map(Lesions([{"signal": image}] * 6, 0).__getitem__, range(6))
    ]
    for i, mask in enumerate(masks):
        assert not any(np.array_equal(mask, other) for other in masks[:i])


@pytest.mark.parametrize("make", [Lesions, Contrast])
def test_the_source_keeps_its_arrays_and_its_other_keys_pass(make):
    image = heads(num=1)[0]["signal"]
    kept, subject = image.copy(), np.asarray(6)
    image.flags.writeable = False
    item = make([{"signal": image, "subject": subject}], 0)[0]
    np.testing.assert_array_equal(image, kept)
    assert item["subject"] is subject
    assert not np.array_equal(item["signal"], image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_other_number_types_are_kept(dtype):
    image = (heads(num=1)[0]["signal"][..., 0]).real.clip(0).astype(dtype)
    changed, mask = add_lesion(np.random.default_rng(0), image)
    assert changed.dtype == dtype and changed.shape == mask.shape == image.shape
    assert change_contrast(np.random.default_rng(0), image).dtype == dtype


@pytest.mark.parametrize(
    "image",
    [
        np.pad(np.ones((12, 12)), 10),  # all as bright as the peak
        np.pad(np.full((3, 3), 0.2), 20),  # smaller than the lesion
        np.full((20, 24), 0.4),  # no background
    ],
)
def test_a_lesion_stays_in_objects_that_have_no_good_place(image):
    for seed in range(10):
        changed, mask = add_lesion(np.random.default_rng(seed), image, size=(0.2, 0.2))
        assert np.isfinite(changed).all()
        assert np.abs(changed).max() <= image.max() + ROUNDING
        assert mask.any() and not mask[image == 0].any()


def test_a_lesion_in_a_real_slice():
    path = REAL / "brain_complex_s1.npz"
    if not path.exists():
        pytest.skip(f"no real slices at {path}")
    with np.load(path, allow_pickle=False) as archive:
        images = archive["image"][::4, ..., None]
    lesions = Lesions([{"signal": image} for image in images], 0)
    for i, before in enumerate(images):
        after, mask = lesions[i]["signal"], lesions[i]["lesion"]
        np.testing.assert_array_equal(after[mask == 0], before[mask == 0])
        assert_phase_kept(before, after)
        whole = mask == 1
        change = np.abs(after[whole]).mean() / np.abs(before[whole]).mean() - 1
        assert 0.2 < abs(change) < 1


def test_the_contrast_map_increases_and_is_not_the_identity():
    t = np.linspace(0, 1, 301)
    for seed in range(60):
        mapped = change_contrast(np.random.default_rng(seed), t)
        assert mapped[0] == 0 and mapped[-1] == pytest.approx(1, abs=1e-12)
        slopes = np.diff(mapped) * 300
        # s = 4 bounds the slope within 1/16 and 16, since the mean slope is 1.
        assert 1 / 16 < slopes.min() < slopes.max() < 16
        assert slopes.max() / slopes.min() > 2
        assert np.abs(np.diff(slopes)).max() < 0.2  # no kinks
        assert np.abs(mapped - t).max() > 0.03


@pytest.mark.parametrize(("steepness", "ratio"), [((1.5, 1.5), 1.5**2), ((6, 6), 6**2)])
def test_steepness_bounds_the_ratio_of_the_slopes(steepness, ratio):
    t = np.linspace(0, 1, 3001)
    ratios = []
    for seed in range(20):
        mapped = change_contrast(np.random.default_rng(seed), t, steepness=steepness)
        slopes = np.diff(mapped)
        ratios.append(slopes.max() / slopes.min())
    # One knot reaches log s or -log s; as the sum is 0, another is at a third of it or more.
    assert max(ratios) <= ratio * (1 + 1e-6)
    assert min(ratios) >= 0.99 * ratio ** (2 / 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_another_contrast_keeps_phase_order_zero_and_peak(shape):
    source = heads(shape, 4)
    for before, after in pairs(source, Contrast(source, 2)):
        assert after.shape == before.shape and after.dtype == np.complex64
        assert_phase_kept(before, after)
        old, new = np.abs(before).ravel(), np.abs(after).ravel()
        assert new.max() == pytest.approx(1, abs=ROUNDING)
        assert (np.diff(new[np.argsort(old)]) > -ROUNDING).all()
        assert np.sqrt(np.mean((new - old)[old > 0] ** 2)) > 0.02


def test_the_unit_of_an_image_does_not_matter_to_its_contrast():
    image = heads(num=1)[0]["signal"]
    one, large = (change_contrast(np.random.default_rng(0), a * image) for a in (1, 1000))
    np.testing.assert_allclose(large, 1000 * one, rtol=1e-5, atol=1e-3)
    assert not change_contrast(np.random.default_rng(0), 0 * image).any()


def golden(case):
    for path in GOLDEN:
        if path.exists():
            with np.load(path, allow_pickle=False) as archive:
                if f"detail/{case}/X" in archive:
                    parts = (archive[f"detail/{case}/{name}"] for name in ("X", "out"))
                    return [x[:, 0] + 1j * x[:, 1] for x in parts]
    pytest.skip(f"no golden file with detail/{case}")


@pytest.mark.parametrize("case", ["mri", "mri_clipped"])
def test_the_block_is_that_of_the_public_code(case):
    for image, expected in zip(*golden(case), strict=True):
        np.testing.assert_array_equal(repo_block(image), expected)
        np.testing.assert_array_equal(
            Blocks([{"signal": image[..., None]}])[0]["signal"][..., 0], expected
        )


def test_the_block_raises_both_parts_of_what_is_below_it():
    image = np.full((152, 160, 1), 0.9 - 0.5j, np.complex64)
    changed = repo_block(image)
    expected = image.copy()
    expected[150, 150:] = np.complex64(0.9 + 0.7j)
    np.testing.assert_array_equal(changed, expected)
    assert (image == np.complex64(0.9 - 0.5j)).all()


SIGNAL = np.pad(np.ones((8, 8)), 6)[..., None]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Lesions([], -1), "seed=-1"),
        (lambda: Lesions([], 0, contrast=(0, 0.5)), r"contrast=\(0, 0.5\).*0 < low <= high <= 1"),
        (lambda: Lesions([], 0, contrast=(0.5, 1.5)), "contrast="),
        (lambda: Lesions([], 0, contrast=(0.5, 0.4)), "contrast="),
        (lambda: Lesions([], 0, contrast=0.5), "contrast=0.5"),
        (lambda: Lesions([], 0, size=(0.1, 0.3)), r"size=\(0.1, 0.3\).*<= 0.2"),
        (lambda: Lesions([], 0, size=(np.nan, 0.1)), "size="),
        (lambda: Contrast([], -1), "seed=-1"),
        (lambda: Contrast([], 0, steepness=(1, 2)), r"steepness=\(1, 2\).*1 < low <= high and fin"),
        (lambda: Contrast([], 0, steepness=(2, np.inf)), "steepness="),
        (lambda: Contrast([], 0, steepness=(2, 3, 4)), "steepness="),
        (lambda: add_lesion(np.random.default_rng(0), np.zeros((20, 20))), "zero everywhere"),
        (lambda: add_lesion(np.random.default_rng(0), np.ones(9)), r"shape \(9,\)"),
        (lambda: repo_block(np.zeros((150, 320), complex)), "more than 150 rows"),
        (lambda: repo_block(np.zeros((320, 150), complex)), "and 150 columns"),
        (lambda: repo_block(np.zeros((320, 320))), "dtype float64; complex"),
        (
            lambda: Lesions([{"measurement": SIGNAL}], 0)[0],
            r"\['measurement'\]; accepted: 'signal'",
        ),
        (lambda: Contrast([{"signal": SIGNAL, "measurement": SIGNAL}], 0)[0], "'signal' without"),
        (lambda: Blocks([{"signal": SIGNAL, "measurement": SIGNAL}])[0], "'signal' without"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("make", [Lesions, Contrast, lambda source, seed: Blocks(source)])
def test_examples_end(make):
    changed = make([{"signal": SIGNAL}], 0)
    with pytest.raises(IndexError, match="index=1"):
        changed[1]
