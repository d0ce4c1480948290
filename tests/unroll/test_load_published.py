"""Published weights of every family as reconstructors: what they compute, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, equal, near, normal
from published_files import dncnn, ista_net, modl, scico_dncnn

from jitter_jax.operators import block_sampling, cartesian_mri, identity, orthonormal_rows
from jitter_jax.unroll import load_published
from jitter_jax.unroll.half_quadratic import in_closed_form

SHAPE = (4, 4)


def written(tmp_path, arrays):
    np.savez(tmp_path / "net.npz", **arrays)
    return tmp_path / "net.npz"


def started(reconstructor, operator, y):
    """The stored parameters, whatever the key."""
    first, second = (reconstructor.init(jax.random.key(seed), operator, y) for seed in (0, 1))
    equal(first, second)
    return first


@pytest.mark.parametrize("name", ["pp", "plus", "plain"])
def test_ista_nets(tmp_path, name):
    made, params, arrays = ista_net(name)
    loaded = load_published(written(tmp_path, arrays))
    operator = block_sampling(orthonormal_rows(2, 4, seed=0), shape=SHAPE)
    y = operator.forward(normal(0, *SHAPE, 1))
    equal(started(loaded, operator, y), params)
    close(loaded.apply(params, operator, y), made.apply(params, operator, y))


def test_ista_net_plus_starts_where_it_is_told(tmp_path):
    _, params, arrays = ista_net("plus")
    path = written(tmp_path, arrays)
    matrix = orthonormal_rows(2, 4, seed=0)
    operator = block_sampling(matrix, shape=SHAPE)
    y = operator.forward(normal(0, *SHAPE, 1))
    adjoint = load_published(path).apply(params, operator, y)
    close(load_published(path, start_matrix=matrix.T).apply(params, operator, y), adjoint)
    other = load_published(path, start_matrix=2 * matrix.T).apply(params, operator, y)
    assert float(jnp.abs(other - adjoint).max()) > 0.01


@pytest.mark.parametrize("make", [dncnn, lambda: scico_dncnn(channels=1)], ids=["dncnn", "scico"])
def test_one_iteration_denoises(tmp_path, make):
    network, params, arrays = make()
    loaded = load_published(written(tmp_path, arrays))
    y = normal(1, *SHAPE, 1)
    estimate = loaded.apply(started(loaded, identity(), y), identity(), y)
    # SCICO's norms are merged into its convolutions.
    close(estimate, network.apply(params, y), loosen=10)


@pytest.mark.parametrize("num_iterations", [1, 2])
def test_modl(tmp_path, num_iterations):
    network, params, arrays = modl()
    loaded = load_published(written(tmp_path, arrays), num_iterations=num_iterations)
    operator = cartesian_mri(np.random.default_rng(0).random(SHAPE) < 0.5)
    y = operator.forward(normal(2, *SHAPE, 1, dtype="complex64"))
    x = started(loaded, operator, y)
    equal(x["network"], params)
    expected = operator.adjoint(y)
    for _ in range(num_iterations):
        parts = network.apply(params, jnp.concatenate([expected.real, expected.imag], axis=-1))
        z = parts[..., :1] + 1j * parts[..., 1:]
        expected = in_closed_form(operator, operator.adjoint(y) + 0.05 * z, 0.05, z)
    estimate = loaded.apply(x, operator, y)
    near(estimate, expected, 1e-5)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (ista_net("pp")[-1], {"num_iterations": 3}, "num_iterations must be None .* got 3"),
        (ista_net("plus")[-1], {"num_iterations": 3}, "num_iterations must be None .* got 3"),
        (dncnn()[-1], {"num_iterations": 0}, "num_iterations"),
        ({"a": np.ones(3)}, {}, "not a DnCNN"),
    ],
)
def test_refused(tmp_path, arrays, options, message):
    with pytest.raises(ValueError, match=message):
        load_published(written(tmp_path, arrays), **options)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_published(tmp_path / "nothing.npz")
