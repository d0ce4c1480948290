"""The binaries as a user runs them, on a problem that takes seconds."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from fastmri_files import write_fastmri_file

from configs import mri_phantom, points, seismic
from jitter_jax import experiment as experiments
from jitter_jax.commands.attack import attack_runs
from jitter_jax.commands.compare import compare
from jitter_jax.commands.reconstruct import reconstruct_file
from jitter_jax.commands.runs import load_trained
from jitter_jax.commands.train import train_and_evaluate
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.train import METRICS_FILE, TIMING_FIELDS, read_metrics

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "--config.train.num_steps=60",
    "--config.train.checkpoint_every=20",
    "--config.train.log_every=10",
    "--config.train.validate_every=30",
    "--config.unroll.num_iterations=3",
    "--config.evaluate.attack.num_steps=3",
    "--config.data.num_test=7",
)


def small_points(**train):
    config = points.get_config()
    config.unroll.num_iterations = 3
    config.evaluate.attack.num_steps = 3
    config.data.num_test = 7
    config.train.update(
        {"num_steps": 60, "checkpoint_every": 20, "log_every": 10, "validate_every": 30} | train
    )
    return config


def small_sections():
    config = seismic.get_config()
    config.data.update({"num_train": 6, "num_validation": 2, "num_test": 3})
    config.data.sections.shape = (24, 16)
    config.network.width = 4
    config.unroll.num_iterations = 2
    config.evaluate.attack.num_steps = 2
    config.evaluate.num_draws = 2
    config.train.update({"num_steps": 4, "batch_size": 2, "log_every": 2, "validate_every": 2})
    return config


def command(binary, *arguments, timeout=120):
    return subprocess.run(
        [sys.executable, str(ROOT / "bin" / binary), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One run of each problem."""
    folder = tmp_path_factory.mktemp("runs")
    train_and_evaluate(small_points(), folder / "points", progress=False)
    train_and_evaluate(small_sections(), folder / "sections", progress=False)
    return folder


def without_timing(workdir):
    return [
        {key: value for key, value in record.items() if key not in TIMING_FIELDS}
        for record in read_metrics(workdir / METRICS_FILE)
    ]


def params_of(workdir):
    return load_trained(workdir).params


def assert_same_params(a, b):
    jax.tree.map(np.testing.assert_array_equal, params_of(a), params_of(b))


def test_train_leaves_what_it_says(trained):
    for run in ("points", "sections"):
        names = {path.name for path in (trained / run).iterdir()}
        expected = {"config.json", "metrics.jsonl", "checkpoints", "curves.png", "examples.png"}
        assert names >= expected | {"evaluation.json"}
        rows = json.loads((trained / run / "evaluation.json").read_text())["rows"]
        assert [row["condition"] for row in rows][:3] == ["clean", "average case", "worst case"]
        assert len(rows) == 5
    assert list(rows[0]["metrics"]) == ["psnr", "ssim"]


def test_training_lowers_the_validation_loss(tmp_path):
    workdir = tmp_path / "run"
    train_and_evaluate(small_points(num_steps=300), workdir, progress=False)
    losses = [r["loss"] for r in read_metrics(workdir / METRICS_FILE) if r["split"] != "train"]
    assert losses[-1] < 0.5 * losses[0]


def test_stopped_run_goes_on_bit_for_bit(trained, tmp_path):
    """SIGTERM in the middle of training, then the same command."""
    workdir = tmp_path / "stopped"
    arguments = ("--config=configs/points.py", f"--workdir={workdir}", "--progress=false", *SMALL)
    slow = subprocess.Popen(
        [sys.executable, str(ROOT / "bin/train"), *arguments, "--config.train.num_steps=60"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 90
    while not (workdir / METRICS_FILE).exists() and slow.poll() is None:
        assert time.monotonic() < deadline, "training did not start"
        time.sleep(0.005)
    slow.send_signal(signal.SIGTERM)
    output, _ = slow.communicate(timeout=90)
    assert slow.returncode in (0, 128 + signal.SIGTERM), output
    continued = command("train", *arguments)
    assert continued.returncode == 0, continued.stderr
    assert without_timing(workdir) == without_timing(trained / "points")
    assert_same_params(workdir, trained / "points")


def test_shorter_run_extended_equals_longer(trained, tmp_path):
    workdir = tmp_path / "run"
    train_and_evaluate(small_points(num_steps=30), workdir, progress=False)
    train_and_evaluate(small_points(), workdir, progress=False)
    assert_same_params(workdir, trained / "points")


def test_attack_reports(trained, tmp_path):
    report = attack_runs(
        [trained / "sections"],
        tmp_path,
        overrides={
            "evaluate.threat.norm": "linf",
            "evaluate.threat.unit": "absolute",
            "evaluate.attacked": ("large_layer",),
        },
        epsilons=[0.0, 0.02],
        num_examples=2,
        progress=False,
    )
    (run,) = report["runs"]
    by_name = {row["condition"]: row for row in run["rows"]}
    clean = by_name["clean"]["metrics"]["psnr"]["mean"]
    assert by_name["worst case at 0"]["metrics"]["psnr"]["mean"] == pytest.approx(clean, abs=1e-4)
    assert by_name["worst case at 0.02"]["metrics"]["psnr"]["mean"] < clean
    shifted = [
        by_name[name]["metrics"]["psnr"]["mean"]
        for name in ("OOD large_layer", "large_layer, average case", "large_layer, worst case")
    ]
    assert shifted == sorted(shifted, reverse=True) and shifted[0] > shifted[2]
    definitions = run["definitions"]
    assert definitions["threat"]["norm"] == "linf"
    assert definitions["metrics"]["psnr"].keys() >= {"formula", "peak", "clamp", "channel", "unit"}
    assert definitions["worst case"].keys() >= {"num_steps", "restarts", "keep_best", "rule"}
    assert definitions["worst case"]["step_size"] == pytest.approx(2.5 / 2)
    assert definitions["reconstruction"]["method"] == "gradient"
    assert definitions["seed"] == 0
    assert json.loads((tmp_path / "attack.json").read_text()) == report
    with (tmp_path / "attack.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(run["rows"])
    assert float(lines[0]["psnr_mean"]) == pytest.approx(clean)
    assert (tmp_path / "attack.png").stat().st_size > 1000


def test_attack_command(trained, tmp_path):
    done = command(
        "attack",
        f"--workdir={trained / 'points'}",
        f"--output={tmp_path}",
        "--num_examples=3",
        "--epsilon=0.02",
        "--attack=fgsm",
    )
    assert done.returncode == 0, done.stderr
    assert "worst case | 0.02" in done.stdout


def test_compare(tmp_path):
    config = small_points()
    summary = compare(
        config, tmp_path, schemes=("mse@proximal", "spgd_jitter"), num_seeds=2, progress=False
    )
    clean = summary["spgd_jitter"]["clean"]["risk"]
    assert len(clean["values"]) == 2
    assert clean["mean"] == pytest.approx(np.mean(clean["values"]))
    gap = np.subtract(clean["values"], summary["mse@proximal"]["clean"]["risk"]["values"])
    assert clean["difference"] == pytest.approx(gap.mean())
    assert clean["better"] == int((gap < 0).sum())
    assert clean["standard_error"] == pytest.approx(gap.std(ddof=1) / np.sqrt(2))
    config_of = json.loads((tmp_path / "spgd_jitter-1" / "config.json").read_text())
    assert (config_of["seed"], config_of["scheme"]["name"]) == (1, "spgd_jitter")
    assert config_of["unroll"]["method"] == "proximal"
    before = (tmp_path / "mse-proximal-0" / "evaluation.json").stat().st_mtime_ns
    again = compare(
        config, tmp_path, schemes=("mse@proximal", "spgd_jitter"), num_seeds=2, progress=False
    )
    assert again == summary
    assert (tmp_path / "mse-proximal-0" / "evaluation.json").stat().st_mtime_ns == before


def test_reconstruct(trained, tmp_path):
    section = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
    np.save(tmp_path / "y.npy", section)
    estimates = reconstruct_file(trained / "sections", tmp_path / "y.npy", tmp_path / "out")
    assert estimates.shape == (1, 30, 20, 1)
    np.savez(tmp_path / "y.npz", traces=3 * section.T, other=section)
    scaled = reconstruct_file(
        trained / "sections", tmp_path / "y.npz", tmp_path / "scaled", key="traces", transpose=True
    )
    np.testing.assert_allclose(scaled, 3 * estimates, rtol=1e-4, atol=1e-5)
    stored = np.load(tmp_path / "scaled.npz", allow_pickle=False)["estimate"]
    np.testing.assert_array_equal(stored, scaled)
    with pytest.raises(ValueError, match="--key"):
        reconstruct_file(trained / "sections", tmp_path / "y.npz", tmp_path / "out")


def small_images():
    config = mri_phantom.get_config()
    config.data.update({"num_train": 4, "num_validation": 2, "num_test": 3})
    config.data.images.shape = (24, 20)
    config.data.sampling.acceleration = 2.0
    config.data.out_of_distribution = ("lesion", "acceleration")
    config.data.shifts.acceleration = 3.0
    config.network.update({"width": 4, "depth": 2})
    config.unroll.num_iterations = 2
    config.evaluate.attack.num_steps = 2
    config.evaluate.num_draws = 2
    config.train.update({"num_steps": 4, "batch_size": 2, "log_every": 2, "validate_every": 2})
    return config


def test_kspace_from_training_to_reconstruction(tmp_path):
    config = small_images()
    train_and_evaluate(config, tmp_path / "mri", progress=False)
    report = attack_runs([tmp_path / "mri"], tmp_path, overrides={}, progress=False)
    (run,) = report["runs"]
    by_name = {row["condition"]: row for row in run["rows"]}
    energy = by_name["worst case"]["perturbation_energy"]
    rings = sum(share for name, share in energy.items() if name != "unsampled")
    assert energy["unsampled"] == 0 and rings == pytest.approx(1, abs=1e-5)
    assert by_name["clean"]["perturbation_energy"] is None
    assert by_name["OOD lesion"]["num_volumes"] == 3
    assert run["definitions"]["metrics"]["psnr"]["channel"] == "magnitude"
    assert (tmp_path / "attack.png").stat().st_size > 1000

    built = experiments.build(config)
    batch = built.measure(next(evaluation_batches(built.sources["test"], 2)), "test")
    apply = built.reconstructor.apply
    expected = apply(params_of(tmp_path / "mri"), batch.operator_of(1), batch.measurement[1])
    # In another unit, and with the masks told or found.
    kspace = 3e-5 * np.asarray(batch.measurement)[..., 0]
    masks = np.stack([np.asarray(batch.operator_of(i).leaves) for i in range(2)])
    for given in ({}, {"mask": masks}, {"mask": masks[0]}):
        np.savez(tmp_path / "y.npz", kspace=kspace, **given)
        estimates = reconstruct_file(tmp_path / "mri", tmp_path / "y.npz", tmp_path / "out")
        assert estimates.shape == (2, 24, 20, 1) and estimates.dtype == np.complex64
        np.testing.assert_allclose(estimates[1] / 3e-5, expected, rtol=1e-3, atol=1e-4)
    write_fastmri_file(tmp_path / "volume.h5", num_slices=2, shape=(24, 20), test_set=True)
    volume = reconstruct_file(tmp_path / "mri", tmp_path / "volume.h5", tmp_path / "out")
    assert volume.shape == (2, 24, 20, 1) and np.isfinite(volume).all()
    np.savez(tmp_path / "y.npz", kspace=kspace, mask=masks[:, :5])
    with pytest.raises(ValueError, match="'mask' has shape"):
        reconstruct_file(tmp_path / "mri", tmp_path / "y.npz", tmp_path / "out")
    np.save(tmp_path / "bad.npy", np.full((24, 20), np.nan + 0j))
    with pytest.raises(ValueError, match="NaN or infinite"):
        reconstruct_file(tmp_path / "mri", tmp_path / "bad.npy", tmp_path / "out")


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def bad_file(folder):
    """A user's file with a value that is not a number."""
    signal = np.ones((4, 24, 16), np.float32)
    signal[2, 3, 1] = np.nan
    np.savez(folder / "bad.npz", signal=signal)
    return folder / "bad.npz"


def test_refused_input_leaves_the_folder_free(tmp_path):
    """A value refused once does not bind the folder to its config."""
    config = small_points(num_steps=10)
    config.train.batch_size = 500
    with pytest.raises(ValueError, match="batch_size=500"):
        train_and_evaluate(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_reconstruct_does_not_overwrite_its_input(trained, tmp_path):
    np.savez(tmp_path / "y.npz", y=np.ones((30, 20), np.float32))
    with pytest.raises(ValueError, match="overwrite"):
        reconstruct_file(trained / "sections", tmp_path / "y.npz", tmp_path / "y")
    reconstruct_file(trained / "sections", tmp_path / "y.npz", tmp_path / "r_0.05")
    assert (tmp_path / "r_0.05.npz").exists()


def test_reconstruct_does_not_need_the_training_data(trained, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(trained / "sections"), str(copy)], check=True)
    config = json.loads((copy / "config.json").read_text())
    config["data"]["kind"], config["data"]["folder"] = "wells", "moved"
    (copy / "config.json").write_text(json.dumps(config))
    np.save(tmp_path / "y.npy", np.ones((30, 20), np.float32))
    assert reconstruct_file(copy, tmp_path / "y.npy", tmp_path / "out").shape == (1, 30, 20, 1)


def test_runs_of_different_problems_are_not_compared(trained, tmp_path):
    with pytest.raises(ValueError, match="differ in `data`"):
        attack_runs(
            [trained / "points", trained / "sections"], tmp_path, overrides={}, progress=False
        )


BAD_COMMANDS = {
    "unknown flag": (["--no_such_flag=1"], "no_such_flag"),
    "unknown field": (["--config.train.steps=5"], "steps"),
    "stray argument": (["extra"], "extra"),
    "missing config": (["--config=configs/none.py"], "none.py"),
    "wrong type": (["--config.train.num_steps=many"], "num_steps"),
    "refused value": (["--config.unroll.num_iterations=0"], "num_iterations must be at least 1"),
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_bad_training_command(name, tmp_path):
    arguments, message = BAD_COMMANDS[name]
    config = [] if name == "missing config" else ["--config=configs/points.py"]
    done = command("train", *config, f"--workdir={tmp_path / 'run'}", *arguments)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"evaluate.threat.epsilon": -1.0}, "epsilon"),
        ({"scheme.jitter.sigma": -0.1}, "sigma"),
        ({"scheme.name": "magic"}, "magic"),
        ({"network.activation": "magic"}, "magic"),
        ({"metrics.names": ("magic",)}, "magic"),
        ({"data.out_of_distribution": ("magic",)}, "magic"),
        ({"train.num_steps": -5}, "-5"),
        ({"train.keep": 0}, "keep"),
        ({"evaluate.num_draws": 0}, "num_draws=0"),
        ({"seed": -1}, "seed=-1"),
        ({"scheme.adversarial.threat.norm": "l7"}, "l7"),
        ({"train.batch_size": 201}, "batch_size=201"),
        (
            {"data.kind": "file", "data.file.train": "none.npz", "data.file.test": "none.npy"},
            "none.npz",
        ),
    ],
)
def test_bad_training_input(fields, message, tmp_path):
    config = points.get_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train_and_evaluate(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_missing_workdir():
    done = command("train")
    assert done.returncode != 0
    assert "workdir" in done.stderr + done.stdout


def test_file_with_nan(tmp_path):
    path = bad_file(tmp_path)
    done = command(
        "train",
        f"--workdir={tmp_path / 'run'}",
        "--config.data.kind=file",
        f"--config.data.file.train={path}",
        "--config.data.file.test=none.npy",
    )
    assert done.returncode == 1
    assert "bad.npz" in done.stderr
    assert "signal" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_config_does_not_touch_the_run(trained):
    workdir = trained / "points"
    before = files(workdir)
    done = command(
        "train",
        "--config=configs/points.py",
        f"--workdir={workdir}",
        *SMALL,
        "--config.network.width=8",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "network.width: the run has 32, the config now says 8" in done.stderr
    assert files(workdir) == before


BAD_ATTACKS = {
    "negative epsilon": (["--epsilon=-0.1"], "-0.1"),
    "negative in curve": (["--epsilons=0.1,-2"], "-2"),
    "not a number": (["--epsilons=much"], "much"),
    "unknown norm": (["--norm=l3"], "l3"),
    "unknown unit": (["--unit=furlong"], "furlong"),
    "unknown space": (["--space=outer"], "outer"),
    "unknown attack": (["--attack=magic"], "magic"),
    "zero steps": (["--num_steps=0"], "num_steps must be at least 1"),
    "zero restarts": (["--restarts=0"], "restarts must be at least 1"),
    "zero examples": (["--num_examples=0"], "num_examples"),
    "zero iterations": (["--num_iterations=0"], "num_iterations must be at least 1"),
    "no memory": (["--memory_gb=0"], "budget"),
}


@pytest.mark.parametrize("name", BAD_ATTACKS)
def test_bad_attack_input(name, trained, tmp_path):
    arguments, message = BAD_ATTACKS[name]
    output = tmp_path / "out"
    done = command("attack", f"--workdir={trained / 'points'}", f"--output={output}", *arguments)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert not output.exists()


def test_attack_without_a_run(tmp_path):
    done = command("attack", f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert "config.json" in done.stderr


def test_attack_on_a_truncated_checkpoint(trained, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(trained / "points"), str(copy)], check=True)
    for path in (copy / "checkpoints").rglob("*"):
        if path.is_file() and path.stat().st_size > 64:
            os.truncate(path, path.stat().st_size // 2)
    done = command("attack", f"--workdir={copy}")
    assert done.returncode == 1
    assert "checkpoint" in done.stderr
    assert str(copy) in done.stderr


def test_config_that_does_not_fit_the_checkpoint(trained, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(trained / "points"), str(copy)], check=True)
    config = json.loads((copy / "config.json").read_text())
    config["network"]["width"] = 8
    (copy / "config.json").write_text(json.dumps(config))
    done = command("attack", f"--workdir={copy}")
    assert done.returncode == 1
    assert "32" in done.stderr
    assert "8" in done.stderr
