"""From times to the lines of the report."""

import statistics
from collections.abc import Sequence

from jitter_jax.bench.cases import CASES, REFERENCE, Plain
from jitter_jax.bench.problems import case_flops

PEAKS = ("convolution", "matmul")


def table_row(measured: Plain, others: Sequence[Plain], *, peak: Plain | None = None) -> Plain:
    """Return one line of the table.

    Args:
        measured: a job of one case, and what its worker answered.
        others: all jobs of the same rounds, among them perhaps the same case in PyTorch, and the
            training step by `REFERENCE`.
        peak: the speeds that the device reached in the same rounds, of `peak_rates`.
    """
    ((case, config),) = measured["cases"].items()
    seconds, cpu_s = _times(measured)
    gflop = 1e-9 * case_flops(measured["problem"], case, config)
    in_device = measured["device_peak_bytes"]
    row = {
        "problem": measured["problem"],
        "case": case,
        "framework": measured["framework"],
        "remat": measured["remat"],
        "value": measured["value"],
        "sizes": measured["sizes"],
        "platform": measured["platform"],
        "device": measured["device"],
        "parameters": measured["parameters"],
        "calls": measured["calls"][0],
        "seconds": seconds,
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "items_per_s": measured["sizes"]["batch"] / statistics.median(seconds),
        "gflop": gflop,
        "gflop_per_s": gflop / statistics.median(seconds),
        "peak_share": None,
        "cpu_s": cpu_s,
        "median_cpu_s": statistics.median(cpu_s),
        "cores": _median_ratio(cpu_s, seconds),
        "peak_gb": _gb(measured["peak_bytes"] if in_device is None else in_device),
        "host_peak_gb": _gb(measured["peak_bytes"]),
        "import_gb": _gb(measured["import_bytes"]),
        "temp_gb": _gb(measured["temp_bytes"][0]),
        "program_gb": _gb(measured["program_bytes"][0]),
        "compile_s": measured["compile_s"][0],
        "over_mse": None,
    }
    for name in ("torch", "torch_compile"):
        row |= {f"{name}_over_jax": None, f"{name}_over_jax_cpu": None, f"peak_of_{name}": None}
    if peak is not None and (measured["sizes"]["devices"] or 1) == 1:  # it is that of one device
        rates = [gflop / s for s in seconds]
        row["peak_share"] = _median_ratio(rates, peak["convolution"])
    for other in others:
        theirs, their_cpu_s = _times(other)
        if _same_work(measured, other) and measured["framework"] == "jax" != other["framework"]:
            name = other["framework"]
            row[f"{name}_over_jax"] = _median_ratio(theirs, seconds)
            row[f"{name}_over_jax_cpu"] = _median_ratio(their_cpu_s, cpu_s)
            their_bytes = other["device_peak_bytes"] or other["peak_bytes"]
            row[f"peak_of_{name}"] = 1e9 * row["peak_gb"] / their_bytes
        if _is_reference(other, measured):
            row["over_mse"] = _median_ratio(seconds, theirs)
    return row


def _same_work(one: Plain, other: Plain) -> bool:
    # Not the configs: peers have no rematerialisation.
    return ([*one["cases"]], one["sizes"]) == ([*other["cases"]], other["sizes"])


def _is_reference(other: Plain, measured: Plain) -> bool:
    """Whether it is the plain training step that another scheme's step is held against."""
    (case,) = measured["cases"]
    same = [name for name in ("framework", "remat", "value") if other[name] == measured[name]]
    return [*other["cases"]] == [REFERENCE] and CASES[case].kind == "train" and len(same) == 3


def _times(measured: Plain) -> tuple[list[float], list[float]]:
    runs = measured["runs"]
    return [run["seconds"][0] for run in runs], [run["cpu_s"][0] for run in runs]


def _gb(number: int | None) -> float | None:
    return None if number is None else 1e-9 * number


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def peak_rates(measured: Plain) -> Plain:
    """Return GFLOP/s of each round, by the names in `PEAKS`."""
    rates = {}
    for place, (name, gflop) in enumerate(zip(PEAKS, measured["gflop"], strict=True)):
        rates[name] = [gflop / run["seconds"][place] for run in measured["runs"]]
    return rates


def median_rates(rates: Sequence[Plain]) -> Plain:
    """Return the medians over all rounds of what `peak_rates` gave in each."""
    if not rates:
        return {}
    return {name: statistics.median(r for one in rates for r in one[name]) for name in PEAKS}


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
