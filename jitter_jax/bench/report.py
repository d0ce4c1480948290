"""The benchmark's report: from times to a table."""

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from jitter_jax.bench.cases import CASES, FRAMEWORKS, PROBLEMS, Plain


def table_row(measured: Plain, others: Sequence[Plain]) -> Plain:
    """Return one line of the table.

    Args:
        measured: a job of one case, and what its worker answered.
        others: all jobs of the rounds, among them perhaps the same case in PyTorch.
    """
    ((case, config),) = measured["cases"].items()
    problem, framework = measured["problem"], measured["framework"]
    seconds, cpu_s = _times(measured)
    draws = measured["sizes"]["samples"] if CASES[case].certifies else 1
    gflop = 1e-9 * draws * CASES[case].passes * PROBLEMS[problem].forward_flops(config)
    temp_bytes = measured["temp_bytes"][0]
    row = {
        "problem": problem,
        "case": case,
        "framework": framework,
        "sizes": measured["sizes"],
        "parameters": measured["parameters"],
        "seconds": seconds,
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "gflop": gflop,
        "gflop_per_s": gflop / statistics.median(seconds),
        "cpu_s": cpu_s,
        "median_cpu_s": statistics.median(cpu_s),
        "cores": _median_ratio(cpu_s, seconds),
        "peak_gb": 1e-9 * measured["peak_bytes"],
        "import_gb": 1e-9 * measured["import_bytes"],
        "temp_gb": None if temp_bytes is None else 1e-9 * temp_bytes,
        "compile_s": measured["compile_s"][0],
        "torch_over_jax": None,
        "torch_over_jax_cpu": None,
    }
    for other in others:
        pair = framework, other["framework"]
        if pair == ("jax", "torch") and measured["cases"] == other["cases"]:
            their_seconds, their_cpu_s = _times(other)
            row["torch_over_jax"] = _median_ratio(their_seconds, seconds)
            row["torch_over_jax_cpu"] = _median_ratio(their_cpu_s, cpu_s)
    return row


def _times(measured: Plain) -> tuple[list[float], list[float]]:
    runs = measured["runs"]
    return [run["seconds"][0] for run in runs], [run["cpu_s"][0] for run in runs]


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def overhead(measured: Plain) -> Plain:
    """Return what jitter adds to a training step, from steps without and with it in turn."""
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


def growth(rows: Sequence[Plain], field: str) -> list[Plain]:
    """Return how each case grows with one of its sizes: `seconds = a + b value`.

    Args:
        rows: lines of the table, those of a case with different values of the size.
        field: in `Sizes`.

    Returns:
        The least squares fit to the medians of every case of several lines.
    """
    alike: dict[tuple[str, ...], list[Plain]] = {}
    for row in rows:
        alike.setdefault((row["problem"], row["case"], row["framework"]), []).append(row)
    found = []
    for (problem, case, framework), group in alike.items():
        if len(group) == 1:  # it has no such size
            continue
        values, medians = (
            [row["sizes"][field] for row in group],
            [row["median_s"] for row in group],
        )
        slope, intercept = statistics.linear_regression(values, medians)
        errors = [abs(intercept + slope * v - s) for v, s in zip(values, medians, strict=True)]
        found.append(
            {
                "problem": problem,
                "case": case,
                "framework": framework,
                "field": field,
                "values": values,
                "intercept_s": intercept,
                "slope_s": slope,
                "largest_deviation_s": max(errors),
                "peak_gb": [row["peak_gb"] for row in group],
            }
        )
    return found


# Title, field and format of each number in the table.
_COLUMNS = (
    ("median s", "median_s", ".3f"),
    ("min s", "min_s", ".3f"),
    ("CPU s", "median_cpu_s", ".3f"),
    ("GFLOP/s", "gflop_per_s", ".0f"),
    ("cores", "cores", ".2f"),
    ("peak GB", "peak_gb", ".2f"),
    ("import GB", "import_gb", ".2f"),
    ("temp GB", "temp_gb", ".3f"),
    ("compile s", "compile_s", ".1f"),
    ("PyTorch / JAX", "torch_over_jax", ".2f"),
    ("by CPU", "torch_over_jax_cpu", ".2f"),
)
_NOTES = (
    "GFLOP/s, of the median, counts convolutions alone: 2 k k inputs outputs pixels forward, a "
    "training step three times that, a PGD step twice, a certificate as often as it draws; what is"
    " computed again does not count. CPU s: median processor time, which other programs disturb "
    "less. Cores: that over wall time. Peak and import: largest resident memory of the case's "
    "process, in all and after its imports; the compiler takes its share. Temp: what the compiled "
    "program takes beside its arguments and results. PyTorch / JAX: median over rounds, above 1 "
    "JAX is faster; by CPU: of the processor times. Workers wait with OMP_WAIT_POLICY=passive and "
    "KMP_BLOCKTIME=0."
)


def format_report(report: Plain) -> str:
    """Return the report as Markdown."""
    load = report["load_average"]
    sizes = "; ".join(
        f"{problem} {s['batch']} x {s['height']} x {s['width']}, K = {s['iterations']}"
        for problem, s in report["sizes"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [
        f"{report['date']}; {report['cpu']}, {report['threads']} of {report['processors']} "
        f"processors; load average {load['before'][0]:.1f} before, {load['after'][0]:.1f} after; "
        f"{versions}",
        "",
        f"{sizes}{', or as a case says' if report['scale'] else ''}; remat {report['remat']}; "
        f"{report['repeats']} alternated runs",
        "",
        "| problem | case | | " + " | ".join(title for title, _, _ in _COLUMNS) + " |",
        "| --- | --- | --- |" + " ---: |" * len(_COLUMNS),
    ]
    named = {"samples", "chunk", str(report["scale"]).partition(":")[0]}
    for row in report["rows"]:
        numbers = ["" if row[key] is None else f"{row[key]:{form}}" for _, key, form in _COLUMNS]
        own = [f"{key} = {size}" for key, size in row["sizes"].items() if key in named and size]
        case = ", ".join([row["case"], *own])
        cells = [row["problem"], case, FRAMEWORKS[row["framework"]], *numbers]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for fit in report["growth"]:
        peaks = ", ".join(f"{peak:.2f}" for peak in fit["peak_gb"])
        lines.append(
            f"Growth, {fit['problem']} {fit['case']}, {FRAMEWORKS[fit['framework']]}: "
            f"{fit['intercept_s']:.3g} {fit['slope_s']:+.3g} * {fit['field']} seconds (least "
            f"squares over the medians, off by {fit['largest_deviation_s']:.2g} s at most); peak "
            f"{peaks} GB at {', '.join(map(str, fit['values']))}"
        )
    lines += [f"No PyTorch peer: {problem}" for problem in report["without_peer"]]
    for jitter in report["jitter_overhead"]:
        low, high = jitter["quartiles"]
        lines.append(
            f"SGD jittering over MSE, {jitter['problem']}, {FRAMEWORKS[jitter['framework']]}: "
            f"{jitter['percent']:+.1f} % a training step (median of {len(jitter['seconds'])} "
            f"pairs in one process; quartiles {low:+.1f} to {high:+.1f} %), by CPU time "
            f"{jitter['cpu_percent']:+.1f} %"
        )
    if (loader := report["loader"]) is not None:
        steps = [
            f"{row['sizes']['batch'] / row['median_s']:.1f} in {row['case']}"
            for row in report["rows"]
            if row["problem"] == "mri" and row["framework"] == "jax"
        ]
        lines.append(
            f"Loader: {loader['median_slices_per_s']:.0f} slices/s of {loader['kspace_shape']} "
            f"k-space, cropped to {loader['size']}, from files in the system's cache; the library "
            f"takes {', '.join(steps) or 'what its cases say'}"
        )
    return "\n".join([*lines, "", _NOTES])


def describe_machine(frameworks: Collection[str]) -> dict[str, Any]:
    """Return processor, system and versions."""
    versions = {"python": platform.python_version()}
    packages = ["jitter_jax", "jax", "jaxlib", "flax", "optax", "numpy"]
    for package in packages + ["torch"] * ("torch" in frameworks):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }
