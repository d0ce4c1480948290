"""Ranks against golden rows, exact sums of binomials, and the published readings."""

import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from jitter_jax.certify import (
    largest_ratio,
    lower_rank,
    published_rank,
    rank_confidence,
    samples_needed,
    upper_rank,
)

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = [
    folder / "certify.npz"
    for folder in (
        ROOT / "tests" / "golden",
        Path(os.environ.get("JITTER_JAX_GOLDEN", ROOT.parent / "shared" / "golden")),
    )
]
# Probabilities in float64, by sums of up to 10^4 terms in the file; the row nearest to a decision
# is 1e-8 away from it.
PROBABILITY = 1e-10


@pytest.fixture(scope="module")
def golden():
    path = next((path for path in GOLDEN if path.is_file()), None)
    if path is None:
        pytest.skip("no golden file certify.npz (JITTER_JAX_GOLDEN names its folder)")
    return dict(np.load(path, allow_pickle=False))


def test_golden_rows(golden):
    names = ("S", "c", "p", "ratio", "k_upper", "k_lower", "S_min", "confidence_upper")
    rows = list(zip(*(golden[name].tolist() for name in names), strict=True))
    assert len(rows) == 544
    for samples, c, p, ratio, upper, lower, fewest, confidence in rows:
        found = upper_rank(samples, ratio, c, quantile=p)
        assert found == (None if upper == -1 else upper)
        assert lower_rank(samples, ratio, c, quantile=p) == (None if lower == -1 else lower)
        assert samples_needed(ratio, c, quantile=p) == fewest
        # Where there is no certificate the file has the best that the draws can reach.
        reached = rank_confidence(samples, found or samples, ratio, quantile=p)
        assert abs(reached - confidence) < PROBABILITY


def test_golden_largest_ratio(golden):
    columns = (golden[f"max_ratio/{name}"].tolist() for name in ("S", "c", "value"))
    for samples, c, value in zip(*columns, strict=True):
        assert abs(largest_ratio(samples, c) - value) < 1e-10


def test_golden_samples_with_ties(golden):
    samples, c, p, ratio = golden["samples/S_c_p_ratio"].tolist()
    upper = upper_rank(int(samples), ratio, c, quantile=p)
    lower = lower_rank(int(samples), ratio, c, quantile=p)
    assert (upper, lower) == (golden["samples/k_upper"], golden["samples/k_lower"])
    ordered = np.sort(golden["samples/x"], axis=1)
    assert len(np.unique(ordered[0])) < 100  # it has ties
    np.testing.assert_array_equal(ordered[:, upper - 1], golden["samples/upper_bound"])
    np.testing.assert_array_equal(ordered[:, lower - 1], golden["samples/lower_bound"])


@pytest.mark.parametrize(
    ("samples", "c", "ratio", "rank"),
    [
        (50, 0.99, 0.25, 39),
        (50, 0.99, 0.5, 43),
        (50, 0.99, 10 / 12, 47),
        (50, 0.99, 1.0, 48),
        (50, 0.99, 1.25, 50),
        (50, 0.99, 1.5, None),
        (1000, 0.99, 0.25, 636),
        (1000, 0.99, 0.5, 726),
        (1000, 0.99, 1.0, 869),
        (1000, 0.99, 1.5, 952),
        (1000, 0.99, 2.0, 988),
        (1000, 0.99, 2.5, 1000),
        (10000, 0.999, 1.0, 8526),
        (10000, 0.999, 2.0, 9818),
    ],
)
def test_known_ranks(samples, c, ratio, rank):
    assert upper_rank(samples, ratio, c) == rank
    assert lower_rank(samples, ratio, c) == (None if rank is None else samples + 1 - rank)


@pytest.mark.parametrize(
    ("samples", "c", "ratio"),
    [(50, 0.99, 1.353), (500, 0.99, 2.359), (1000, 0.99, 2.605), (1000, 0.999, 2.463)],
)
def test_largest_ratio(samples, c, ratio):
    largest = largest_ratio(samples, c)
    assert abs(largest - ratio) < 5e-4
    assert upper_rank(samples, largest * (1 - 1e-9), c) == samples
    assert upper_rank(samples, largest * (1 + 1e-9), c) is None


@pytest.mark.parametrize("samples", [1, 2, 7, 40])
@pytest.mark.parametrize("ratio", [0.0, 0.7, 2.0])
def test_ranks_by_exact_sums(samples, ratio):
    pbar = Fraction(float(special.ndtr(ratio)))
    at_most = [
        sum(math.comb(samples, i) * pbar**i * (1 - pbar) ** (samples - i) for i in range(k))
        for k in range(1, samples + 1)
    ]
    for c in (0.01, 0.5001, 0.9, 0.99):
        expected = next((k for k, p in enumerate(at_most, 1) if p >= Fraction(c)), None)
        assert upper_rank(samples, ratio, c) == expected
    for k, p in enumerate(at_most, 1):
        assert abs(rank_confidence(samples, k, ratio) - float(p)) < 1e-13


@pytest.mark.parametrize(("ratio", "c"), [(0.0, 0.99), (1.0, 0.999), (4.0, 0.99), (7.0, 1 - 1e-9)])
def test_the_fewest_samples(ratio, c):
    fewest = samples_needed(ratio, c)
    assert upper_rank(fewest, ratio, c) == fewest
    assert upper_rank(fewest - 1, ratio, c) is None


def test_a_confidence_that_is_met_exactly():
    assert samples_needed(0.0, 0.99, quantile=0.1) == 2  # 1 - 0.1^2
    assert samples_needed(0.0, 0.75) == 2
    assert upper_rank(2, 0.0, 0.75) == 2


def test_a_ratio_that_no_samples_certify():
    assert samples_needed(9.0, 0.99) is None
    assert samples_needed(1e6, 0.99) is None


@pytest.mark.parametrize(
    ("samples", "ratio", "confidence"),
    [(50, 0.25, 0.987), (50, 1.0, 0.967), (50, 1.35, 0.943), (1000, 2.0, 0.981)],
)
def test_the_paper_reads_one_too_small(samples, ratio, confidence):
    rank = published_rank(samples, ratio, 0.99, reading="paper")
    assert rank == upper_rank(samples, ratio, 0.99) - 1
    assert abs(rank_confidence(samples, rank, ratio) - confidence) < 5e-4


def test_the_repository_reads_one_too_large_or_none():
    assert published_rank(1000, 2.0, 0.99, reading="repo") == 988 + 1
    # Rank 50 of 50 would do, but its search ends before.
    assert published_rank(50, 1.35, 0.99, reading="repo") is None
    assert published_rank(50, 1.5, 0.99, reading="paper") is None
    # Its units: epsilon = 10 for pixels in 0 to 1, sigma = 12 for 0 to 255.
    assert published_rank(1000, 10 / 12, 0.99, reading="repo") == 829
    assert upper_rank(1000, 10 / 12, 0.99) == 828
    assert upper_rank(1000, 10 / (12 / 255), 0.99) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1.0, 0.9), "num_samples must be at least 1, got 0"),
        ((10, -1.0, 0.9), "ratio must be finite and non-negative, got -1.0"),
        ((10, math.nan, 0.9), "ratio must be finite and non-negative, got nan"),
        ((10, 1.0, 1.0), "confidence must be between 0 and 1, got 1.0"),
    ],
)
def test_wrong_arguments(arguments, message):
    for function in (upper_rank, lower_rank):
        with pytest.raises(ValueError, match=message):
            function(*arguments)


def test_wrong_choices():
    with pytest.raises(ValueError, match=r"quantile must be between 0 and 1, got 0\.0"):
        upper_rank(10, 1.0, 0.9, quantile=0.0)
    with pytest.raises(ValueError, match=r"reading must be one of \('paper', 'repo'\), got 'a'"):
        published_rank(10, 1.0, 0.9, reading="a")
    with pytest.raises(ValueError, match="rank must be from 1 to num_samples=10, got 11"):
        rank_confidence(10, 11, 1.0)
