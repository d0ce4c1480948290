from pathlib import Path

import numpy as np
import pytest

from jitter_jax import data

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = [
    folder / "sgdj_metrics.npz"
    for folder in (ROOT / "tests" / "golden", ROOT.parent / "shared" / "golden")
]


def sections(num=6, shape=(120, 60)):
    return data.GeneratedSections(num, 3, shape)


@pytest.mark.parametrize("channel", [(), (1,)])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("columns", "span"), [(None, (0, 9)), ((2, 5), (2, 5)), ((8, 9), (8, 9))])
def test_only_the_layer_changes(channel, sign, columns, span):
    before = np.random.default_rng(0).normal(size=(12, 9, *channel)).astype(np.float32)
    kept = before.copy()
    after = data.add_layer(before, 0.25, sign=sign, row=7, columns=columns)
    expected = kept.copy()
    expected[7, slice(*span)] += np.float32(sign * 0.25)
    np.testing.assert_array_equal(after, expected)
    np.testing.assert_array_equal(before, kept)
    assert after.dtype == np.float32


def test_a_drawn_row_stands_clear_of_flat_layers():
    section = np.zeros((200, 50), np.float32)
    section[::10] = 1.0
    rows = set()
    for seed in range(60):
        layered = data.add_layer(section, 0.3, rng=np.random.default_rng(seed))
        (row,) = np.flatnonzero((layered != section).any(axis=1))
        assert 20 <= row < 180
        assert 3 <= row % 10 <= 7
        rows.add(row)
    assert len(rows) > 15


def test_only_the_traces_of_the_layer_count_for_its_row():
    section = np.zeros((50, 20), np.float32)
    section[5:30, :10] = 1.0
    section[30:45, 10:] = 9.0
    layered = data.add_layer(section, 0.1, columns=(0, 10), rng=np.random.default_rng(0))
    assert 32 <= np.flatnonzero((layered != section).any(axis=1))[0] < 45


def test_a_layer_fits_in_the_smallest_section():
    layered = data.add_layer(np.ones((1, 1), np.float32), 0.1, rng=np.random.default_rng(0))
    assert layered[0, 0] == np.float32(1.1)


def test_pairs_differ_by_the_layer_alone_and_share_its_row():
    source = sections()
    small, large = (data.LayeredSource(source, size, 11) for size in (0.1, 0.3))
    assert len(small) == len(source)
    rows = []
    for i in range(len(source)):
        truth = source[i]["signal"].astype(np.float64)
        by_size = [layered[i]["signal"] - truth for layered in (small, large)]
        for added, size in zip(by_size, (0.1, 0.3), strict=True):
            (row,) = np.flatnonzero(np.abs(added).max(axis=(1, 2)))
            np.testing.assert_allclose(added[row], size, atol=1e-6)
            rows.append(row)
    assert rows[::2] == rows[1::2]
    assert len(set(rows)) > 2


def test_a_layered_source_repeats_and_its_seed_matters():
    source = sections()
    items = [
        np.stack([data.LayeredSource(source, 0.1, seed)[i]["signal"] for i in range(6)])
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(items[0], items[1])
    assert not np.array_equal(items[0], items[2])


@pytest.mark.parametrize("case", ["seis", "seis_clipped"])
def test_repo_reading_equals_the_public_code(case):
    path = next((path for path in GOLDEN if path.exists()), None)
    if path is None:
        pytest.skip("no golden file sgdj_metrics.npz")
    with np.load(path, allow_pickle=False) as golden:
        before, after = (golden[f"detail/{case}/{name}"][:, 0] for name in ("X", "out"))
    for section, expected in zip(before, after, strict=True):
        np.testing.assert_array_equal(data.add_layer_repo(section), expected)


def test_repo_reading_overwrites_and_leaves_out_what_is_past_the_border():
    before = np.full((141, 172, 1), 0.5, np.float32)
    source = data.LayeredSource([{"signal": before}], 0.3, 0, reading="repo")
    expected = before.copy()
    expected[140, 170:] = -0.3
    np.testing.assert_array_equal(source[0]["signal"], expected)
    assert (before == 0.5).all()


@pytest.mark.parametrize("shape", [(140, 200), (200, 170)])
def test_repo_reading_refuses_a_section_without_its_place(shape):
    with pytest.raises(ValueError, match="140 samples and 170 traces"):
        data.add_layer_repo(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"magnitude": 0}, "magnitude=0"),
        ({"magnitude": -0.1}, "magnitude=-0.1"),
        ({"magnitude": np.nan}, "magnitude=nan"),
        ({"sign": 0}, "sign=0"),
        ({"row": 8}, "row=8"),
        ({"row": -1}, "row=-1"),
        ({"row": None}, "rng=None"),
        ({"columns": (3, 3)}, "columns="),
        ({"columns": (-1, 3)}, "columns="),
        ({"columns": (0, 7)}, "columns="),
    ],
)
def test_bad_layers(options, message):
    arguments = {"magnitude": 0.1, "row": 2, **options}
    with pytest.raises(ValueError, match=message):
        data.add_layer(np.zeros((8, 6), np.float32), **arguments)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((-0.1, 0), {}, "magnitude=-0.1"),
        ((0.1, -1), {}, "seed=-1"),
        ((0.1, 0), {"reading": "code"}, "reading='code'"),
    ],
)
def test_bad_layered_sources(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        data.LayeredSource(sections(), *arguments, **options)


def test_a_source_with_measurements_is_refused():
    item = {"signal": np.zeros((8, 6, 1)), "measurement": np.zeros((8, 6, 1))}
    with pytest.raises(ValueError, match=r"'measurement', 'signal'.*'signal' alone"):
        data.LayeredSource([item], 0.1, 0)[0]
