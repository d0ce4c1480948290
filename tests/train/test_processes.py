"""Two processes on this machine train as one, and one goes on where they stopped."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import denoising, points
from jitter_jax import train
from jitter_jax.commands.attack import attack_runs
from jitter_jax.commands.certify import Plan, certify_runs
from jitter_jax.commands.processes import check_flags
from jitter_jax.commands.runs import load_experiments, load_trained
from jitter_jax.commands.train import train_and_evaluate, train_only

ROOT = Path(__file__).parents[2]
FIELDS = {
    "data.num_train": 20,
    "data.num_validation": 3,
    "data.num_test": 3,
    "data.out_of_distribution": (),
    "network.width": 4,
    "network.depth": 2,
    "unroll.num_iterations": 1,
    "scheme.name": "sgd_jitter",
    "train.batch_size": 8,
    "train.num_steps": 20,
    "train.log_every": 5,
    "train.validate_every": 10,
    "train.checkpoint_every": 10,
    "optimizer.learning_rate": 0.01,
    "evaluate.attack.num_steps": 2,
    "evaluate.num_draws": 2,
}
PICTURES = {
    "data.images.shape": (16, 16),
    "data.augment.patch": (8, 8),
    "network.name": "dncnn",
    "unroll.method": "proximal",
    "train.num_steps": 10,
    "metrics.names": ("psnr",),
}
PLAN = Plan(sigmas=(0.1,), epsilons=(0.05,), samples=(30,), confidence=0.9, chunk=8)


def in_two_processes(command, arguments, num_devices):
    """Runs a program twice, the two knowing each other, and returns what each printed."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={num_devices}")
    processes = [
        subprocess.Popen(
            [sys.executable, *command, *arguments(address, number)],
            env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [output for output, _ in outputs]


def config_of(module, fields):
    config = module.get_config()
    config.update_from_flattened_dict({**FIELDS, **fields})
    return config


def numbers_of(workdir):
    """Returns the losses of the record, and the means of the table."""
    losses = [line["loss"] for line in train.read_metrics(workdir / train.METRICS_FILE)]
    rows = json.loads((workdir / "evaluation.json").read_text())["rows"]
    return losses + [x["mean"] for row in rows for x in row["metrics"].values()]


def assert_close(found, expected):
    # Sums in another order, after 20 steps of Adam, which divides by small numbers.
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)


def params_of(workdir):
    return jax.tree.leaves(load_trained(workdir).params)


def test_two_processes_train_as_one_and_one_goes_on(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    train_and_evaluate(config_of(points, {"devices.num": 1}), one, progress=False)

    def arguments(address, number):
        fields = {**FIELDS, "train.num_steps": 10}
        return [
            *(f"--workdir={two}", "--progress=False"),
            *(f"--config.{name}={value}" for name, value in fields.items()),
            *(f"--coordinator_address={address}", "--num_processes=2", f"--process_id={number}"),
        ]

    command = [ROOT / "bin" / "train", f"--config={ROOT / 'configs' / 'points.py'}"]
    first, second = in_two_processes(command, arguments, num_devices=1)
    assert "2 of 2 devices, 4 examples of a batch on each" in first and "worst case" in first
    assert "worst case" not in second and "devices" not in second
    lines = train.read_metrics(two / train.METRICS_FILE)
    assert [line["step"] for line in lines] == [5, 10, 10]
    for name in ("config.json", "evaluation.json", "curves.png", "examples.png"):
        assert (two / name).exists()

    train_and_evaluate(config_of(points, {}), two, progress=False)
    assert_close(params_of(two), params_of(one))
    assert_close(numbers_of(two), numbers_of(one))


def everything(folder, fields):
    """Trains, attacks and certifies on pictures."""
    config = config_of(denoising, {**PICTURES, **fields})
    workdir, devices = folder / "run", {"devices.num": config.devices.num}
    train_only(config, workdir, progress=False)
    attack_runs([workdir], folder / "attacked", overrides=devices, progress=False)
    runs = load_experiments([workdir], devices)
    certify_runs(runs, folder / "certified", PLAN, num_examples=1, progress=False)


def test_two_processes_of_two_devices_by_pmap_attack_and_certify_as_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    everything(one, {"devices.num": 1})
    in_two_processes([__file__], lambda address, number: [address, str(number), two], num_devices=2)
    assert_close(params_of(two / "run"), params_of(one / "run"))
    (first,), (second,) = (
        json.loads((folder / "attacked" / "attack.json").read_text())["runs"]
        for folder in (one, two)
    )
    for row, other in zip(first["rows"], second["rows"], strict=True):
        assert_close([row["metrics"]["psnr"]["mean"]], [other["metrics"]["psnr"]["mean"]])
    (first,), (second,) = (
        json.loads((folder / "certified" / "certify.json").read_text())["rows"]
        for folder in (one, two)
    )
    assert first.keys() == second.keys()
    for name in ("certified_psnr", "discrepancy", "smoothed_attacked_psnr"):
        assert_close(*(row["values"][name] for row in (first, second)))


@pytest.mark.parametrize(
    "values, message",
    [
        ((None, 2, None, False), "--coordinator_address, --num_processes, .* expected together"),
        ((None, None, 0, True), "--distributed finds out by itself"),
        (("127.0.0.1:1", 2, 2, False), "process_id=2 is not accepted with --num_processes=2"),
        (("127.0.0.1:1", 2, -1, False), "process_id=-1 is not accepted"),
    ],
)
def test_flags_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_flags(*values)
    check_flags(None, None, None, False)
    check_flags(None, None, None, True)
    check_flags("127.0.0.1:1", 2, 1, False)


if __name__ == "__main__":
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
    assert jax.device_count() == 4
    everything(Path(sys.argv[3]), {"devices.parallel": "pmap", "train.steps_at_once": 5})
