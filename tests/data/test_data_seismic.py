import dataclasses

import numpy as np
import pytest

from jitter_jax import data

SHAPE = (352, 352)
UNFAULTED = data.Structure(faults=(0, 0))


def section(seed=0, shape=SHAPE, **options):
    return data.reflectivity_section(np.random.default_rng(seed), shape, **options)


def layer_rows(trace):
    return np.flatnonzero(trace)


@pytest.mark.parametrize(
    "shape", [(352, 352), (352, 200), (33, 17), (16, 352), (8, 1), (1, 9), (1, 1)]
)
@pytest.mark.parametrize("seed", range(3))
def test_shape_dtype_and_largest_value(shape, seed):
    drawn = section(seed, shape)
    assert drawn.shape == shape
    assert drawn.dtype == np.float32
    assert np.abs(drawn).max() == 1


def test_examples_depend_on_seed_and_index_only():
    source = data.GeneratedSections(5, 7, (40, 30))
    again = data.GeneratedSections(50, 7, (40, 30))
    backwards = [again[i]["signal"] for i in reversed(range(5))][::-1]
    for i in range(5):
        assert source[i]["signal"].shape == (40, 30, 1)
        np.testing.assert_array_equal(source[i]["signal"], backwards[i])


def test_different_examples_and_seeds_differ():
    drawn = [
        data.GeneratedSections(4, seed, (40, 30))[i]["signal"] for seed in (0, 1) for i in range(4)
    ]
    for i, one in enumerate(drawn):
        assert not any(np.array_equal(one, other) for other in drawn[:i])


def test_numpys_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - its absence is what is tested
    data.LayeredSource(data.GeneratedSections(1, 0, (40, 30)), 0.1, 0)[0]
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_one_sample_in_mean_spacing_is_a_layer_and_both_signs_occur():
    drawn = np.stack([section(seed, mean_spacing=10.0) for seed in range(12)])
    # About 400 layers whose gaps vary by 70 %: three standard errors are 11 %.
    assert np.mean(drawn != 0) == pytest.approx(0.1, rel=0.12)
    assert np.mean(drawn > 0) / np.mean(drawn != 0) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("min_spacing", [1, 2, 3, 8])
def test_layers_keep_their_distance(min_spacing):
    for seed in range(5):
        drawn = section(
            seed, (352, 3), min_spacing=min_spacing, mean_spacing=12.0, structure=data.FLAT
        )
        assert np.diff(layer_rows(drawn[:, 0])).min() >= min_spacing


def test_the_weakest_layer_is_as_asked():
    drawn = section(0, (4000, 2), smallest=0.2, structure=data.FLAT)
    magnitudes = np.abs(drawn[drawn != 0])
    assert magnitudes.min() == pytest.approx(0.2, rel=0.05)
    assert np.median(magnitudes) == pytest.approx(np.sqrt(0.2), rel=0.15)


def test_flat_layers_are_the_same_in_every_trace():
    drawn = section(3, structure=data.FLAT)
    np.testing.assert_array_equal(drawn, np.broadcast_to(drawn[:, :1], SHAPE))


def test_layers_are_continuous_from_trace_to_trace():
    for seed in range(5):
        drawn = section(seed, structure=UNFAULTED)
        # The largest slope is below one sample per trace: a layer continues in one of three rows.
        neighbours = np.stack([drawn[:-2, :-1], drawn[1:-1, :-1], drawn[2:, :-1]])
        here = drawn[1:-1, 1:]
        nearest = np.abs(neighbours - here).min(axis=0)
        layer = here != 0
        assert (nearest[layer] < 0.03 * np.abs(here[layer])).all()


def test_a_dipping_layer_is_a_line_to_the_nearest_sample():
    dip = data.Structure(dip=0.3, fold=0, thickening=0, faults=(0, 0), amplitude_change=0)
    slopes = [slope_of_layers(section(seed, (200, 101), structure=dip)) for seed in range(8)]
    assert 0.1 < max(slopes) <= 0.3
    assert -0.3 <= min(slopes) < -0.1


def slope_of_layers(drawn):
    slopes = []
    for value in np.unique(drawn[drawn != 0]):
        columns, rows = np.nonzero((drawn == value).T)
        if columns.size == drawn.shape[1]:
            slope, start = np.polyfit(columns, rows, 1)
            # Half a sample of rounding, and as much again for what rounding does to the fit.
            assert np.abs(rows - slope * columns - start).max() < 1
            slopes.append(slope)
    assert np.ptp(slopes) < 0.02
    return slopes[0]


@pytest.mark.parametrize("throw", [1, 7, 20])
def test_an_upright_fault_lowers_one_side_by_its_throw(throw):
    upright = dataclasses.replace(data.FLAT, faults=(1, 1), throw=(throw, throw), fault_lean=0)
    for seed in range(3):
        drawn = section(seed, (150, 80), structure=upright)
        steps = np.flatnonzero((np.diff(drawn, axis=1) != 0).any(axis=0))
        assert steps.size == 1
        assert 0.1 * 80 - 1 <= steps[0] <= 0.9 * 80
        standing, lowered = drawn[:, steps[0]], drawn[:, steps[0] + 1]
        np.testing.assert_array_equal(lowered[throw:], standing[:-throw])


def test_the_block_on_a_leaning_fault_slides_down():
    leaning = dataclasses.replace(data.FLAT, faults=(1, 1), throw=(9, 9), fault_lean=0.5)
    sides = set()
    for seed in range(8):
        drawn = section(seed, (61, 161), structure=leaning)
        # Only across the plane do neighbours differ.
        rows, columns = np.nonzero(np.diff(drawn, axis=1))
        slope = np.polyfit(rows, columns, 1)[0]
        left, right = drawn[:, 0], drawn[:, -1]
        lowered, standing = (right, left) if slope > 0 else (left, right)
        np.testing.assert_array_equal(lowered[9:], standing[:-9])
        sides.add(slope > 0)
    assert sides == {True, False}


def test_thickening_changes_the_distance_of_layers():
    thick = dataclasses.replace(data.FLAT, thickening=0.5)
    drawn = section(2, (300, 201), mean_spacing=20.0, min_spacing=15.0, structure=thick)
    spacing = [np.diff(layer_rows(trace)).mean() for trace in drawn.T]
    ratio = spacing[0] / spacing[-1]
    assert max(ratio, 1 / ratio) > 1.1
    assert spacing[100] == pytest.approx(20.0, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (0, 4)}, "shape"),
        ({"shape": (4,)}, "shape="),
        ({"shape": 4}, "shape="),
        ({"shape": (4.5, 4)}, "shape"),
        ({"min_spacing": 0.5}, "min_spacing=0.5"),
        ({"min_spacing": 12, "mean_spacing": 12}, "mean_spacing=12"),
        ({"mean_spacing": np.nan}, "mean_spacing=nan"),
        ({"smallest": 0.0}, "smallest=0.0"),
        ({"smallest": 1.1}, "smallest=1.1"),
        ({"num_sections": 0}, "num_sections=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_bad_options(options, message):
    arguments = {"num_sections": 1, "seed": 0, "shape": (8, 8), **options}
    with pytest.raises(ValueError, match=message):
        data.GeneratedSections(**arguments)


@pytest.mark.parametrize(
    "options",
    [
        {"dip": -1},
        {"fold": np.nan},
        {"fault_lean": np.inf},
        {"thickening": 1.0},
        {"amplitude_change": -0.1},
        {"faults": (2, 1)},
        {"faults": (0.5, 1)},
        {"faults": (1,)},
        {"throw": (-1, 1)},
    ],
)
def test_bad_structure(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}=.*expected"):
        data.Structure(**options)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("key", ["signal", "measurement"])
def test_patches_on_a_grid(key, normalise):
    whole = np.arange(1.0, 71.0).reshape(10, 7)
    patches = data.PatchSource(whole, (4, 3), key=key, stride=(3, 2), normalise=normalise)
    assert len(patches) == 3 * 3
    for i, (row, column) in enumerate((t, x) for t in (0, 3, 6) for x in (0, 2, 4)):
        window = whole[row : row + 4, column : column + 3]
        expected = np.float32(window / window.max() if normalise else window)
        assert list(patches[i]) == [key]
        np.testing.assert_array_equal(patches[i][key][..., 0], expected)


def test_patches_at_random_are_windows_and_repeat():
    whole = np.arange(10 * 70).reshape(10, 70)
    patches = data.PatchSource(whole, (4, 3), num_patches=40, seed=5)
    again = data.PatchSource(whole, (4, 3), num_patches=40, seed=5)
    corners = set()
    for i in range(40):
        window = patches[i]["signal"]
        assert window.shape == (4, 3, 1) and window.dtype == np.float32
        row, column = divmod(int(window[0, 0, 0]), 70)
        np.testing.assert_array_equal(window[..., 0], whole[row : row + 4, column : column + 3])
        np.testing.assert_array_equal(window, again[i]["signal"])
        corners.add((row, column))
    assert len(corners) > 30
    assert {row for row, _ in corners} == set(range(7))


def test_a_muted_patch_stays_zero():
    patches = data.PatchSource(np.zeros((4, 4)), (2, 2), stride=(2, 2), normalise=True)
    np.testing.assert_array_equal(patches[0]["signal"], 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one"),
        ({"num_patches": 1, "stride": (1, 1)}, "exactly one"),
        ({"num_patches": 0}, "num_patches=0"),
        ({"num_patches": 1, "seed": -1}, "seed=-1"),
        ({"stride": (0, 1)}, "stride"),
        ({"stride": (1, 1), "shape": (5, 2)}, r"shape=\(5, 2\)"),
        ({"stride": (1, 1), "section": np.ones((4, 4, 1))}, "section of shape"),
        ({"stride": (1, 1), "section": np.full((4, 4), np.nan)}, "NaN"),
        ({"stride": (1, 1), "key": "truth"}, "key='truth'"),
    ],
)
def test_bad_patches(options, message):
    arguments = {"section": np.ones((4, 4)), "shape": (2, 2), **options}
    with pytest.raises(ValueError, match=message):
        data.PatchSource(**arguments)
