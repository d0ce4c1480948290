"""The benchmark as a user runs it, on sizes that say nothing about speed."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fastmri_files import write_fastmri_file
from ml_collections import ConfigDict

from jitter_jax import attacks
from jitter_jax import experiment as experiments
from jitter_jax.attacks.search import value_and_ascent
from jitter_jax.bench import bench, cases, parent, report
from jitter_jax.bench._library import make_work
from jitter_jax.commands.runs import start
from jitter_jax.metrics import mse
from jitter_jax.networks import DIDN, DPDNNUNet, ISTANetPPPhase

ROOT = Path(__file__).resolve().parents[2]
SIZES = cases.Sizes(height=24, width=16, batch=2, iterations=2)


def run(sizes=SIZES, **options):
    options = {"cases": ["inference"], "repeats": 2, "peer": "none", "progress": False} | options
    return bench(**{"problems": ["seismic"]} | options, sizes=sizes)


def small_config(case="train_mse"):
    return cases.case_config("seismic", SIZES, case)


def job(names=("inference",), framework="jax", **configs):
    parts = {name: small_config(name) for name in names} | configs
    rest = {"problem": "seismic", "framework": framework, "threads": 1, "sizes": SIZES._asdict()}
    return {**rest, "cases": parts}


def torch_peer():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.set_num_threads(1)  # on a busy machine its threads spend their time on waiting
    from jitter_jax.bench import _torch_peer

    return _torch_peer


def test_flops_are_those_of_the_published_network():
    # 9 (2 * 32 + 32 * 32 + 32 * 32 + 32) + 1 products a pixel.
    config = cases.case_config("seismic", cases.Sizes(), "inference")
    assert cases.PROBLEMS["seismic"].forward_flops(config) == 5 * 2 * 19297 * 2 * 352 * 352
    # 9 (2 * 64 + 6 * 64 * 64 + 64 * 2) products a pixel.
    config = cases.case_config("mri", cases.Sizes(iterations=3), "inference")
    assert cases.PROBLEMS["mri"].forward_flops(config) == 3 * 2 * 223488 * 256 * 256


def products(traced):
    """Operations of the convolutions in a traced network; those of 1x1 are products of matrices."""
    flops = 0
    for equation in traced.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            *kernel, _ = equation.invars[1].aval.shape
            flops += 2 * np.prod(kernel) * equation.outvars[0].aval.size
    return flops


@pytest.mark.parametrize(("width", "blocks"), [(16, 1), (8, 3)])
def test_flops_of_smug_are_those_of_the_traced_network(width, blocks):
    network = DIDN(width, blocks, differentiation="plain")
    x = jax.ShapeDtypeStruct((20, 9, 2), jnp.float32)
    flops = products(jax.make_jaxpr(network.init_with_output)(jax.random.key(0), x).jaxpr)
    sizes = cases.Sizes(height=20, width=9, batch=3, iterations=2, samples=5)
    for case, evaluations in (("inference", 2), ("train_smug", 2 * 5 + 1)):
        config = cases.case_config("smug", sizes, case)
        config["network"].update({"width": width, "depth": blocks})
        found = cases.PROBLEMS["smug"].forward_flops(config)
        assert found == 3 * evaluations * flops > 0


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
    config = cases.case_config(problem, sizes, "inference")
    config["network"].update({"width": 8, "depth": depth})
    assert cases.PROBLEMS[problem].forward_flops(config) == 3 * 2 * products(traced) > 0


def test_a_certificate_is_that_of_the_loop():
    sizes = cases.Sizes(height=16, width=16, batch=2, iterations=1, samples=5, chunk=2)
    found = []
    for name in ("certificate", "certificate_loop"):
        config = cases.case_config("dpdnn", sizes, name)
        config["network"].update({"width": 2, "depth": 1})
        work = make_work(cases.CASES[name], "dpdnn", config)
        found.append(work.run())
    assert found[0].shape == (2,) and np.all(np.asarray(found[0]) > 0)
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_smug_differs_from_its_vanilla_by_scheme_and_smoothing_alone():
    def config(case, **sizes):
        return cases.case_config("smug", cases.Sizes(**sizes), case)

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


def test_growth_is_a_least_squares_fit_to_the_medians_of_each_case():
    def row(case, samples, seconds):
        sizes = cases.Sizes(samples=samples)._asdict()
        return {
            "problem": "smug",
            "case": case,
            "framework": "jax",
            "sizes": sizes,
            "median_s": seconds,
            "peak_gb": 0.5 + samples,
        }

    # 1 + 2 samples, and -1, 2 and -1 on top: orthogonal to a constant and to 0, 1, 2.
    rows = [row("train_smug", s, 1 + 2 * s + e) for s, e in ((2, -1), (3, 2), (4, -1))]
    # One line is no growth.
    (fit,) = report.growth([row("train_mse", 0, 9.0), *rows], "samples")
    assert (fit["problem"], fit["case"], fit["field"]) == ("smug", "train_smug", "samples")
    assert fit["values"] == [2, 3, 4] and fit["peak_gb"] == [2.5, 3.5, 4.5]
    assert fit["intercept_s"] == pytest.approx(1)
    assert fit["slope_s"] == pytest.approx(2)
    assert fit["largest_deviation_s"] == pytest.approx(2)


def run_smug(monkeypatch, sizes, **options):
    """Time the problem with a network that compiles sooner."""
    smug = cases.PROBLEMS["smug"]
    network = {"network.name": "dncnn", "network.depth": 2, "network.width": 4}
    small = smug._replace(settings={**smug.settings, **network})
    monkeypatch.setitem(cases.PROBLEMS, "smug", small)
    return run(sizes, problems=["smug"], repeats=1, **options)


def test_smug_is_scaled_beside_its_vanilla_and_without_a_peer(monkeypatch, capsys):
    def alternate(jobs, repeats, say):
        ready = {"parameters": 1, "import_bytes": 1e8, "temp_bytes": [1e7], "compile_s": [1.0]}
        for job in jobs:
            seconds = [1 + 2.0 * (job["sizes"]["samples"] or 0)]
            runs = [{"seconds": seconds, "cpu_s": seconds}] * repeats
            yield {**job, **ready, "runs": runs, "peak_bytes": 1e9 * seconds[0]}

    monkeypatch.setattr(parent, "alternate", lambda *arguments: [*alternate(*arguments)])
    monkeypatch.setattr(parent.importlib.util, "find_spec", lambda name: None)  # no PyTorch
    found = run_smug(
        monkeypatch,
        cases.Sizes(iterations=2, chunk=2),
        cases=["train_mse", "train_sgd_jitter", "train_smug"],
        scale="samples:4,1,2",
        peer="torch",
    )
    rows = [(r["case"], r["sizes"]["samples"], r["sizes"]["chunk"]) for r in found["rows"]]
    smug = [("train_smug", 1, 1), ("train_smug", 2, 2), ("train_smug", 4, 2)]
    assert rows == [("train_mse", None, None), *smug]
    (fit,) = found["growth"]
    assert (fit["values"], fit["peak_gb"]) == ([1, 2, 4], [3, 5, 9])
    assert fit["intercept_s"] == pytest.approx(1) and fit["slope_s"] == pytest.approx(2)
    printed = capsys.readouterr().out
    assert "| smug | train_mse | JAX | 1.000 |" in printed
    assert "| smug | train_smug, samples = 4, chunk = 2 | JAX | 9.000 |" in printed
    assert "Growth, smug train_smug, JAX: 1 +2 * samples seconds" in printed
    assert "peak 3.00, 5.00, 9.00 GB at 1, 2, 4" in printed
    assert "No PyTorch peer: smug" in printed


def test_a_step_of_smug_is_timed(monkeypatch):
    sizes = cases.Sizes(height=16, width=16, iterations=1, samples=3, chunk=2)
    (row,) = run_smug(monkeypatch, sizes, cases=["train_smug"])["rows"]
    assert row["parameters"] == 9 * (2 * 4 + 4 * 2)
    assert row["seconds"][0] > 0 and row["compile_s"] > 0
    # At the least, the two channels of every noisy copy of a chunk.
    assert 1e-9 * 2 * 2 * 16 * 16 * 4 < row["temp_gb"] < row["peak_gb"]


def test_a_run_reports_what_it_measured(tmp_path, capsys):
    found = run(output=tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(found))
    (row,) = found["rows"]
    assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
    assert row["min_s"] <= row["median_s"]
    assert row["gflop"] == pytest.approx(1e-9 * 2 * 2 * 19297 * 2 * 24 * 16)
    assert row["gflop_per_s"] == pytest.approx(row["gflop"] / row["median_s"])
    assert row["parameters"] == 19588  # with the step size
    assert row["compile_s"] > 0
    assert 0.05 < row["import_gb"] < row["peak_gb"] < 4
    assert row["torch_over_jax"] is None
    assert found["jitter_overhead"] == []
    assert found["versions"]["jax"] == jax.__version__
    printed = capsys.readouterr().out
    assert "seismic 2 x 24 x 16, K = 2" in printed
    assert "| seismic | inference | JAX |" in printed


def test_the_loader_is_measured(tmp_path, capsys):
    for i in range(2):
        write_fastmri_file(tmp_path / f"{i}.h5", shape=(330, 322), recon_size=(320, 320), seed=i)
    found = run(loader=tmp_path)["loader"]
    assert found["num_slices"] == 6 and len(found["slices_per_s"]) == 2
    assert found["median_slices_per_s"] > 0
    assert "slices/s of (330, 322) k-space, cropped to 320" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train_sgd_jitter", "pgd_step"])
def test_the_other_cases_run_again_and_again(name):
    case = cases.CASES[name]
    work = make_work(case, "seismic", small_config(name))
    assert work.compile_s > 0
    for _ in range(3):
        work.run()


def test_the_overhead_is_a_median_of_paired_ratios():
    pairs = [1.0, 1.1], [10.0, 12.0], [2.0, 2.6]
    runs = [{"seconds": pair, "cpu_s": [1.0, 1.05]} for pair in pairs]
    overhead = report.overhead({"problem": "p", "framework": "jax", "runs": runs})
    assert overhead["percent"] == pytest.approx(20)
    assert overhead["cpu_percent"] == pytest.approx(5)


def test_the_ratio_is_a_median_over_rounds():
    def measured(framework, seconds, cores=2, names=("inference",)):
        runs = [{"seconds": [s], "cpu_s": [cores * s]} for s in seconds]
        ready = {"parameters": 1, "import_bytes": 1, "temp_bytes": [None], "peak_bytes": 1}
        ready["compile_s"] = [None]
        return {**job(names, framework), **ready, "runs": runs}

    ours, theirs = measured("jax", [1, 2, 4]), measured("torch", [2, 3, 4], cores=4)
    other = measured("torch", [9, 9, 9], names=["pgd_step"])
    row = report.table_row(ours, [ours, theirs, other])
    assert report.table_row(theirs, [ours, theirs])["torch_over_jax"] is None
    assert row["torch_over_jax"] == 1.5
    assert row["torch_over_jax_cpu"] == 3
    assert row["cores"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats=0"),
        ({"pairs": -1}, "pairs=-1"),
        ({"sizes": SIZES._replace(height=0)}, "height=0"),
        ({"cases": ["certify"]}, "'certify'"),
        ({"cases": []}, "cases=''"),
        ({"cases": ["train_smug"]}, "cases='train_smug'"),
        ({"sizes": SIZES._replace(chunk=-1)}, "chunk=-1"),
        ({"scale": "depth:1,2"}, "scale='depth:1,2'"),
        ({"scale": "batch:2,2"}, "scale='batch:2,2'"),
        ({"scale": "batch:0,2"}, "scale='batch:0,2'"),
        ({"scale": "batch"}, "two or more numbers of at least 1"),
        ({"scale": "samples:1,2"}, "it changes none of the cases"),
        ({"problems": ["ct"]}, "problems='ct'"),
        ({"peer": "numpy"}, "peer='numpy'"),
        ({"remat": "some"}, "remat='some'"),
        ({"threads": 0}, "threads=0"),
        ({"threads": 10**6}, "threads=1000000"),
        ({"output": "no/such/folder/x.json"}, "a folder that exists is expected"),
        ({"output": "."}, "a file in a folder"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_a_missing_peer_is_said(monkeypatch):
    monkeypatch.setattr(parent.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs PyTorch, which is not installed"):
        run(peer="torch")


def test_the_binary_explains_an_error():
    done = subprocess.run(
        [sys.executable, str(ROOT / "bin" / "bench"), "--repeats=0"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert done.stderr == "error: repeats=0 is not accepted: at least 1 is expected\n"


# PyTorch


def in_both():
    """The library's experiment and parameters, and the same problem in PyTorch."""
    peers = torch_peer()
    import torch

    config = small_config()
    experiment = experiments.build(ConfigDict(config))
    params = start(experiment)[0].params
    peer = peers.seismic(config)
    weights = params["network"]["params"]
    # Larger than at first, so that the network is not a small part of the result.
    weights = jax.tree.map(lambda w: 5 * w if w.ndim == 4 else w, weights)
    params = {**params, "network": {"params": weights}}
    with torch.no_grad():
        convolutions = [m for m in peer.model.network if isinstance(m, torch.nn.Conv2d)]
        norms = [m for m in peer.model.network if isinstance(m, torch.nn.GroupNorm)]
        for i, layer in enumerate(convolutions):
            ours = weights[f"Conv_{i}"]
            layer.weight.copy_(torch.tensor(np.asarray(ours["kernel"]).transpose(3, 2, 0, 1)))
            layer.bias.copy_(torch.tensor(np.asarray(ours["bias"])))
        for i, layer in enumerate(norms):
            layer.weight.copy_(torch.tensor(np.asarray(weights[f"GroupNorm_{i}"]["scale"])))
            layer.bias.copy_(torch.tensor(np.asarray(weights[f"GroupNorm_{i}"]["bias"])))
    return experiment, params, peer


def to_jax(x):
    return jnp.asarray(np.asarray(x.detach())[:, 0, :, :, None])


def test_the_peer_computes_what_the_library_computes():
    experiment, params, peer = in_both()
    y = to_jax(peer.measurement)
    ours = jax.vmap(lambda y: experiment.reconstructor.apply(params, experiment.operator, y))(y)
    theirs = to_jax(peer.model(peer.measurement))
    assert float(jnp.abs(ours - y).max()) > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_peer_computes_the_library_s_mri():
    peers = torch_peer()
    import torch

    sizes = cases.Sizes(height=24, width=20, batch=1, iterations=2)
    config = cases.case_config("mri", sizes, "inference")
    config["network"].update({"width": 8, "depth": 3})
    experiment = experiments.build(ConfigDict(config))
    params, peer = start(experiment)[0].params, peers.mri(config)
    with torch.no_grad():
        convolutions = [m for m in peer.model.network if isinstance(m, torch.nn.Conv2d)]
        for i, layer in enumerate(convolutions):
            kernel = np.asarray(params["network"]["params"][f"Conv_{i}"]["kernel"])
            layer.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
    image = to_jax(peer.signal) + 1j * np.asarray(peer.signal)[0, 1, :, :, None]
    mask = experiment.sources["train"][0]["mask"]
    operator = experiment.operator({"mask": jnp.asarray(mask)})
    y = np.asarray(peer.measurement)[0]
    y = jnp.asarray(y[0] + 1j * y[1])[..., None]
    assert float(jnp.abs(operator.forward(image[0]) - y).max()) < 0.1  # but for the noise
    ours = experiment.reconstructor.apply(params, operator, y)
    theirs = peer.model(peer.measurement).detach().numpy()[0]
    assert float(jnp.abs(ours - operator.adjoint(y)).max()) > 0.1
    np.testing.assert_allclose(ours.real[..., 0], theirs[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.imag[..., 0], theirs[1], rtol=1e-4, atol=1e-5)


def test_the_peer_differentiates_what_the_library_differentiates():
    experiment, params, peer = in_both()
    x, y = to_jax(peer.signal), to_jax(peer.measurement)

    def loss(params):
        apply = experiment.reconstructor.apply
        return jax.vmap(lambda x, y: mse(apply(params, experiment.operator, y), x))(x, y).mean()

    ours = jax.grad(loss)(params)
    ((peer.model(peer.measurement) - peer.signal) ** 2).mean().backward()
    np.testing.assert_allclose(
        ours["step_size"], peer.model.parameter.grad.numpy(), rtol=1e-3, atol=1e-7
    )
    theirs = peer.model.network[3].weight.grad.numpy().transpose(2, 3, 1, 0)
    ours = ours["network"]["params"]["Conv_1"]["kernel"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


def test_the_peer_takes_the_same_attack_step():
    experiment, params, peer = in_both()
    step = torch_peer().pgd_step(peer)
    step()  # from zero
    theirs = step()
    x, y = to_jax(peer.signal), to_jax(peer.measurement)

    def one(x, y):
        reconstruct = lambda y: experiment.reconstructor.apply(params, experiment.operator, y)
        objective = attacks.reconstruction_error(reconstruct, experiment.operator, x, y)
        ball = attacks.Threat(cases.EPSILON, unit="relative").ball(y)
        ascent = value_and_ascent(objective, jnp.zeros_like(y))[1]
        return objective(ball.project(cases.STEP_SIZE * ball.radius * ball.steepest(ascent)))

    np.testing.assert_allclose(jax.vmap(one)(x, y), theirs.detach().numpy(), rtol=1e-3)


def test_the_peer_trains():
    peers = torch_peer()
    for case in ("train_mse", "train_sgd_jitter"):
        config = small_config(case)
        step = peers.training(peers.seismic(config), config)
        losses = [step() for _ in range(15)]
        assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_side_by_side():
    torch_peer()
    ours, theirs = run(peer="torch", repeats=1)["rows"]
    assert (ours["framework"], theirs["framework"]) == ("jax", "torch")
    assert ours["parameters"] == theirs["parameters"] == 19588
    assert ours["torch_over_jax"] == pytest.approx(theirs["min_s"] / ours["min_s"])
    assert theirs["compile_s"] is None


def test_two_cases_take_turns_in_one_process():
    torch_peer()
    both = job(cases.OVERHEAD_OF, "torch")
    (measured,) = parent.alternate([both], 3, lambda text: None)
    overhead = report.overhead(measured)
    assert np.shape(overhead["seconds"]) == (3, 2)
    assert overhead["quartiles"][0] <= overhead["percent"] <= overhead["quartiles"][1]


def test_a_worker_that_cannot_build_says_why():
    config = small_config()
    config["network"]["num_groups"] = 5
    with pytest.raises(ValueError, match="num_groups must divide"):
        parent.alternate([job(inference=config)], 1, lambda text: None)


def test_a_dead_worker_is_said(capfd):
    with pytest.raises(ChildProcessError, match="worker of jax none ended with status 1; what it"):
        parent.alternate([job([], none={})], 1, lambda text: None)
    assert "KeyError: 'none'" in capfd.readouterr().err
