"""What the benchmark times: sizes, configs, operations, and programs that can be traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jitter_jax.bench import _certificate, _library, cases, problems
from jitter_jax.networks import DIDN, DPDNNUNet, ISTANetPPPhase

SIZES = cases.Sizes(height=24, width=16, batch=2, iterations=2)


def test_flops_are_those_of_the_published_network():
    # 9 (2 * 32 + 32 * 32 + 32 * 32 + 32) + 1 products a pixel.
    config = problems.case_config("seismic", cases.Sizes(), "inference")
    forward = problems.PROBLEMS["seismic"].forward_flops(config)
    assert forward == 5 * 2 * 19297 * 2 * 352 * 352
    # 9 (2 * 64 + 6 * 64 * 64 + 64 * 2) products a pixel.
    config = problems.case_config("mri", cases.Sizes(iterations=3), "inference")
    assert problems.PROBLEMS["mri"].forward_flops(config) == 3 * 2 * 223488 * 256 * 256
    # 2 * 32 + 32 * 32 + 32 * 2 products a point.
    config = problems.case_config("points", cases.Sizes(iterations=3), "inference")
    assert problems.PROBLEMS["points"].forward_flops(config) == 3 * 2 * 1152 * 200


def products(traced):
    """Operations of the convolutions and products in a trace, as often as its loops run them."""
    total = 0
    for equation in traced.eqns:
        name = equation.primitive.name
        if name == "conv_general_dilated":
            *kernel, _ = equation.invars[1].aval.shape
            total += 2 * np.prod(kernel) * equation.outvars[0].aval.size
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            sizes = [equation.invars[0].aval.shape[axis] for axis in contracted]
            total += 2 * np.prod(sizes) * equation.outvars[0].aval.size
        times = equation.params.get("length", 1) if name == "scan" else 1
        inner = jax.tree.leaves([*equation.params.values()], is_leaf=has_equations)
        total += times * sum(products(one) for one in inner if has_equations(one))
    return total


def has_equations(value):
    return hasattr(value, "eqns")


@pytest.mark.parametrize(("width", "blocks"), [(16, 1), (8, 3)])
def test_flops_of_didn_are_those_of_the_traced_network(width, blocks):
    network = DIDN(width, blocks, differentiation="plain")
    x = jax.ShapeDtypeStruct((20, 9, 2), jnp.float32)
    traced = products(jax.make_jaxpr(network.init_with_output)(jax.random.key(0), x).jaxpr)
    sizes = cases.Sizes(height=20, width=9, batch=3, iterations=2, samples=5)
    for problem, case, evaluations in (
        ("didn", "inference", 2),
        ("smug", "train_smug", 3 * (2 * 5 + 1)),
    ):
        config = problems.case_config(problem, sizes, case)
        config["network"].update({"width": width, "depth": blocks})
        found = problems.case_flops(problem, case, config)
        assert found == pytest.approx(3 * evaluations * traced) and found > 0


@pytest.mark.parametrize(
    ("problem", "depth", "network"),
    [
        ("ista_net_pp", 2, lambda width, depth: ISTANetPPPhase(width, depth, "plain")),
        ("dpdnn", 3, lambda width, depth: DPDNNUNet(width, depth, "plain")),
    ],
)
def test_flops_of_pictures_are_those_of_the_traced_network(problem, depth, network):
    x, level = jnp.zeros((20, 9, 1)), [jnp.float32(0.1)] * (problem == "ista_net_pp")
    traced = jax.make_jaxpr(network(8, depth).init_with_output)(jax.random.key(0), x, *level).jaxpr
    sizes = cases.Sizes(height=20, width=9, batch=3, iterations=2)
    config = problems.case_config(problem, sizes, "inference")
    config["network"].update({"width": 8, "depth": depth})
    found = problems.case_flops(problem, "inference", config)
    assert found == 3 * 2 * products(traced) > 0


def small_config(problem, case, **sizes):
    """The config of a problem whose network is small."""
    side = {"height": 33, "width": 33} if problem == "ista_net_pp" else {"height": 24, "width": 16}
    given = cases.Sizes(**{"batch": 2, "iterations": 2, **side, **sizes})
    config = problems.case_config(problem, given, case, remat="none")
    depth = {"ista_net_pp": 1, "dpdnn": 1, "didn": 1, "smug": 1}.get(problem, 3)
    config["network"].update({"width": 4, "depth": depth})
    return config


@pytest.mark.parametrize("case", problems.PROBLEMS["points"].cases)
def test_a_case_is_worth_as_many_passes_as_its_trace(case):
    if case == "certificate_loop":
        pytest.skip("a loop in Python has no trace")
    config = small_config("points", case, batch=16, iterations=8)
    config["network"]["width"] = 64
    prepared = _library.prepare(cases.CASES[case], _library.build(config))
    traced = products(jax.make_jaxpr(prepared.function)(*prepared.arguments).jaxpr)
    # What the first layers need not compute, and what matters of small matrices, is left open.
    assert problems.case_flops("points", case, config) == pytest.approx(traced, rel=0.12)


@pytest.mark.parametrize(
    ("problem", "names"),
    [
        ("seismic", ["train_spgd_jitter"]),
        ("mri", ["train_sgd_jitter"]),
        ("didn", ["pgd_step"]),
        ("smug", ["train_smug"]),
        ("ista_net_pp", ["train_smt_grad"]),
        ("dpdnn", ["train_input_jitter"]),
    ],
)
def test_cases_of_a_problem_can_be_traced(problem, names):
    # Every case is traced of the points, whose network is the smallest.
    for name in names:
        assert name in problems.PROBLEMS[problem].cases
        prepared = _library.prepare(cases.CASES[name], _library.build(small_config(problem, name)))
        result = jax.eval_shape(prepared.function, *prepared.arguments)
        assert prepared.parameters > 0
        if name.startswith("train"):
            assert jax.tree.map(jnp.shape, result[0]) == jax.tree.map(
                jnp.shape, prepared.arguments[0]
            )


def test_a_certificate_is_that_of_the_loop():
    found = []
    for name in ("certificate", "certificate_loop"):
        config = small_config("dpdnn", name, iterations=1, samples=5, chunk=2)
        problem = _library.build(config)
        if name == "certificate":
            prepared = _library.prepare(cases.CASES[name], problem)
            found.append(prepared.function(*prepared.arguments))
        else:
            work = _certificate.loop(problem.experiment, problem.state.params, problem.measured())
            found.append(work.run())
    assert found[0].shape == (2,) and np.all(np.asarray(found[0]) > 0)
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_smug_differs_from_its_vanilla_by_scheme_and_smoothing_alone():
    def config(case, **sizes):
        return problems.case_config("smug", cases.Sizes(**sizes), case)

    smug, vanilla = config("train_smug"), config("train_mse", samples=3)
    assert (smug["smoothing"]["where"], vanilla["smoothing"]["where"]) == ("step", "none")
    assert smug["smoothing"]["num_samples"] == smug["smoothing"]["chunk"] == 10  # all at once
    assert smug["network"]["name"] == "didn" and smug["data"]["coils"]["num"] == 4
    for part in ("smoothing", "scheme"):
        assert smug.pop(part) != vanilla.pop(part)
    assert smug == vanilla
    for chunk, expected in ((0, 7), (3, 3), (20, 7)):
        smoothing = config("train_smug", samples=7, chunk=chunk)["smoothing"]
        assert (smoothing["num_samples"], smoothing["chunk"]) == (7, expected)


def test_sizes_go_where_a_case_has_them():
    sizes = cases.Sizes(samples=6, chunk=3, steps=7)
    scheme = problems.case_config("mri", sizes, "train_smt_adv")["scheme"]
    assert (scheme["smt_adv"]["num_samples"], scheme["smt_adv"]["chunk"]) == (6, 3)
    assert scheme["adversarial"]["attack"]["num_steps"] == 7
    plain = problems.case_config("mri", sizes, "train_mse")
    assert plain == problems.case_config("mri", cases.Sizes(), "train_mse")
    assert problems.case_sizes("points", SIZES, "train_mse").height is None


def test_a_batch_is_spread_over_devices():
    config = small_config("points", "train_mse", batch=8)
    states = []
    for devices in (1, 4):
        problem = _library.build(config, devices=devices)
        ((first, *_),) = [jax.tree.leaves(problem.raw)]
        assert len(first.sharding.device_set) == devices
        state = problem.state
        for _ in range(2):
            state, metrics = problem.step(state, problem.raw)
        assert metrics["finite"]
        states.append(jax.tree.leaves(state.params))
    for one, other in zip(*states, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("batch", "devices"), [(3, 2), (16, 16)])
def test_devices_that_do_not_fit_are_refused(batch, devices):
    with pytest.raises(ValueError, match=f"devices={devices} is not accepted"):
        _library.build(small_config("points", "train_mse", batch=batch), devices=devices)


def test_a_precision_that_the_config_does_not_know_is_refused(monkeypatch):
    config = problems.default_config()
    with config.unlocked():
        if "precision" in config.network:
            del config.network["precision"]
    monkeypatch.setattr(problems, "default_config", lambda: config)
    problems.case_config("mri", SIZES, "train_mse")
    with pytest.raises(ValueError, match=r"the config has no network\.precision"):
        problems.case_config("mri", SIZES, "train_mse", precision="bfloat16")
