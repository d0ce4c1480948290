"""Seeded matrices: the construction bit for bit, and the properties that it is chosen for."""

import numpy as np
import pytest
from helpers import equal

from jitter_jax.operators import gaussian_matrix, orthonormal_rows


@pytest.mark.parametrize(("num_rows", "size", "seed"), [(109, 1089, 0), (4, 9, 3), (9, 9, 1)])
def test_orthonormal_rows_are_the_named_construction(num_rows, size, seed):
    matrix = orthonormal_rows(num_rows, size, seed=seed)
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, num_rows)))
    expected = np.array([np.sign(r[k, k]) * q[:, k] for k in range(num_rows)])
    equal(matrix, expected.astype(np.float32))
    assert matrix.dtype == np.float32 and matrix.shape == (num_rows, size)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(num_rows), rtol=0, atol=1e-6)


def test_gaussian_entries():
    matrix = gaussian_matrix(400, 500, seed=0)
    assert matrix.dtype == np.float32 and matrix.shape == (400, 500)
    # 200,000 draws: the mean is known to 0.05 / 447 = 1.1e-4, the variance to 0.3 %.
    assert abs(matrix.mean()) < 5e-4
    np.testing.assert_allclose(matrix.var() * 400, 1, rtol=0.015)
    x = np.random.default_rng(1).standard_normal(500)
    np.testing.assert_allclose(np.sum((matrix @ x) ** 2), np.sum(x**2), rtol=0.3)


@pytest.mark.parametrize("make", [orthonormal_rows, gaussian_matrix])
def test_the_seed_is_all_that_matters(make):
    first = make(3, 7, seed=5)
    equal(make(np.int64(3), np.int64(7), seed=np.int64(5)), first)
    assert (make(3, 7, seed=6) != first).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthonormal_rows(8, 7, seed=0), "num_rows must be at most size, 7, got 8"),
        (lambda: orthonormal_rows(0, 7, seed=0), "num_rows must be at least 1, got 0"),
        (lambda: gaussian_matrix(2, 0, seed=0), "size must be at least 1, got 0"),
        (lambda: gaussian_matrix(2, 3, seed=-1), "seed must be at least 0, got -1"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
