"""Random measurement matrices of compressed sensing, drawn on the host from a seed."""

import operator

import numpy as np


def orthonormal_rows(num_rows: int, size: int, *, seed: int) -> np.ndarray:
    """Returns a random matrix with orthonormal rows, `A A^T = I`.

    `A = (Q D)^T` with `Q R = G`, the QR factorisation of a `(size, num_rows)` matrix `G` of
    standard normals, and `D` the signs of the diagonal of `R`, which make the distribution of the
    rows uniform. `A^T A` is a projection, so that `||A|| = 1` and gradient steps of up to 2 are
    stable. The factorisation is in float64, the result is rounded.

    Args:
        num_rows: `m`, from 1 to `size`.
        size: `n`, the number of entries that a row measures, such as the 33 * 33 of a block.
        seed: a non-negative integer. Another `num_rows` draws other rows, not more of the same.

    Returns:
        `(num_rows, size)` float32.

    Raises:
        ValueError: an argument is out of its range.

    Source: Mezzadri, "How to generate random matrices from the classical compact groups" (2007).
    """
    num_rows, size, seed = _checked(num_rows, size, seed)
    if num_rows > size:
        raise ValueError(f"num_rows must be at most size, {size}, got {num_rows}")
    draws = np.random.default_rng(seed).standard_normal((size, num_rows))
    q, r = np.linalg.qr(draws)
    return np.ascontiguousarray((q * np.sign(np.diag(r))).T, dtype=np.float32)


def gaussian_matrix(num_rows: int, size: int, *, seed: int) -> np.ndarray:
    """Returns a matrix of independent normals of mean 0 and variance `1 / num_rows`.

    `E ||A x||^2 = ||x||^2` for every `x`, and `||A||` is near `1 + sqrt(size / num_rows)`: a
    gradient step must be below `2 / ||A||^2`.

    Args:
        num_rows: `m`, at least 1.
        size: `n`, at least 1: the number of entries that a row measures.
        seed: a non-negative integer.

    Returns:
        `(num_rows, size)` float32.

    Raises:
        ValueError: an argument is out of its range.
    """
    num_rows, size, seed = _checked(num_rows, size, seed)
    draws = np.random.default_rng(seed).standard_normal((num_rows, size))
    return (draws / np.sqrt(num_rows)).astype(np.float32)


def _checked(num_rows: int, size: int, seed: int) -> tuple[int, int, int]:
    num_rows, size, seed = map(operator.index, (num_rows, size, seed))
    for name, value, smallest in (("num_rows", num_rows, 1), ("size", size, 1), ("seed", seed, 0)):
        if value < smallest:
            raise ValueError(f"{name} must be at least {smallest}, got {value}")
    return num_rows, size, seed
