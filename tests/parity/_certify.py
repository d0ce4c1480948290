"""Ranks of order statistics, and how sure they are, in `certify`."""

import numpy as np
from _weights import Arrays

from jitter_jax.certify import (
    largest_ratio,
    lower_rank,
    rank_confidence,
    samples_needed,
    upper_rank,
)


def certify(arrays: Arrays) -> Arrays:
    """Returns the outputs of the file, but for what it says of how near a decision was.

    Doubles decide the rows: `arrays` must not have been rounded.
    """
    columns = (arrays[name].tolist() for name in ("S", "c", "p", "ratio"))
    rows = [_row(*row) for row in zip(*columns, strict=True)]
    limits = zip(arrays["max_ratio/S"].tolist(), arrays["max_ratio/c"].tolist(), strict=True)
    samples, c, p, ratio = arrays["samples/S_c_p_ratio"].tolist()
    own, ordered = _row(int(samples), c, p, ratio), np.sort(arrays["samples/x"], axis=1)
    return {
        **{key: np.array([row[key] for row in rows]) for key in rows[0]},
        "max_ratio/value": np.array([largest_ratio(*limit) for limit in limits]),
        "samples/k_upper": own["k_upper"],
        "samples/k_lower": own["k_lower"],
        "samples/upper_bound": ordered[:, own["k_upper"] - 1],
        "samples/lower_bound": ordered[:, own["k_lower"] - 1],
    }


def _row(samples: int, c: float, p: float, ratio: float) -> Arrays:
    upper = upper_rank(samples, ratio, c, quantile=p)
    lower = lower_rank(samples, ratio, c, quantile=p)
    # Where there is no certificate, the best that the draws can reach.
    reached = rank_confidence(samples, upper or samples, ratio, quantile=p)
    # A lower bound is an upper one, mirrored.
    mirrored = rank_confidence(samples, samples + 1 - (lower or 1), ratio, quantile=1 - p)
    return {
        "k_upper": upper or -1,
        "k_lower": lower or -1,
        "confidence_upper": reached,
        "confidence_lower": mirrored,
        "S_min": samples_needed(ratio, c, quantile=p),
    }
