"""Every mask: what it keeps, what it reports, what it refuses, and the masks of two peers."""

import inspect
import math
import os
import random
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import equal

from jitter_jax import sampling
from jitter_jax.sampling import MASKS, make_mask

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("JITTER_JAX_GOLDEN", HERE.parents[1] / "shared" / "golden"))
GOLDEN = [folder / "sgdj_mask.npz" for folder in (HERE / "golden", SHARED)]

LINES = ["random", "equispaced", "magic", "gaussian", "variable_density"]
POINTS = ["poisson_disc", "radial"]
FIXED = ["vdrs_repo"]  # lines, without options for the calibration
# name: (mask, its options)
VARIANTS = {
    **{name: (name, {}) for name in MASKS},
    "equispaced, not adjusted": ("equispaced", {"adjust_spacing": False}),
    "magic, not adjusted": ("magic", {"adjust_spacing": False}),
    "uniform density": ("variable_density", {"power": 0}),
    "uniform disc": ("poisson_disc", {"slope": 0}),
    "uniform angles": ("radial", {"angles": "uniform"}),
}
SHAPES = [(32, 24), (33, 25), (24, 33), (64, 64)]
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def made(variant, shape, acceleration, *, seed=3, **options):
    name, own = VARIANTS[variant]
    return make_mask(name, shape, acceleration, seed=seed, **own, **options)


def kept_lines(mask):
    """Returns the lines of a mask of columns, all of which are whole."""
    equal(mask.array, np.broadcast_to(mask.array[:1], mask.array.shape))
    return mask.array[0]


def middle(length, number):
    start = (length - number + 1) // 2
    assert start <= length // 2 < start + number
    return slice(start, start + number)


@every_variant
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("acceleration", [2, 4, np.float32(6)])
def test_a_mask_reports_what_was_asked_and_what_it_has(variant, shape, acceleration):
    mask = made(variant, shape, acceleration)
    assert mask.array.shape == shape and mask.array.dtype == bool
    assert mask.array.flags.writeable and mask.array.flags.c_contiguous
    assert type(mask.requested) is float and mask.requested == acceleration
    assert mask.acceleration == mask.array.size / mask.array.sum() > 1


@every_variant
@pytest.mark.parametrize("shape", [(1, 1), (5, 4)])
def test_acceleration_one_keeps_everything(variant, shape):
    mask = made(variant, shape, 1)
    assert mask.array.all() and mask.requested == mask.acceleration == 1


@every_variant
def test_the_smallest_grids(variant):
    for shape in [(1, 2), (2, 2), (3, 2), (2, 3), (3, 3)]:
        # A row of two points is one spoke.
        acceleration = 1.5 if VARIANTS[variant][0] == "radial" and shape != (1, 2) else 1
        assert made(variant, shape, acceleration).array.any()


# mask: number of lines that n lines, c of them calibration, keep at the acceleration a, and how far
# off the mask may be.
COUNTS = {
    # Overlap of the two sets is made up for on average, and places at the ends fall out.
    "equispaced": (lambda n, a, c: n / a, 2),
    # The distance is whole: with s lines between, (n - c) / s are kept.
    "magic": (lambda n, a, c: c + (n - c) / round(n / (round(n / a) - c)), 2),
    "gaussian": (lambda n, a, c: math.floor(n / a) + 1, 0),
    "variable_density": (lambda n, a, c: round(n / a), 0),
    "uniform density": (lambda n, a, c: round(n / a), 0),
    "equispaced, not adjusted": (lambda n, a, c: c + (n - c) / a, 2),
    "magic, not adjusted": (lambda n, a, c: c + (n - c) / a, 2),
}


@pytest.mark.parametrize("variant", COUNTS)
@pytest.mark.parametrize("num_lines", [96, 101, 320])
@pytest.mark.parametrize("acceleration", [2, 2.5, 4, 6.4, 8])
def test_number_of_lines(variant, num_lines, acceleration):
    if "not adjusted" in variant:
        acceleration = math.ceil(acceleration)
    expected, slack = COUNTS[variant]
    for seed in range(4):
        mask = made(variant, (3, num_lines), acceleration, seed=seed, num_calibration=8)
        assert abs(kept_lines(mask).sum() - expected(num_lines, acceleration, 8)) <= slack


def test_number_of_random_lines_on_average():
    counts = [
        kept_lines(sampling.random_lines((1, 96), 5.5, seed=seed, num_calibration=6)).sum()
        for seed in range(400)
    ]
    # Of 90 lines each is kept with a probability of 0.127, so a mask's count spreads by 3.2.
    assert abs(np.mean(counts) - 96 / 5.5) < 4 * 3.2 / np.sqrt(400)
    assert np.std(counts) == pytest.approx(3.2, rel=0.2)


@pytest.mark.parametrize("slope", [0, 0.5, 2, 6])
@pytest.mark.parametrize("acceleration", [1.3, 2, 4, 7.7, 20])
def test_number_of_poisson_disc_points_is_exact(slope, acceleration):
    mask = sampling.poisson_disc((48, 41), acceleration, seed=1, slope=slope)
    assert mask.array.sum() == round(48 * 41 / acceleration)


@pytest.mark.parametrize("angles", ["golden", "uniform"])
@pytest.mark.parametrize("acceleration", [1.02, 1.5, 2, 4, 7.7, 20])
def test_number_of_radial_points_is_within_half_a_spoke(angles, acceleration):
    mask = sampling.radial((48, 41), acceleration, seed=1, angles=angles, num_calibration=6)
    assert abs(mask.array.sum() - 48 * 41 / acceleration) <= 48 / 2


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize(("num_lines", "number"), [(64, 8), (64, 7), (65, 8), (65, 7), (64, 1)])
def test_central_lines_are_kept(name, num_lines, number):
    block = middle(num_lines, number)
    outside = np.ones(num_lines, bool)
    outside[block] = False
    lines = np.stack(
        [
            kept_lines(make_mask(name, (2, num_lines), 4, seed=seed, num_calibration=number))
            for seed in range(12)
        ]
    )
    assert lines[:, block].all()
    assert not lines[:, outside].all(axis=0).any()


@pytest.mark.parametrize("name", LINES)
def test_a_fraction_is_a_number_of_lines(name):
    # 65 * 0.1 = 6.5, which Python, and so fastMRI, rounds to the even 6.
    for fraction, number in [(0.1, 6), (0.04, 3), (0.001, 0)]:
        equal(
            make_mask(name, (2, 65), 4, seed=1, center_fraction=fraction),
            make_mask(name, (2, 65), 4, seed=1, num_calibration=number),
        )


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize(("acceleration", "fraction"), [(4, 0.08), (8, 0.04)])
def test_calibration_without_a_number_is_that_of_the_peer(name, acceleration, fraction):
    fraction = 0.04 if name == "gaussian" else fraction
    equal(
        make_mask(name, (2, 320), acceleration, seed=1),
        make_mask(name, (2, 320), acceleration, seed=1, center_fraction=fraction),
    )


@pytest.mark.parametrize(("num_lines", "acceleration"), [(320, 2), (368, 6), (33, 4)])
def test_lines_of_smugs_public_code(num_lines, acceleration):
    number = round(0.32 * num_lines / acceleration)
    start = (num_lines - number) // 2
    masks = [sampling.vdrs_lines_repo((2, num_lines), acceleration, seed=s) for s in range(20)]
    lines = np.stack([kept_lines(mask) for mask in masks])
    assert lines[:, start : start + number].all()
    assert (lines.sum(axis=1) == round(num_lines / acceleration)).all()
    # All other lines are as likely: those left of the centre by their share.
    others = lines[:, :start].sum() / (lines.sum() - 20 * number)
    assert abs(others - start / (num_lines - number)) < 0.1


@pytest.mark.parametrize("name", LINES)
def test_calibration_may_be_all_there_is(name):
    lines = kept_lines(make_mask(name, (2, 64), 4, seed=1, num_calibration=16))
    assert lines[middle(64, 16)].all()
    # The public code's Gaussian mask goes on until the acceleration is below the one asked for.
    assert lines.sum() == (17 if name == "gaussian" else lines.sum()) and lines.sum() < 64
    if name in ("random", "equispaced", "magic", "variable_density"):
        assert lines.sum() == 16


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("shape", [(40, 32), (33, 40), (35, 33)])
@pytest.mark.parametrize("side", [8, 7])
def test_the_central_square_is_kept(name, shape, side):
    block = tuple(middle(length, side) for length in shape)
    seeds = range(3)
    arrays = [make_mask(name, shape, 10, seed=s, num_calibration=side).array for s in seeds]
    assert all(array[block].all() for array in arrays)
    bare = [make_mask(name, shape, 10, seed=s).array for s in seeds]
    assert not all(array[block].all() for array in bare)


@every_variant
def test_one_seed_is_one_mask(variant):
    one, same, word, words = (made(variant, (40, 36), 3, seed=s) for s in (5, 5, (5,), [5, 6]))
    equal(one, same)
    different = {made(variant, (40, 36), 3, seed=seed).array.tobytes() for seed in range(12)}
    if variant.startswith(("equispaced", "magic")):
        assert len(different) >= 2  # no more than there are first lines
    else:
        # To NumPy's newer generator 5 and (5,) are the same seed.
        expected = 13 if variant == "vdrs_repo" else 14
        assert len({*different, *(mask.array.tobytes() for mask in (word, words))}) == expected


@every_variant
def test_global_generators_are_not_touched(variant):
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    made(variant, (40, 36), 3)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


@pytest.mark.parametrize("variant", [v for v, (name, _) in VARIANTS.items() if name in LINES])
@pytest.mark.parametrize("shape", [(31, 48), (48, 48)])
def test_rows_are_the_transpose_of_columns(variant, shape):
    columns = made(variant, shape, 4, axis=1)
    rows = made(variant, shape[::-1], 4, axis=0)
    equal(rows.array, columns.array.T)
    assert rows.acceleration == columns.acceleration
    equal(made(variant, shape, 4).array, columns.array)


def test_equispaced_lines_are_equispaced():
    mask = sampling.equispaced_lines((2, 90), 5, seed=0, num_calibration=0)
    assert set(np.diff(np.flatnonzero(kept_lines(mask)))) == {5}
    mask = sampling.equispaced_lines((2, 91), 4.4, seed=0, num_calibration=0)
    assert set(np.diff(np.flatnonzero(kept_lines(mask)))) == {4, 5}


@pytest.mark.parametrize("num_lines", [96, 97])
@pytest.mark.parametrize("seed", range(6))
def test_magic_lines_fall_between_the_mirror_images_of_the_others(num_lines, seed):
    mask = sampling.magic_lines(
        (2, num_lines), 4, seed=seed, num_calibration=0, adjust_spacing=False
    )
    frequency = np.flatnonzero(kept_lines(mask)) - num_lines // 2
    (positive,), (mirrored,) = (
        set(f % 4) for f in (frequency[frequency > 0], -frequency[frequency < 0])
    )
    assert (positive - mirrored) % 4 == 2


def test_one_line_has_the_density_of_the_formula():
    draw = partial(sampling.variable_density_lines, (1, 9), 9, num_calibration=0, power=2)
    counts = sum(draw(seed=seed).array[0].astype(int) for seed in range(2000))
    density = (1 - np.abs(np.arange(9) - 4) / 5) ** 2
    expected = 2000 * density / density.sum()
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_a_high_power_keeps_the_centre():
    mask = sampling.variable_density_lines((1, 64), 4, seed=0, num_calibration=0, power=1e4)
    equal(np.flatnonzero(kept_lines(mask))[1:], np.arange(64)[25:40])


@pytest.mark.parametrize("slope", [0, 2])
def test_poisson_disc_points_keep_their_distance(slope):
    array = sampling.poisson_disc((90, 80), 12, seed=2, slope=slope).array
    points = np.argwhere(array)
    radius = np.hypot(*((points - [45, 40]) / [45, 40]).T)
    distance = np.hypot(*np.moveaxis(points[:, None] - points, -1, 0))
    np.fill_diagonal(distance, np.inf)
    nearest = distance.min(axis=1)
    # Random points of this density often touch: 1 - (11 / 12)^8 of them have a neighbour.
    assert nearest.min() >= (2 if slope == 0 else 1)
    rings = [nearest[(radius >= low) & (radius < low + 0.4)].mean() for low in (0, 0.4, 0.8)]
    if slope == 0:
        assert max(rings) < 1.2 * min(rings)
    else:
        # (1 + 2 * 1) / (1 + 2 * 0.27), at the mean distances of the rings from the centre
        assert rings[0] < rings[1] < rings[2] and rings[2] / rings[0] == pytest.approx(
            1.95, rel=0.2
        )


@pytest.mark.parametrize("angles", ["golden", "uniform"])
def test_spokes_go_through_the_centre_from_border_to_border(angles):
    array = sampling.radial((65, 49), 60, seed=4, angles=angles).array
    assert array[32, 24]
    equal(array, array[::-1, ::-1])
    even = sampling.radial((64, 48), 60, seed=4, angles=angles).array
    assert even[32, 24]
    equal(even[1:, 1:], even[:0:-1, :0:-1])


def spoke_angles(mask):
    """Returns the angles of the spokes of a mask in 0 .. pi, increasing."""
    shape = mask.array.shape
    # Cycles a pixel: relative to the length of the axis.
    frequency = (np.argwhere(mask.array) - np.array(shape) // 2) / shape
    outer = frequency[np.hypot(*frequency.T) > 0.4]
    angle = np.sort(np.arctan2(*outer.T) % math.pi)
    # A new spoke starts where the angle jumps by more than a spoke is wide.
    starts = np.flatnonzero(np.diff(angle) > 0.06) + 1
    first, *others = np.split(angle, starts)
    if others and first[0] + math.pi - others[-1][-1] < 0.06:  # one spoke, on both sides of pi
        first = np.concatenate([first, others.pop() - math.pi])
    return np.array([part.mean() for part in (first, *others)])


@pytest.mark.parametrize("shape", [(161, 161), (161, 81)])
def test_uniform_spokes_have_equal_angles(shape):
    angles = spoke_angles(sampling.radial(shape, 12, seed=0, angles="uniform"))
    assert len(angles) > 8
    np.testing.assert_allclose(np.diff(angles), math.pi / len(angles), atol=0.03)


@pytest.mark.parametrize("shape", [(161, 161), (161, 121)])
@pytest.mark.parametrize("seed", range(3))
def test_two_spokes_are_a_golden_angle_apart(shape, seed):
    apart = np.degrees(
        np.diff(spoke_angles(sampling.radial(shape, math.prod(shape) / 320, seed=seed)))
    )
    assert min(apart, 180 - apart) == pytest.approx(180 - 111.246, abs=0.5)


def test_the_number_of_spokes_comes_nearest():
    # One spoke of this grid is 101 points, two are 201.
    for wanted, kept in [(102, 101), (150, 101), (152, 201), (200, 201)]:
        assert sampling.radial((101, 101), 101**2 / wanted, seed=0).array.sum() == kept


def test_golden_spokes_of_a_slower_scan_hold_those_of_a_faster():
    fast, slow = (sampling.radial((60, 70), a, seed=7).array for a in (9, 4))
    assert not (fast & ~slow).any()


def test_gaussian_lines_are_the_public_codes():
    path = next((path for path in GOLDEN if path.exists()), None)
    if path is None:
        pytest.skip("no golden file sgdj_mask.npz (JITTER_JAX_GOLDEN names its folder)")
    golden = dict(np.load(path, allow_pickle=False))
    cases = {key.partition("/")[0] for key in golden}
    assert len(cases) == 6
    for case in cases:
        size, acceleration, percent, seed = (
            int(part.lstrip("nacfsed")) for part in case.split("_")
        )
        mask = sampling.gaussian_lines(
            (size, size), acceleration, seed=seed, center_fraction=percent / 100, axis=0
        )
        lines = golden[f"{case}/mask"].astype(bool)
        equal(mask.array, np.broadcast_to(lines[:, None], (size, size)))
        assert mask.acceleration == golden[f"{case}/actual_acceleration"]
        assert mask.array[:, 0].sum() == golden[f"{case}/lines"]
        assert mask.array[slice(*golden[f"{case}/centre"])].all()


def test_the_papers_mask():
    mask = sampling.gaussian_lines((320, 320), 4, seed=10, axis=0)
    assert mask.array[:, 0].sum() == 81 and mask.array[154:167].all()
    assert mask.array[120:201, 0].sum() == 46
    assert mask.acceleration == 320 / 81


# The bits of the lines that fastMRI's own module (facebookresearch/fastMRI@91f2df4, fastmri/data/
# subsample.py, NumPy 2.4.6) keeps, made with one center fraction and one acceleration.
FASTMRI = [
    ("random", 64, 4, 0.08, 0, "000380a3e011050d"),
    ("random", 65, 8, 0.04, (10, 3), "00000041c020040080"),
    (
        *("random", 368, 4, 0.08, "file1000001.h5"),
        "131180011200a84000c020511008b00840000400a03ffffffe000054004804800024204000408440220600c22000",
    ),
    ("equispaced", 64, 4, 0.08, 0, "08410843e8210820"),
    ("equispaced", 65, 8, 0.04, (10, 3), "02002003c020020000"),
    (
        *("equispaced", 368, 4, 0.08, "file1000001.h5"),
        "1082104210421042084208420841084108210821083ffffffe210420842084108410841082108210821042104208",
    ),
    ("equispaced, not adjusted", 64, 4, 0.08, 0, "8888888be8888888"),
    ("equispaced, not adjusted", 65, 8, 0.04, (10, 3), "02020203c202020200"),
    (
        *("equispaced, not adjusted", 368, 4, 0.08, "file1000001.h5"),
        "1111111111111111111111111111111111111111113fffffff111111111111111111111111111111111111111111",
    ),
    ("magic", 64, 4, 0.08, 0, "41041043e4104104"),
    ("magic", 65, 8, 0.04, (10, 3), "00200101c100080000"),
    (
        *("magic", 368, 4, 0.08, "file1000001.h5"),
        "4104104104104104104104104104104104104104107ffffffe410410410410410410410410410410410410410410",
    ),
    ("magic, not adjusted", 64, 4, 0.08, 0, "44444447e4444444"),
    ("magic, not adjusted", 65, 8, 0.04, (10, 3), "01010101c101010100"),
    (
        *("magic, not adjusted", 368, 4, 0.08, "file1000001.h5"),
        "4444444444444444444444444444444444444444447ffffffe444444444444444444444444444444444444444444",
    ),
]


@pytest.mark.parametrize(
    ("variant", "num_lines", "acceleration", "fraction", "seed", "bits"), FASTMRI
)
def test_lines_are_fastmris(variant, num_lines, acceleration, fraction, seed, bits):
    seed = sampling.seed_from_name(seed) if isinstance(seed, str) else seed
    mask = made(variant, (2, num_lines), acceleration, seed=seed, center_fraction=fraction)
    packed = np.frombuffer(bytes.fromhex(bits), np.uint8)
    equal(kept_lines(mask), np.unpackbits(packed, count=num_lines).astype(bool))


def test_the_seed_of_a_name():
    codes = (102, 105, 108, 101, 49, 46, 104, 53)
    assert sampling.seed_from_name("file1.h5") == codes
    assert sampling.seed_from_name(Path("some/folder/file1.h5")) == codes
    for name in ("", "/"):
        with pytest.raises(ValueError, match="file_name="):
            sampling.seed_from_name(name)


def test_the_seed_of_a_key():
    key = jax.random.key(42)
    seed = sampling.seed_from_key(key)
    assert seed == sampling.seed_from_key(jax.random.PRNGKey(42)) == (0, 42)
    assert all(type(word) is int for word in seed)
    others = {sampling.seed_from_key(k) for k in jax.random.split(key, 5)}
    assert len(others | {seed}) == 6
    made("random", (8, 32), 4, seed=seed)
    with pytest.raises(ValueError, match=r"key has shape \(3,\)"):
        sampling.seed_from_key(jax.random.split(jax.random.key(1), 3))


def test_make_mask_is_the_function_of_the_name():
    for name, function in MASKS.items():
        equal(make_mask(name, (16, 18), 3, seed=2), function((16, 18), 3, seed=2))
        names = list(inspect.signature(function).parameters)
        assert names[:3] == ["shape", "acceleration", "seed"]
    assert set(MASKS) == {*LINES, *POINTS, *FIXED}
    with pytest.raises(ValueError, match=r"name='spiral' is not accepted.*'magic'.*'radial'"):
        make_mask("spiral", (16, 16), 3, seed=2)
    with pytest.raises(TypeError, match="power"):
        make_mask("random", (16, 16), 3, seed=2, power=2)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"acceleration": 0.99}, r"acceleration=0\.99 .* a finite number from 1"),
        ({"acceleration": -4}, r"acceleration=-4"),
        ({"acceleration": math.nan}, r"acceleration=nan .* finite"),
        ({"acceleration": math.inf}, r"acceleration=inf .* finite"),
        ({"acceleration": 10**6}, r"acceleration=1000000 .* there are (40|1280) (lines|points)"),
        ({"shape": (40,)}, r"shape=\(40,\)"),
        ({"shape": (1, 32, 40)}, r"shape=\(1, 32, 40\)"),
        ({"shape": (0, 40)}, r"shape=\(0, 40\)"),
        ({"seed": -1}, r"seed=-1 is not accepted"),
        ({"seed": 2**32}, r"seed=4294967296 .* 0\.\.4294967295"),
        ({"seed": 1.5}, r"seed=1\.5"),
        ({"seed": None}, r"seed=None"),
        ({"seed": ()}, r"seed=\(\)"),
        ({"seed": (3, -1)}, r"seed=\(3, -1\)"),
        ({"seed": "file1.h5"}, r"seed='file1\.h5' .*seed_from_name"),
    ],
)
def test_what_no_mask_can_be(name, changes, message):
    refused(name, changes, message)


def refused(name, changes, message):
    arguments = {"shape": (32, 40), "acceleration": 4, "seed": 0, **changes}
    with pytest.raises(ValueError, match=message):
        make_mask(name, arguments.pop("shape"), arguments.pop("acceleration"), **arguments)


@pytest.mark.parametrize("name", [*LINES, *POINTS])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_calibration": -1}, r"num_calibration=-1"),
        ({"num_calibration": 2.0}, r"num_calibration=2\.0 .* an integer of 0 or more"),
        ({"num_calibration": True}, r"num_calibration=True"),
        ({"num_calibration": 33}, r"num_calibration=33"),
    ],
)
def test_what_no_calibration_can_be(name, changes, message):
    refused(name, changes, message)


@pytest.mark.parametrize("name", MASKS)
def test_a_key_is_no_seed(name):
    with pytest.raises(ValueError, match="seed_from_key"):
        make_mask(name, (32, 40), 4, seed=jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "acceleration", "options", "message"),
    [
        *[
            (name, 4, options, message)
            for name in LINES
            for options, message in [
                ({"axis": 2}, r"axis=2 .* 0 \(rows\) or 1 \(columns\)"),
                ({"num_calibration": 11}, r"=11 .* alone is 11 lines.*=4 leaves 10 of 40"),
                ({"center_fraction": 0.3}, r"=0\.3 .* alone is 12 lines.* leaves 10 of 40"),
                ({"center_fraction": 1.1}, r"center_fraction=1\.1 .* 0\.\.1"),
                ({"center_fraction": math.nan}, "center_fraction=nan"),
                ({"center_fraction": 0.1, "num_calibration": 4}, "not accepted together"),
            ]
        ],
        ("random", 40, {"num_calibration": 0, "seed": 2}, "seed=2 .* none of 40 lines"),
        ("equispaced", 4.5, {"adjust_spacing": False}, r"=4\.5 .* whole number"),
        ("magic", 4.5, {"adjust_spacing": False}, r"=4\.5 .* whole number"),
        ("magic", 1.2, {}, r"acceleration=1\.2 .* 11 lines of calibration 22 of 40"),
        ("variable_density", 4, {"power": -1}, "power=-1"),
        ("variable_density", 4, {"power": math.inf}, "power=inf"),
        ("poisson_disc", 4, {"num_calibration": 18}, r"is 324 points.* leaves 320 of 1280"),
        ("poisson_disc", 4, {"slope": -0.1}, r"slope=-0\.1"),
        ("radial", 4, {"num_calibration": 18}, r"is 324 points.* leaves 320 of 1280"),
        ("radial", 41, {}, r"leaves 31\.\d+ of 1280 points, and one spoke .* is \d\d already"),
        ("radial", 4, {"angles": "random"}, r"angles='random' .*'golden', 'uniform'"),
    ],
)
def test_what_this_mask_cannot_be(name, acceleration, options, message):
    with pytest.raises(ValueError, match=message):
        make_mask(name, (32, 40), acceleration, **{"seed": 0, **options})
