"""The benchmark as a user runs it, on sizes that say nothing about speed."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from fastmri_files import write_fastmri_file

from jitter_jax.bench import _library, bench, cases, checks, problems, report, rounds, scale, timer

ROOT = Path(__file__).resolve().parents[2]
SIZES = cases.Sizes(height=24, width=16, batch=2, iterations=2)


def run(sizes=SIZES, **options):
    quick = {"repeats": 2, "pairs": 0, "peer": ["none"], "peak": False, "progress": False}
    given = {"problems": ["seismic"], "cases": ["inference"], **quick, **options}
    return bench(sizes=sizes, **given)


def job(names=("inference",), framework="jax", **configs):
    parts = {name: problems.case_config("seismic", SIZES, name) for name in names} | configs
    return {
        "problem": "seismic",
        "framework": framework,
        "threads": 1,
        "platform": None,
        "precision": "default",
        "remat": None,
        "value": None,
        "sizes": SIZES._asdict(),
        "cases": parts,
    }


READY = {
    "parameters": 1,
    "import_bytes": 1e8,
    "temp_bytes": [1e7],
    "program_bytes": [2e7],
    "compile_s": [1.0],
    "calls": [1],
    "gflop": [None],
    "platform": "cpu",
    "device": "cpu",
    "device_peak_bytes": None,
}


def measured(framework, seconds, cores=2, names=("inference",), **changes):
    runs = [{"seconds": [s], "cpu_s": [cores * s]} for s in seconds]
    return {**job(names, framework), **READY, "peak_bytes": 1e9, "runs": runs, **changes}


def test_a_run_reports_what_it_measured(tmp_path, capsys):
    found = run(output=tmp_path / "bench.json", profile=tmp_path / "traces", peak=True)
    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(found))
    (row,) = found["rows"]
    assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
    assert row["min_s"] <= row["median_s"]
    assert row["items_per_s"] == pytest.approx(2 / row["median_s"])
    assert row["gflop"] == pytest.approx(1e-9 * 2 * 2 * 19297 * 2 * 24 * 16)
    assert row["gflop_per_s"] == pytest.approx(row["gflop"] / row["median_s"])
    assert min(found["peak"].values()) > 0 and 0 < row["peak_share"]
    assert row["parameters"] == 19588  # with the step size
    assert row["compile_s"] > 0
    assert 0.05 < row["import_gb"] < row["peak_gb"] < 4
    assert 0 < row["temp_gb"] < row["program_gb"] < row["peak_gb"]
    assert row["torch_over_jax"] is None
    assert found["jitter_overhead"] == []
    assert found["versions"]["jax"] == jax.__version__
    (trace,) = (tmp_path / "traces" / "seismic-inference-jax").rglob("perfetto_trace.json.gz")
    assert trace.stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "seismic 2 x 24 x 16, K = 2" in printed
    assert "| seismic | inference | JAX |" in printed
    assert "Peak: a 3x3 convolution" in printed and "PyTorch / JAX |" not in printed


def test_growth_is_fitted_by_least_squares():
    def row(case, samples, seconds):
        return {
            "problem": "smug",
            "case": case,
            "framework": "jax",
            "remat": None,
            "value": samples,
            "median_s": seconds,
            "temp_gb": 0.1 * samples**2,
            "peak_gb": 0.5 + samples,
        }

    # 1 + 2 samples, and -1, 2 and -1 on top: orthogonal to a constant and to 0, 1, 2.
    rows = [row("train_smug", s, 1 + 2 * s + e) for s, e in ((2, -1), (3, 2), (4, -1))]
    # One line is no growth.
    (fit,) = scale.growth([row("train_mse", 0, 9.0), *rows], "samples")
    assert (fit["problem"], fit["case"], fit["field"]) == ("smug", "train_smug", "samples")
    assert fit["values"] == [2, 3, 4] and fit["peak_gb"] == [2.5, 3.5, 4.5]
    assert fit["intercept_s"] == pytest.approx(1)
    assert fit["slope_s"] == pytest.approx(2)
    assert fit["largest_deviation_s"] == pytest.approx(2)
    assert fit["temp_power"] == pytest.approx(2)
    assert scale.power([1, 2, 4], [3, 3 * 2**1.5, 3 * 4**1.5]) == pytest.approx(1.5)
    assert scale.power([1, 2], [None, 1]) is scale.power([1, 2], [0.0, 1]) is None


def test_size_scales_both_sides():
    sizes = scale.parse_scale("size:32,16").sizes(SIZES)
    assert [*sizes] == [16, 32]
    assert (sizes[32].height, sizes[32].width, sizes[32].batch) == (32, 32, 2)


class Worker:
    """Stands for a process: a case takes a second, and two more for every sample."""

    started: list

    def __init__(self, job, stack, say):
        self.job, self.ready = job, READY
        self.started.append(job)

    def ask(self, line):
        seconds = 1 + 2.0 * (self.job["sizes"]["samples"] or 0)
        if line == "memory":
            return {"peak_bytes": 1e9 * seconds, "device_peak_bytes": None}
        return {"seconds": [seconds], "cpu_s": [seconds]}

    measured = rounds.Worker.measured


@pytest.fixture
def no_processes(monkeypatch):
    monkeypatch.setattr(Worker, "started", [], raising=False)
    monkeypatch.setattr(timer, "Worker", Worker)
    monkeypatch.setattr(rounds, "_PAUSE_S", 0)
    return Worker.started


def test_smug_is_scaled_beside_its_vanilla_and_without_a_peer(no_processes, monkeypatch, capsys):
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)  # no PyTorch
    found = run(
        cases.Sizes(iterations=2, chunk=2),
        problems=["smug"],
        cases=["train_sgd_jitter", "train_smug", "train_mse"],
        scale="samples:4,1,2",
        peer=["torch"],
        repeats=1,
    )
    rows = [(r["case"], r["sizes"]["samples"], r["sizes"]["chunk"]) for r in found["rows"]]
    smug = [("train_smug", 1, 1), ("train_smug", 2, 2), ("train_smug", 4, 2)]
    assert rows == [("train_mse", None, None), *smug]
    (fit,) = found["growth"]
    assert (fit["values"], fit["peak_gb"]) == ([1, 2, 4], [3, 5, 9])
    assert fit["intercept_s"] == pytest.approx(1) and fit["slope_s"] == pytest.approx(2)
    printed = capsys.readouterr().out
    assert "| smug | train_mse | JAX | 1 |" in printed
    assert "| smug | train_smug, samples = 4, chunk = 2 | JAX | 9 |" in printed
    assert "Growth, smug train_smug, JAX: 1 +2 * samples seconds" in printed
    assert "peak 3.00, 5.00, 9.00 GB at 1, 2, 4" in printed
    assert "No PyTorch peer: smug" in printed


def test_a_scale_is_drawn_by_rematerialisation(no_processes, tmp_path, capsys):
    found = run(
        problems=["smug"],
        cases=["train_smug"],
        scale="samples:1,4",
        remat=["none", "full"],
        plot=tmp_path / "growth.png",
    )
    lines = [(row["remat"], row["value"]) for row in found["rows"]]
    assert lines == [("none", 1), ("full", 1), ("none", 4), ("full", 4)]
    for job, (remat, value) in zip(no_processes, lines, strict=True):
        config = job["cases"]["train_smug"]
        assert config["unroll"]["remat"] == remat
        assert config["smoothing"]["num_samples"] == value
    assert [fit["remat"] for fit in found["growth"]] == ["none", "full"]
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "| smug | train_smug, samples = 4, chunk = 4, remat full | JAX |" in printed
    assert "Growth, smug train_smug, remat full, JAX: " in printed
    # 3 and 9 seconds
    assert "time as samples^0.79, temporaries as samples^0.00; peak 3.00, 9.00 GB" in printed


def test_every_problem_has_its_lines(no_processes):
    found = run(cases.Sizes(), problems=list(problems.PROBLEMS), cases=list(cases.CASES))
    lines = [(row["problem"], row["case"]) for row in found["rows"]]
    assert lines == [(p, case) for p in problems.PROBLEMS for case in problems.PROBLEMS[p].cases]
    by_case = {(row["problem"], row["case"]): row for row in found["rows"]}
    # Two draws in seven samples' time, beside one second.
    assert by_case["mri", "train_smt_grad"]["over_mse"] == 5
    assert by_case["mri", "train_mse"]["over_mse"] == 1
    assert by_case["mri", "attack"]["over_mse"] is None


def test_peers_are_timed_once_and_agree_first(no_processes, monkeypatch):
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: object())
    found = run(
        cases=["pgd_step", "certificate"],
        peer=["torch", "torch_compile"],
        remat=["none", "full"],
    )
    started = [(job["framework"], job["remat"], *job["cases"]) for job in no_processes]
    peers = [("torch", "none", "pgd_step"), ("torch_compile", "none", "pgd_step")]
    certificates = [("jax", "none", "certificate"), ("jax", "full", "certificate")]
    first, *rest = started
    assert first == ("agreement", "none", "pgd_step")
    assert rest == [
        ("jax", "none", "pgd_step"),
        *peers,
        ("jax", "full", "pgd_step"),
        *certificates,
    ]
    for row in found["rows"][:1] + found["rows"][3:4]:
        assert row["framework"] == "jax"
        assert row["torch_over_jax"] == row["torch_compile_over_jax"] == 1


def test_jobs_of_a_value_stay_together():
    jobs = [{"value": value, "number": number} for value in (1, 2, 3) for number in (0, 1)]
    sizes = {together: [len(g) for g in timer.groups(jobs, together)] for together in (1, 4, 8)}
    assert sizes == {1: [2, 2, 2], 4: [4, 2], 8: [6]}


def test_the_loader_is_measured(no_processes, tmp_path, capsys):
    for i in range(2):
        write_fastmri_file(tmp_path / f"{i}.h5", shape=(330, 322), recon_size=(320, 320), seed=i)
    found = run(loader=tmp_path)["loader"]
    assert found["num_slices"] == 6 and len(found["slices_per_s"]) == 2
    assert found["median_slices_per_s"] > 0
    assert "slices/s of (330, 322) k-space, cropped to 320" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train_sgd_jitter", "pgd_step"])
def test_a_case_runs_again_and_again(name):
    work = _library.make_work(name, job([name]))
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
    ours, theirs = measured("jax", [1, 2, 4]), measured("torch", [2, 3, 4], cores=4)
    other = measured("torch", [9, 9, 9], names=["pgd_step"])
    compiled = measured("torch_compile", [4, 4, 4], device_peak_bytes=4e9)
    peak = {"convolution": [1, 2, 3], "matmul": [9, 9, 9]}
    row = report.table_row(ours, [ours, theirs, other, compiled], peak=peak)
    assert report.table_row(theirs, [ours, theirs])["torch_over_jax"] is None
    assert row["torch_over_jax"] == 1.5
    assert row["torch_over_jax_cpu"] == 3
    assert row["torch_compile_over_jax"] == 2
    assert (row["peak_of_torch"], row["peak_of_torch_compile"]) == (1, 0.25)
    assert row["cores"] == 2
    assert row["peak_share"] == pytest.approx(row["gflop"] / 4)  # the median of 1, 4 and 12


def test_a_scheme_is_held_against_the_plain_step_of_its_framework():
    plain = measured("jax", [1, 2, 4], names=["train_mse"])
    theirs = measured("torch", [5, 5, 5], names=["train_mse"])
    scheme = measured("jax", [3, 4, 20], names=["train_adversarial"])
    assert report.table_row(scheme, [plain, theirs, scheme])["over_mse"] == 3
    elsewhere = {**plain, "remat": "full"}
    assert report.table_row(scheme, [elsewhere, theirs, scheme])["over_mse"] is None


def test_the_memory_of_a_device_counts_where_there_is_one():
    row = report.table_row(measured("jax", [1.0], device_peak_bytes=3e9), [])
    assert (row["peak_gb"], row["host_peak_gb"]) == (pytest.approx(3), pytest.approx(1))


def test_frameworks_on_different_devices_are_refused():
    ours, theirs = measured("jax", [1.0]), measured("torch", [1.0], platform="gpu")
    checks.check_platforms([ours, ours])
    with pytest.raises(ValueError, match="different devices"):
        checks.check_platforms([ours, theirs])


def test_a_worker_is_told_its_platform_and_devices(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    told = rounds.environment(job())
    assert told["JAX_PLATFORMS"] == "cpu" and told["XLA_FLAGS"] == "--xla_dump_to=x"
    assert told["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    on_gpu = {**job(), "platform": "gpu", "sizes": SIZES._replace(devices=4)._asdict()}
    told = rounds.environment(on_gpu)
    assert told["JAX_PLATFORMS"] == "cuda"
    assert told["XLA_FLAGS"].endswith("--xla_force_host_platform_device_count=4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats=0"),
        ({"pairs": -1}, "pairs=-1"),
        ({"together": 0}, "together=0"),
        ({"sizes": SIZES._replace(height=0)}, "height=0"),
        ({"sizes": SIZES._replace(devices=0)}, "devices=0"),
        ({"cases": ["certify"]}, "'certify'"),
        ({"cases": []}, "cases=''"),
        ({"cases": ["train_smug"]}, "cases='train_smug'"),
        ({"sizes": SIZES._replace(chunk=-1)}, "chunk=-1"),
        ({"scale": "depth:1,2"}, "scale='depth:1,2'"),
        ({"scale": "batch:2,2"}, "scale='batch:2,2'"),
        ({"scale": "batch:0,2"}, "scale='batch:0,2'"),
        ({"scale": "batch"}, "two or more numbers of at least 1"),
        ({"scale": "batch:1,2.5"}, "two or more numbers of at least 1"),
        ({"scale": "samples:1,2"}, "it changes none of the cases"),
        ({"problems": ["ct"]}, "problems='ct'"),
        ({"peer": ["numpy"]}, "peer='numpy'"),
        ({"peer": ["torch", "none"]}, "'none' stands alone"),
        ({"peer": ["torch"], "platform": "tpu"}, "peer is not accepted with platform='tpu'"),
        ({"platform": "quantum"}, "platform='quantum'"),
        ({"precision": "half"}, "precision='half'"),
        ({"remat": ["some"]}, "remat='some'"),
        ({"threads": 0}, "threads=0"),
        ({"threads": 10**6}, "threads=1000000"),
        ({"output": "no/such/folder/x.json"}, "a folder that exists is expected"),
        ({"output": "."}, "a file in a folder"),
        ({"plot": "no/such/folder/x.png"}, "plot='no/such/folder/x.png'"),
        ({"plot": "x.bad", "scale": "batch:1,2"}, "plot='x.bad' .* an ending of .*'png'"),
        ({"profile": __file__}, "profile=.* is not accepted"),
        ({"plot": "x.png"}, "it is drawn of a scale"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_a_missing_peer_is_said(monkeypatch):
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs PyTorch, which is not installed"):
        run(peer=["torch"])


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


def test_the_parent_leaves_both_frameworks_to_its_workers():
    code = (
        "import sys; import jitter_jax.bench; "
        "assert not {'jax', 'torch', 'matplotlib'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, capture_output=True)
    assert done.stderr == b"" and done.returncode == 0


def test_a_worker_that_cannot_build_says_why():
    config = problems.case_config("seismic", SIZES, "inference")
    config["network"]["num_groups"] = 5
    with pytest.raises(ValueError, match="num_groups must divide"):
        start(job(inference=config))


def test_a_dead_worker_is_said(capfd):
    with pytest.raises(ChildProcessError, match="worker of JAX none ended with status 1; what it"):
        start(job([], none={}))
    assert "KeyError: 'none'" in capfd.readouterr().err


def start(job):
    from contextlib import ExitStack

    with ExitStack() as stack:
        return rounds.Worker(job, stack, lambda text: None)
