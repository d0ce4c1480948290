"""ISTA-Net++ and ISTA-Net+ against loops, on padded images, by block, and under training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, counted, near, normal

from jitter_jax.networks import ConditionNetwork, ISTANetPlusPhase, ISTANetPPPhase
from jitter_jax.operators import (
    block_sampling,
    cartesian_mri,
    dot_test,
    gaussian_matrix,
    identity,
    sampled_ratio,
    whole_blocks,
)
from jitter_jax.smoothing import Smoothing
from jitter_jax.unroll import end_to_end, ista_net_plus, ista_net_pp, jitter, real_signals

K, WIDTH, SIDE, ROWS = 3, 4, 4, 6
SHAPE = (7, 10)  # two by three blocks of 4 x 4
MATRIX = 0.3 * gaussian_matrix(ROWS, SIDE**2, seed=0)
NETS = {
    "pp": partial(ista_net_pp, num_phases=K, width=WIDTH),
    "plus": partial(ista_net_plus, num_phases=K, width=WIDTH),
    "plain": partial(ista_net_plus, num_phases=K, width=WIDTH, residual=False),
}
every_net = pytest.mark.parametrize("name", NETS)


def problem(name, shape=SHAPE, **options):
    operator = block_sampling(MATRIX, shape=shape)
    x = normal(1, *shape, 1)
    y = operator.forward(x) + 0.1
    net = NETS[name](**options)
    return net, net.init(jax.random.key(0), operator, y), operator, y


@pytest.mark.parametrize(
    ("net", "shape", "expected"),
    [
        (ista_net_pp(), (33, 33), 760_220),
        (ista_net_plus(), (33, 33), 336_978),
        (ista_net_plus(residual=False), (33, 33), 171_090),
    ],
)
def test_published_numbers_of_parameters(net, shape, expected):
    operator = block_sampling(np.ones((2, 33 * 33), np.float32), shape=shape)
    params = jax.eval_shape(net.init, jax.random.key(0), operator, jnp.zeros((1, 1, 2, 1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def phase_of(params, k):
    return jax.tree.map(lambda leaf: leaf[k], params["network"])


def blocks_of(x):
    """Yields each block's place and pixels."""
    for i in range(0, x.shape[0], SIDE):
        for j in range(0, x.shape[1], SIDE):
            yield (slice(i, i + SIDE), slice(j, j + SIDE)), x[i : i + SIDE, j : j + SIDE]


def loop(name, params, operator, y):
    """Yields the iterates on whole blocks, written again."""
    padded, _ = whole_blocks(operator)
    x = padded.adjoint(y)
    yield x
    if name == "pp":
        numbers = ConditionNetwork(2 * K).apply(params["condition"], sampled_ratio(operator))
        step_sizes, levels = numbers[:K], numbers[K:]
    else:
        step_sizes = params["step_size"]
    for k in range(K):
        x = x - step_sizes[k] * padded.adjoint(padded.forward(x) - y)
        if name == "pp":
            x = ISTANetPPPhase(WIDTH).apply(phase_of(params, k), x, levels[k])
        else:
            step = partial(ISTANetPlusPhase(WIDTH, name == "plus").apply, phase_of(params, k))
            for place, block in blocks_of(x):
                x = x.at[place].set(step(block))
        yield x


@every_net
def test_iterates_equal_a_python_loop(name):
    net, params, operator, y = problem(name)
    iterates = jax.jit(partial(net.apply, return_trajectory=True))(params, operator, y)
    expected = jnp.stack([*loop(name, params, operator, y)])
    assert expected.shape == (K + 1, 8, 12, 1)
    close(iterates, expected[:, :7, :10])
    assert float(jnp.abs(iterates[1:] - iterates[:-1]).max()) > 0.01


@every_net
def test_transformations_change_nothing(name):
    net, params, operator, y = problem(name)
    ys = jnp.stack([y, 2 * y, -y])
    run, traces = counted(partial(net.apply))
    compiled = jax.jit(run)
    looped = jnp.stack([compiled(params, operator, y) for y in ys])
    assert len(traces) == 1
    operators = jax.vmap(partial(block_sampling, shape=SHAPE))(jnp.stack([MATRIX] * 3))
    close(jax.vmap(net.apply, (None, 0, 0))(params, operators, ys), looped)


def test_one_program_serves_every_ratio_and_gives_each_its_own_numbers():
    net, params, _, _ = problem("pp")
    run, traces = counted(net.apply)
    run, ratios = jax.jit(run), []
    x = normal(1, *SHAPE, 1)
    for rows in (2, ROWS):
        operator = block_sampling(MATRIX, shape=SHAPE, rows=rows)
        alone = block_sampling(MATRIX[:rows], shape=SHAPE)
        close(
            run(params, operator, operator.forward(x)), net.apply(params, alone, alone.forward(x))
        )
        ratios.append(float(sampled_ratio(operator)))
    assert len(traces) == 1 and ratios == [2 / 16, 6 / 16]
    fixed = ista_net_pp(num_phases=K, width=WIDTH, ratio=lambda operator: jnp.float32(2 / 16))
    y = operator.forward(x)
    gap = fixed.apply(params, operator, y) - net.apply(params, operator, y)
    assert float(jnp.abs(gap).max()) > 1e-4


@pytest.mark.parametrize(("name", "alone"), [("pp", False), ("plus", True)])
def test_blocks_are_alone_in_ista_net_plus_only(name, alone):
    net, params, operator, y = problem(name)
    change = net.apply(params, operator, y.at[0, 0].add(1.0)) - net.apply(params, operator, y)
    assert float(jnp.abs(change[:SIDE, :SIDE]).max()) > 0.01
    beyond = float(jnp.abs(change.at[:SIDE, :SIDE].set(0)).max())
    assert beyond == 0 if alone else beyond > 1e-4


@every_net
def test_what_is_given_for_the_back_projection_is_taken(name):
    net, params, operator, y = problem(name)
    run = jax.jit(partial(net.apply, params, operator, y, return_trajectory=True))
    plain, back = run(), operator.adjoint(y)
    close(run(start=back), plain)
    close(run(back_projection=back), plain)
    noise = 0.3 * normal(5, *SHAPE, 1)
    started, projected = run(start=back + noise), run(back_projection=back + noise)
    near(started[0], back + noise, 1e-6)
    near(projected[0], back + noise, 1e-6)
    # In every data step, too.
    assert float(jnp.abs(started[1] - projected[1]).max()) > 0.01
    smoothed = end_to_end(net, Smoothing(0.3, 2))
    estimate = smoothed.apply(params, operator, y, smoothing_key=jax.random.key(0))
    assert estimate.shape == (*SHAPE, 1) and not jnp.allclose(estimate, plain[-1])


@every_net
def test_jitter_and_gradients_reach_every_phase(name):
    net, params, operator, y = problem(name)
    bare = NETS[name](remat=False)

    def value(params, apply, noisy):
        options = dict(key=jax.random.key(0), jitter=jitter.relative(0.1)) if noisy else {}
        return jnp.sum(jnp.sin(apply(params, operator, y, **options)))

    slope = jax.jit(jax.value_and_grad(value), static_argnums=(1, 2))
    (noisy, kept), (_, recomputed) = slope(params, bare.apply, True), slope(params, net.apply, True)
    close(recomputed, kept, loosen=10)  # products of another order
    assert abs(noisy - value(params, net.apply, False)) > 1e-3
    shared = kept.pop("condition", {})
    for leaf in jax.tree.leaves(kept):
        assert len(leaf) == K and (jnp.abs(leaf.reshape(K, -1)).max(-1) > 0).all()
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(shared))


def test_phases_start_with_different_weights():
    for name in NETS:
        _, params, _, _ = problem(name)
        kernels = params["network"]["params"]["Conv_0"]["kernel"]
        assert len(kernels) == K and float(jnp.abs(kernels[0] - kernels[1]).max()) > 0.01


@pytest.mark.parametrize("rows", [None, 2])
def test_start_of_ista_net_plus_is_linear(rows):
    matrix = np.asarray(normal(3, SIDE**2, ROWS))
    operator = block_sampling(MATRIX, shape=SHAPE, rows=rows)
    y = operator.forward(normal(1, *SHAPE, 1))
    net = NETS["plus"](start_matrix=matrix)
    params = net.init(jax.random.key(0), operator, y)
    first = net.apply(params, operator, y, return_trajectory=True)[0]
    expected = np.zeros((8, 12, 1), np.float32)
    for number, (place, _) in enumerate(blocks_of(expected)):
        own = np.asarray(y[number // 3, number % 3])
        expected[place] = (matrix @ own).reshape(SIDE, SIDE, 1)
    near(first, expected[:7, :10], 1e-5)
    # A start that is handed over comes first.
    given = jnp.ones((*SHAPE, 1))
    first = net.apply(params, operator, y, start=given, return_trajectory=True)[0]
    close(first, given)


@pytest.mark.parametrize("support", [True, False])
def test_real_signals_of_magnetic_resonance_imaging(support):
    mask = np.random.default_rng(0).random((6, 7)) < 0.5
    inner = cartesian_mri(mask) if support else identity()
    operator = real_signals(inner)
    x, y = normal(0, 6, 7, 1), normal(1, 6, 7, 1, dtype="complex64")
    real, whole = operator.adjoint(y), inner.adjoint(y)
    assert real.dtype == jnp.float32
    near(real, whole.real, 1e-6)
    near(jnp.vdot(operator.forward(x), y).real, jnp.vdot(x, real), 1e-5)
    if not support:
        assert operator.support() is None
        return
    np.testing.assert_array_equal(operator.support(), inner.support())
    assert float(dot_test(operator, x.shape, key=jax.random.key(0))) > 0  # it runs
    net = NETS["plus"]()
    y = operator.forward(x)
    params = net.init(jax.random.key(0), operator, y)
    estimate = net.apply(params, operator, y)
    phase, uncentred = ISTANetPlusPhase(WIDTH), np.fft.ifftshift(mask)
    again = lambda x: np.fft.ifft2(uncentred * np.fft.fft2(x[..., 0])).real[..., None]
    start = iterate = again(np.asarray(x))
    for k in range(K):
        stepped = iterate - 0.5 * (again(iterate) - start)
        iterate = np.asarray(phase.apply(phase_of(params, k), jnp.asarray(stepped, jnp.float32)))
    near(estimate, iterate, 1e-5)


@pytest.mark.parametrize("name", ["pp", "plus"])
def test_complex_signals_have_two_real_channels(name):
    options = {"ratio": lambda operator: jnp.float32(0.5)} if name == "pp" else {}
    net, operator = NETS[name](**options), cartesian_mri(np.ones((6, 7)))
    y = operator.forward(normal(0, 6, 7, 1, dtype="complex64"))
    params = net.init(jax.random.key(0), operator, y)
    assert params["network"]["params"]["Conv_0"]["kernel"].shape[-2] == 2 + (name == "pp")
    estimate = jax.jit(net.apply)(params, operator, y)
    assert estimate.shape == (6, 7, 1) and estimate.dtype == jnp.complex64


@every_net
def test_other_numbers_of_iterations_and_probes_are_refused(name):
    net, params, operator, y = problem(name)
    close(net.apply(params, operator, y, num_iterations=K), net.apply(params, operator, y))
    with pytest.raises(ValueError, match="num_iterations must be 3, the number of phases, got 2"):
        net.apply(params, operator, y, num_iterations=2)
    with pytest.raises(ValueError, match="probe needs a reconstructor whose learned steps"):
        net.apply(params, operator, y, probe=lambda output, x: output)
    with pytest.raises(ValueError, match="num_phases must be at least 1, got 0"):
        NETS[name](num_phases=0)


def test_operators_that_do_not_fit_are_refused():
    net, params, operator, y = problem("pp")
    with pytest.raises(ValueError, match="operator must be made by block_sampling"):
        net.apply(params, identity(), normal(0, *SHAPE, 1))
    for shape, given in (((SIDE**2, ROWS + 1), operator), ((SIDE**2, ROWS), identity())):
        net = NETS["plus"](start_matrix=np.zeros(shape, np.float32))
        params = net.init(jax.random.key(0), given, y)
        with pytest.raises(ValueError, match=r"start_matrix needs .* got shape \(16, [67]\)"):
            net.apply(params, given, y)
