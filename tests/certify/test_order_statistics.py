"""Ranks against golden rows, exact sums of binomials, and the published readings."""

import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from parity.adapter import reproduce
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


def test_golden_file(golden):
    outputs = reproduce("certify", golden, prefixes=[""])
    inputs = {"S", "c", "p", "ratio", "max_ratio/S", "max_ratio/c"}
    inputs |= {"samples/x", "samples/S_c_p_ratio"}
    assert golden.keys() - outputs.keys() == inputs | {"p_upper", "margin"}
    for key, found in outputs.items():
        assert np.shape(found) == golden[key].shape, key
        limit = PROBABILITY if golden[key].dtype.kind == "f" else 0
        np.testing.assert_allclose(found, golden[key], rtol=0, atol=limit, err_msg=key)
    assert len(outputs["k_upper"]) == 544 and np.sum(outputs["k_upper"] == -1) == 145
    assert len(np.unique(golden["samples/x"][0])) < 100  # it has ties


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
