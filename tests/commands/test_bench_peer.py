"""The benchmark's PyTorch side computes what the library computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jitter_jax import attacks
from jitter_jax import experiment as experiments
from jitter_jax.attacks.search import value_and_ascent
from jitter_jax.bench import _agreement, bench, cases, problems
from jitter_jax.metrics import mse

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
torch.set_num_threads(1)  # on a busy machine its threads spend their time on waiting

from jitter_jax.bench import _torch_models, _torch_peer  # noqa: E402

SIZES = cases.Sizes(height=24, width=16, batch=2, iterations=2)
SMALL = {"seismic": {}, "mri": {"width": 8, "depth": 3}, "didn": {"width": 4, "depth": 2}}


def small_config(problem, case="train_mse"):
    config = problems.case_config(problem, SIZES, case)
    config["network"].update(SMALL[problem])
    return config


@functools.cache
def library(problem):
    """The library's experiment, its parameters, and what a peer takes over."""
    config = small_config(problem)
    arrays = _agreement.arrays(config)
    # Larger than at first, so that the network is not a small part of the result.
    arrays = {
        name: 5 * value if problem == "seismic" and name.endswith("kernel") else value
        for name, value in arrays.items()
    }
    params = {}
    for name, value in arrays.items():
        *path, last = name.split("/")
        place = params
        for part in path:
            place = place.setdefault(part, {})
        place[last] = jnp.asarray(value)
    return experiments.build(ConfigDict(config)), params["params"], arrays


def in_both(problem):
    """The same, and the problem in PyTorch."""
    experiment, params, arrays = library(problem)
    peer = _torch_models.make_peer(problem, small_config(problem), arrays)
    return experiment, params, arrays, peer


def operator_of(experiment, arrays):
    if "mask" not in arrays:
        return experiment.operator
    return experiment.operator({"mask": jnp.asarray(arrays["mask"])})


def reconstructed(experiment, params, arrays):
    operator = operator_of(experiment, arrays)
    apply = lambda y: experiment.reconstructor.apply(params, operator, y)
    return jax.vmap(apply)(jnp.asarray(arrays["measurement"]))


def to_torch(x):
    return _torch_models._tensor(np.asarray(x)).numpy()


@pytest.mark.parametrize("problem", list(SMALL))
def test_the_peer_computes_what_the_library_computes(problem):
    experiment, params, arrays, peer = in_both(problem)
    ours = reconstructed(experiment, params, arrays)
    theirs = peer.model(peer.measurement).detach().numpy()
    start = arrays["measurement"]
    if problem != "seismic":
        start = jax.vmap(operator_of(experiment, arrays).adjoint)(jnp.asarray(start))
    assert float(jnp.abs(ours - start).max()) > 0.1
    np.testing.assert_allclose(to_torch(ours), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("problem", list(SMALL))
def test_the_peer_differentiates_what_the_library_differentiates(problem):
    experiment, params, arrays, peer = in_both(problem)

    def loss(params):
        estimates = reconstructed(experiment, params, arrays)
        return jax.vmap(mse)(estimates, jnp.asarray(arrays["signal"])).mean()

    ours = jax.grad(loss)(params)
    _torch_peer._errors(peer.model(peer.measurement), peer.signal).mean().backward()
    theirs = peer.model.parameter.grad.numpy()
    np.testing.assert_allclose(ours["step_size"], theirs, rtol=1e-3, atol=1e-7)
    theirs = [
        module.weight.grad.numpy().transpose(2, 3, 1, 0)
        for module in peer.model.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    weights = ours["network"]
    ours = weights["params"]["Conv_1"]["kernel"]
    np.testing.assert_allclose(ours, theirs[1], rtol=1e-3, atol=1e-3 * np.abs(theirs[1]).max())


def test_parameters_of_another_network_are_refused():
    config = small_config("mri")
    arrays = _agreement.arrays(config)
    config["network"]["depth"] = 4
    with pytest.raises(ValueError):
        _torch_models.make_peer("mri", config, arrays)


def test_a_peer_that_computes_something_else_is_refused():
    *_, arrays, peer = in_both("mri")
    _torch_peer.check_agreement(peer, arrays["loss"], 1e-3)
    with pytest.raises(ValueError, match="does not compute what the library computes"):
        _torch_peer.check_agreement(peer, 1.1 * arrays["loss"], 1e-3)


def test_the_peer_takes_the_same_attack_step():
    experiment, params, arrays, peer = in_both("seismic")
    step = _torch_peer.pgd_step(peer)
    step()  # from zero
    theirs = step()

    def one(x, y):
        reconstruct = lambda y: experiment.reconstructor.apply(params, experiment.operator, y)
        objective = attacks.reconstruction_error(reconstruct, experiment.operator, x, y)
        ball = attacks.Threat(cases.EPSILON, unit="relative").ball(y)
        ascent = value_and_ascent(objective, jnp.zeros_like(y))[1]
        return objective(ball.project(cases.STEP_SIZE * ball.radius * ball.steepest(ascent)))

    x, y = jnp.asarray(arrays["signal"]), jnp.asarray(arrays["measurement"])
    np.testing.assert_allclose(jax.vmap(one)(x, y), theirs.numpy(), rtol=1e-3)


def test_the_peer_s_attack_is_the_library_s():
    experiment, params, arrays, peer = in_both("mri")
    operator = operator_of(experiment, arrays)

    def one(x, y):
        reconstruct = lambda y: experiment.reconstructor.apply(params, operator, y)
        objective = attacks.reconstruction_error(reconstruct, operator, x, y)
        ball = attacks.Threat(cases.EPSILON, unit="relative").ball_at(operator, x, y)
        attack = attacks.pgd(ball, num_steps=4, step_size=cases.STEP_SIZE, first="given")
        return attack(objective, jnp.zeros_like(y), jax.random.key(0))[1].value

    x, y = jnp.asarray(arrays["signal"]), jnp.asarray(arrays["measurement"])
    theirs = _torch_peer.attack(peer, 4)()[1]
    np.testing.assert_allclose(jax.vmap(one)(x, y), theirs.numpy(), rtol=1e-3)
    clean = _torch_peer._errors(peer.model(peer.measurement), peer.signal)
    assert (theirs > clean).all()


def test_the_peer_trains():
    for case in ("train_mse", "train_sgd_jitter"):
        config = small_config("seismic", case)
        *_, peer = in_both("seismic")
        step = _torch_peer.training(peer, [*peer.model.parameters()], config)
        losses = [step().item() for _ in range(15)]
        assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_side_by_side():
    found = bench(
        ["seismic"],
        sizes=SIZES,
        cases=["train_mse", "train_sgd_jitter"],
        repeats=1,
        pairs=1,
        peak=False,
        progress=False,
    )
    rows = {(row["case"], row["framework"]): row for row in found["rows"]}
    assert [*rows] == [
        ("train_mse", "jax"),
        ("train_mse", "torch"),
        ("train_sgd_jitter", "jax"),
        ("train_sgd_jitter", "torch"),
    ]
    ours, theirs = rows["train_mse", "jax"], rows["train_mse", "torch"]
    assert ours["parameters"] == theirs["parameters"] == 19588
    assert ours["torch_over_jax"] == pytest.approx(theirs["min_s"] / ours["min_s"])
    assert ours["peak_of_torch"] == pytest.approx(ours["peak_gb"] / theirs["peak_gb"])
    assert ours["torch_compile_over_jax"] is None and theirs["compile_s"] is None
    for framework in ("jax", "torch"):
        jittered = rows["train_sgd_jitter", framework]
        assert jittered["over_mse"] > 0.2 and rows["train_mse", framework]["over_mse"] == 1
    for overhead in found["jitter_overhead"]:
        assert np.shape(overhead["seconds"]) == (1, 2)
