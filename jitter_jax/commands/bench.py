"""Time the library side by side with PyTorch: the work of `bin/bench`.

Every case runs in a process of its own, which builds, compiles and warms up, and then waits. The
processes take turns, one run each and one at a time, so that whatever else the machine does
disturbs all of them alike.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

# Neither JAX nor PyTorch is imported at the top: each belongs in its own workers.
Config = Any  # an ml_collections.ConfigDict
Plain = dict[str, Any]
Measured = Mapping[tuple[str, str], Plain]  # by framework and case


class Sizes(NamedTuple):
    """Of one batch, and of the unroll."""

    height: int = 352
    width: int = 352
    batch: int = 2
    iterations: int = 5


class Problem(NamedTuple):
    """One inverse problem with its network; the JAX side is `experiment.build` of its config.

    Attributes:
        settings: fields of the config that define the problem, by dotted name, so that a change of
            the config's defaults does not change what is timed.
        forward_flops: floating-point operations of the convolutions in one reconstruction of the
            batch, from the resized config.
        convolutions: how the printed notes describe them.
    """

    settings: Mapping[str, Any]
    forward_flops: Callable[[Plain], float]
    convolutions: str


def _seismic_flops(config: Plain) -> float:
    hidden, (height, width) = config["network"]["width"], config["data"]["shape"]
    kernels = [(3, 2, hidden), (3, hidden, hidden), (3, hidden, hidden), (3, hidden, 1), (1, 1, 1)]
    pixels = config["train"]["batch_size"] * height * width
    flops = sum(2 * size**2 * inputs * outputs * pixels for size, inputs, outputs in kernels)
    return float(config["unroll"]["num_iterations"] * flops)


# A problem needs a config in `bin/bench`, a row here, and one in `torch_peer.PEERS`.
PROBLEMS = {
    "seismic": Problem(
        {
            "operator.name": "convolution",
            "network.name": "seismic_cnn",
            "network.width": 32,
            "network.num_groups": 4,
            "network.activation": "relu",
            "unroll.method": "gradient",
            "unroll.start": "measurement",
            "unroll.sees_measurement": True,
            "unroll.step_size.name": "sigmoid",
            "unroll.step_size.scale": 0.1,
        },
        _seismic_flops,
        "four 3x3 and a 1x1 convolution an iteration",
    ),
}


class Case(NamedTuple):
    """What is timed.

    Attributes:
        kind: `"train"`, `"pgd"` or `"inference"`.
        scheme: of the training step.
        passes: floating-point operations, in forward passes.
    """

    kind: str
    scheme: str
    passes: int


CASES = {
    "train_mse": Case("train", "mse", 3),
    "train_sgd_jitter": Case("train", "sgd_jitter", 3),
    "pgd_step": Case("pgd", "mse", 2),
    "inference": Case("inference", "mse", 1),
}
FRAMEWORKS = {"jax": "JAX", "torch": "PyTorch"}
REMATS = ("keep_costly", "full", "none")
_OVERHEAD_OF = ("train_mse", "train_sgd_jitter")
_WARM_UPS = 2
_PAUSE_S = 0.1  # after a run, in which the worker's threads stop looking for more to do


def bench(
    configs: Mapping[str, Config],
    *,
    sizes: Sizes,
    cases: Sequence[str] = tuple(CASES),
    repeats: int = 9,
    pairs: int = 9,
    peer: str = "torch",
    threads: int | None = None,
    remat: str | None = None,
    output: str | Path | None = None,
    progress: bool = True,
) -> Plain:
    """Time the cases of the problems, print a Markdown table and write a report.

    Args:
        configs: the problems' configs, by their names in `PROBLEMS`.
        sizes: of the batch.
        cases: names in `CASES`.
        repeats: timed runs of each case, at least 1.
        pairs: pairs of training steps, with jitter and without, for the jitter's overhead; 0 leaves
            it out, and so does a choice of cases without both.
        peer: `"torch"` or `"none"`.
        threads: processors to use; all that the process may use if None.
        remat: `config.unroll.remat` instead of the config's.
        output: JSON file of the report.
        progress: whether to say on standard error what is being done.

    Returns:
        The report.

    Raises:
        ValueError: an argument is not accepted, or PyTorch is missing.
        RuntimeError: a worker died.
    """
    _check_arguments(configs, sizes, cases, repeats, pairs, peer, remat, output)
    threads = _checked_threads(threads)
    frameworks = ["jax"] if peer == "none" else list(FRAMEWORKS)
    say = _say if progress else lambda text: None
    load_before = os.getloadavg()
    rows, overheads = [], []
    for problem, config in configs.items():
        plain = {
            name: case_config(problem, config, sizes, CASES[name].scheme, remat) for name in cases
        }
        jobs = [
            {"problem": problem, "framework": framework, "threads": threads, "cases": {name: part}}
            for name, part in plain.items()
            for framework in frameworks
        ]
        measured = _alternate(jobs, repeats, say)
        by_job = {(m["framework"], next(iter(m["cases"]))): m for m in measured}
        rows += [
            _row(problem, name, framework, plain[name], by_job)
            for name in cases
            for framework in frameworks
        ]
        if pairs and set(_OVERHEAD_OF) <= set(plain):
            both = {name: plain[name] for name in _OVERHEAD_OF}
            jobs = [
                {"problem": problem, "framework": framework, "threads": threads, "cases": both}
                for framework in frameworks
            ]
            overheads += [_overhead(m) for m in _alternate(jobs, pairs, say)]
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "sizes": sizes._asdict(),
        "repeats": repeats,
        "pairs": pairs,
        "threads": threads,
        "remat": {p: remat or config.unroll.remat for p, config in configs.items()},
        "cpu": _cpu_model(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": _versions(frameworks),
        "environment": _environment(threads),
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "rows": rows,
        "jitter_overhead": overheads,
    }
    if output is not None:
        Path(output).write_text(json.dumps(report, indent=2) + "\n")
    print(format_report(report))
    return report


def _check_arguments(configs, sizes, cases, repeats, pairs, peer, remat, output) -> None:
    for name, number in (*sizes._asdict().items(), ("repeats", repeats)):
        if number < 1:
            raise ValueError(f"{name}={number} is not accepted: at least 1 is expected")
    if pairs < 0:
        raise ValueError(f"pairs={pairs} is not accepted: at least 0 is expected")
    for what, names, accepted in (("problems", configs, PROBLEMS), ("cases", cases, CASES)):
        if not names:
            raise ValueError(f"{what} is empty: of {list(accepted)} are expected")
        for name in names:
            if name not in accepted:
                raise ValueError(f"{what} has {name!r}: of {list(accepted)} are expected")
    if remat is not None and remat not in REMATS:
        raise ValueError(f"remat={remat!r} is not accepted: one of {REMATS} is expected")
    if peer not in ("torch", "none"):
        raise ValueError(f"peer={peer!r} is not accepted: 'torch' or 'none' is expected")
    if peer == "torch" and importlib.util.find_spec("torch") is None:
        raise ValueError(
            "peer='torch' needs PyTorch, which is not installed: pip install 'jitter_jax[bench]', "
            "or --peer=none times the library alone"
        )
    if output is not None and not Path(output).parent.is_dir():
        raise ValueError(f"json={str(output)!r} is not accepted: its folder does not exist")
    if output is not None and Path(output).is_dir():
        raise ValueError(f"json={str(output)!r} is not accepted: it is a folder")


def _checked_threads(threads: int | None) -> int:
    can_limit = hasattr(os, "sched_getaffinity")
    available = len(os.sched_getaffinity(0)) if can_limit else os.cpu_count() or 1
    if threads is None:
        return available
    if not can_limit and threads != available:
        raise ValueError(
            f"threads={threads} is not accepted: this system cannot keep a process to some of its "
            f"{available} processors"
        )
    if not 1 <= threads <= available:
        raise ValueError(f"threads={threads} is not accepted: 1 to {available} are available")
    return threads


def case_config(
    problem: str, config: Config, sizes: Sizes, scheme: str, remat: str | None = None
) -> Plain:
    """Return the config of one case, as plain values."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(PROBLEMS[problem].settings)
    config.data.update(
        {
            "kind": "generated",
            "shape": (sizes.height, sizes.width),
            "num_train": sizes.batch,
            "num_validation": 1,
            "num_test": 1,
            "out_of_distribution": (),
        }
    )
    config.train.batch_size = sizes.batch
    config.unroll.num_iterations = sizes.iterations
    config.unroll.remat = remat or config.unroll.remat
    config.scheme.name = scheme
    config.scheme.jitter.update({"kind": "relative", "sigma": 0.1, "schedule": ()})
    return config.to_dict()


# The parent: workers that take turns


def _alternate(jobs: Sequence[Plain], repeats: int, say: Callable[[str], None]) -> list[Plain]:
    """Run all jobs `repeats` times in turn, one at a time, and return what was measured."""
    with ExitStack() as stack:
        workers = []
        for job in jobs:  # one after the other, for the sake of the compilation times
            say(f"{FRAMEWORKS[job['framework']]}: building {', '.join(job['cases'])}")
            workers.append(stack.enter_context(_worker(job)))
        runs: list[list[Plain]] = [[] for _ in jobs]
        for repeat in range(repeats):
            for ask, done in zip(workers, runs, strict=True):
                done.append(ask("run"))
                time.sleep(_PAUSE_S)
            say(f"round {repeat + 1} of {repeats}")
        ends = [ask("end") for ask in workers]
    return [
        {**job, "ready": ask.ready, "runs": done, **end}
        for job, ask, done, end in zip(jobs, workers, runs, ends, strict=True)
    ]


class _Ask:
    """Sends one line to a worker and waits for its answer."""

    def __init__(self, process: subprocess.Popen[str], job: Plain):
        self._process, self._label = process, f"{job['framework']} {', '.join(job['cases'])}"
        self.ready = self(json.dumps(job))

    def __call__(self, line: str) -> Plain:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            status = self._process.wait()
            raise RuntimeError(
                f"the worker of {self._label} ended with status {status}"
                + (": killed, perhaps for memory; name fewer cases" if status == -9 else "")
            )
        reply = json.loads(answer)
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply


@contextmanager
def _worker(job: Plain) -> Iterator[_Ask]:
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "jitter_jax.commands.bench"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | _environment(job["threads"]) | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        yield _Ask(process, job)
    finally:
        process.kill()
        process.communicate()


def _environment(threads: int) -> dict[str, str]:
    """What the workers are told, and what they inherit that bears on speed."""
    given = ("XLA_FLAGS", "LD_PRELOAD", "MALLOC_CONF", "KMP_AFFINITY", "GOMP_CPU_AFFINITY")
    return {name: os.environ[name] for name in given if name in os.environ} | {
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": str(threads),
        # A worker that is not its turn must sleep: OpenMP threads otherwise spin for a while.
        "OMP_WAIT_POLICY": "passive",
        "KMP_BLOCKTIME": "0",
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# A worker


class Work(NamedTuple):
    """One case, ready to be run.

    Attributes:
        run: does it once, and returns when it is done.
        parameters: number of learned parameters.
        compile_s: seconds of tracing and compiling; None where nothing is compiled.
    """

    run: Callable[[], Any]
    parameters: int
    compile_s: float | None = None


def serve() -> None:
    """Be a worker: read a job, then run it once for each line, and answer in JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be mistaken for an answer

    def answer(**reply: Any) -> None:
        print(json.dumps(reply), file=answers, flush=True)

    job = json.loads(sys.stdin.readline())
    if hasattr(os, "sched_setaffinity"):  # both frameworks count the processors they may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    try:
        make = {"jax": _jax_maker, "torch": _torch_maker}[job["framework"]](job)
        import_bytes = peak_bytes()
        works = [make(CASES[name], config) for name, config in job["cases"].items()]
    except ValueError as error:
        answer(error=str(error))
        return
    for _ in range(_WARM_UPS):
        for work in works:
            work.run()
    answer(
        import_bytes=import_bytes,
        parameters=works[0].parameters,
        compile_s=[work.compile_s for work in works],
    )
    order, left = list(range(len(works))), time.process_time()
    for line in sys.stdin:
        idle_cpu_s = time.process_time() - left
        if line.strip() != "run":
            break
        seconds, cpu_s = [0.0] * len(works), [0.0] * len(works)
        for i in order:
            cpu, start = time.process_time(), time.perf_counter()
            works[i].run()
            seconds[i], cpu_s[i] = time.perf_counter() - start, time.process_time() - cpu
        order.reverse()  # which of two comes first alternates
        left = time.process_time()
        answer(seconds=seconds, cpu_s=cpu_s, idle_cpu_s=idle_cpu_s)
    answer(peak_bytes=peak_bytes())


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    # Linux starts a child's `ru_maxrss` at its parent's size; the process's own mark is elsewhere.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _pgd_options(config: Plain) -> tuple[float, float]:
    """Radius and step of the config's attack, relative to the measurement and to the radius."""
    threat, attack = config["evaluate"]["threat"], config["evaluate"]["attack"]
    if (threat["space"], threat["norm"], threat["unit"]) != ("measurement", "l2", "relative"):
        raise ValueError("evaluate.threat must be in measurement space, l2 and relative")
    return threat["epsilon"], attack["step_size"] or 2.5 / attack["num_steps"]


def _torch_maker(job: Plain) -> Callable[[Case, Plain], Work]:
    import torch  # type: ignore[import-not-found,unused-ignore]

    from jitter_jax.commands import torch_peer

    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])

    def make(case: Case, config: Plain) -> Work:
        peer = torch_peer.PEERS[job["problem"]](config)
        parameters = sum(p.numel() for p in peer.model.parameters())
        if case.kind == "train":
            return Work(torch_peer.training(peer, config), parameters)
        if case.kind == "inference":
            return Work(torch_peer.inference(peer), parameters)
        epsilon, step_size = _pgd_options(config)
        step = torch_peer.pgd_step(peer, epsilon=epsilon, step_size=step_size)
        return Work(step, parameters)

    return make


def _jax_maker(job: Plain) -> Callable[[Case, Plain], Work]:
    import jax
    from ml_collections import ConfigDict

    from jitter_jax import experiment as experiments
    from jitter_jax.commands import train

    del job
    jax.config.update("jax_enable_compilation_cache", False)  # or the second run compiles nothing

    def make(case: Case, config: Plain) -> Work:
        experiment = experiments.build(ConfigDict(config))
        if case.kind == "train":
            return _jax_training(experiment)
        params = train.init_params(experiment, jax.random.key(0))
        function, arguments = (
            _jax_pgd_step(experiment, params, *_pgd_options(config))
            if case.kind == "pgd"
            else _jax_inference(experiment, params)
        )
        compiled, compile_s = _compile(jax.jit(function), *arguments)

        def run():
            jax.block_until_ready(compiled(*arguments))

        return Work(run, _count(params), compile_s)

    return make


def _jax_training(experiment: Any) -> Work:
    """The step of `bin/train`, from the batch that the input pipeline yields to a new state."""
    import jax

    from jitter_jax.commands.train import start

    state, step = start(experiment)
    raw = _raw_batch(experiment)
    parameters = _count(state.params)
    compiled, compile_s = _compile(step, state, raw)

    def run():
        nonlocal state
        state, metrics = jax.block_until_ready(compiled(state, raw))
        if not metrics["finite"]:
            raise RuntimeError("the training step gave a loss or a gradient that is not finite")

    return Work(run, parameters, compile_s)


def _jax_pgd_step(experiment: Any, params: Any, epsilon: float, step_size: float):
    """What `attacks.pgd` does in one of its steps."""
    import jax
    import jax.numpy as jnp

    from jitter_jax import attacks
    from jitter_jax.attacks.search import value_and_ascent

    operator, apply = experiment.operator, experiment.reconstructor.apply
    threat = attacks.Threat(epsilon, unit="relative")

    def step(params, signals, measurements, deltas):
        def one(x, y, delta):
            reconstruct = lambda y: apply(params, operator, y)
            objective = attacks.reconstruction_error(reconstruct, operator, x, y)
            ball = threat.ball(y)
            value, ascent = value_and_ascent(objective, delta)
            return ball.project(delta + step_size * ball.radius * ball.steepest(ascent)), value

        return jax.vmap(one)(signals, measurements, deltas)

    measured = experiment.measure(_raw_batch(experiment), "train")
    y = measured.measurement
    # Not at zero, where the projection has nothing to do.
    return step, (params, measured.signal, y, 0.04 * jnp.roll(y, 1, axis=1))


def _jax_inference(experiment: Any, params: Any):
    import jax

    def reconstruct(params, measurements):
        apply = experiment.reconstructor.apply
        return jax.vmap(lambda y: apply(params, experiment.operator, y))(measurements)

    return reconstruct, (params, experiment.measure(_raw_batch(experiment), "train").measurement)


def _raw_batch(experiment: Any) -> Any:
    from jitter_jax.data.pipeline import evaluation_batches

    batch_size = experiment.config.train.batch_size
    return next(evaluation_batches(experiment.sources["train"], batch_size))


def _compile(function: Any, *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def _count(params: Any) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(params))


# The report


def _row(problem: str, name: str, framework: str, config: Plain, by_job: Measured) -> Plain:
    """One line of the table, from what `_alternate` measured of each (framework, case)."""
    measured = by_job[framework, name]
    seconds = [run["seconds"][0] for run in measured["runs"]]
    cpu_s = [run["cpu_s"][0] for run in measured["runs"]]
    gflop = 1e-9 * CASES[name].passes * PROBLEMS[problem].forward_flops(config)
    row = {
        "problem": problem,
        "case": name,
        "framework": framework,
        "parameters": measured["ready"]["parameters"],
        "seconds": seconds,
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "gflop": gflop,
        "gflop_per_s": gflop / statistics.median(seconds),
        "gflop_per_s_of_min": gflop / min(seconds),
        "cpu_s": cpu_s,
        "median_cpu_s": statistics.median(cpu_s),
        "cores": _median_ratio(cpu_s, seconds),
        "idle_cpu_s": max(run["idle_cpu_s"] for run in measured["runs"]),
        "peak_gb": 1e-9 * measured["peak_bytes"],
        "import_gb": 1e-9 * measured["ready"]["import_bytes"],
        "compile_s": measured["ready"]["compile_s"][0],
        "torch_over_jax": None,
        "torch_over_jax_cpu": None,
    }
    if framework == "jax" and ("torch", name) in by_job:
        theirs = by_job["torch", name]["runs"]
        row["torch_over_jax"] = _median_ratio([run["seconds"][0] for run in theirs], seconds)
        row["torch_over_jax_cpu"] = _median_ratio([run["cpu_s"][0] for run in theirs], cpu_s)
    return row


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def _overhead(measured: Plain) -> Plain:
    """What jitter adds to a training step, from steps without and with it in turn."""
    pairs = [run["seconds"] for run in measured["runs"]]
    cpu_pairs = [run["cpu_s"] for run in measured["runs"]]
    percent = [100 * (jittered / plain - 1) for plain, jittered in pairs]
    quartiles = statistics.quantiles(percent, n=4) if len(percent) > 1 else [percent[0]] * 3
    return {
        "problem": measured["problem"],
        "framework": measured["framework"],
        "seconds": pairs,
        "cpu_s": cpu_pairs,
        "percent": statistics.median(percent),
        "quartiles": [quartiles[0], quartiles[2]],
        "cpu_percent": statistics.median(100 * (b / a - 1) for a, b in cpu_pairs),
    }


def format_report(report: Plain) -> str:
    """Return the report as Markdown."""
    sizes, versions, load = report["sizes"], report["versions"], report["load_average"]
    lines = [
        f"{report['date']}; {report['cpu']}, {report['threads']} of {report['processors']} "
        f"processors; load average {load['before'][0]:.1f} before, {load['after'][0]:.1f} after; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
        "",
        f"{sizes['batch']} x {sizes['height']} x {sizes['width']}, K = {sizes['iterations']}, "
        + ", ".join(f"{problem} remat {remat}" for problem, remat in report["remat"].items())
        + f"; {report['repeats']} alternated runs",
        "",
        "| problem | case | | median s | min s | CPU s | GFLOP/s | cores | peak GB | import GB "
        "| compile s | PyTorch / JAX | by CPU |",
        "| --- | --- | --- |" + " ---: |" * 10,
    ]
    for row in report["rows"]:
        cells = [
            row["problem"],
            row["case"],
            FRAMEWORKS[row["framework"]],
            f"{row['median_s']:.3f}",
            f"{row['min_s']:.3f}",
            f"{row['median_cpu_s']:.3f}",
            f"{row['gflop_per_s']:.0f}",
            f"{row['cores']:.2f}",
            f"{row['peak_gb']:.2f}",
            f"{row['import_gb']:.2f}",
            "" if row["compile_s"] is None else f"{row['compile_s']:.1f}",
            "" if row["torch_over_jax"] is None else f"{row['torch_over_jax']:.2f}",
            "" if row["torch_over_jax_cpu"] is None else f"{row['torch_over_jax_cpu']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for overhead in report["jitter_overhead"]:
        low, high = overhead["quartiles"]
        lines.append(
            f"SGD jittering over MSE, {overhead['problem']}, {FRAMEWORKS[overhead['framework']]}: "
            f"{overhead['percent']:+.1f} % a training step (median of {len(overhead['seconds'])} "
            f"pairs in one process; quartiles {low:+.1f} to {high:+.1f} %), by CPU time "
            f"{overhead['cpu_percent']:+.1f} %"
        )
    lines += [
        "",
        "GFLOP/s, of the median, counts convolutions alone: "
        + "; ".join(f"{problem}, {PROBLEMS[problem].convolutions}" for problem in report["remat"])
        + ": 2 k k inputs outputs pixels forward, a training step three times that, a PGD step "
        "twice. CPU s: median processor time, which other programs disturb less. Cores: that over "
        "wall time. Peak and import: largest resident memory of the case's process, in all and "
        "after its imports. PyTorch / JAX: median over rounds, above 1 JAX is faster; by CPU: of "
        "the processor times. Workers wait with OMP_WAIT_POLICY=passive and KMP_BLOCKTIME=0.",
    ]
    return "\n".join(lines)


def _versions(frameworks: Sequence[str]) -> dict[str, str]:
    packages = ["jitter_jax", "jax", "jaxlib", "flax", "optax", "numpy"]
    versions = {"python": platform.python_version()}
    for package in packages + (["torch"] if "torch" in frameworks else []):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    serve()
