"""Random numbers of generated examples: one stream for each seed, example and purpose."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """The last word of a stream's seed, so that two sources of one seed draw different numbers."""

    SECTIONS = 0
    WELL_SECTIONS = 1
    ADDED_LAYERS = 2
    PATCHES = 3
    PHANTOMS = 4
    LESIONS = 5
    CONTRASTS = 6
    COILS = 7
    TEXTURES = 8


def stream(seed: int, index: int, purpose: Purpose) -> np.random.Generator:
    """Return the generator of one example; the same whenever it is asked for."""
    return np.random.Generator(np.random.PCG64([seed, index, int(purpose)]))


def checked_seed(seed: int) -> int:
    """Return `seed` as a Python integer.

    Raises:
        ValueError: it is not an integer, or negative.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed={seed!r} is not accepted: an integer of at least 0 is expected")
    return int(seed)
