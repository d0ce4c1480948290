"""The report as a user reads it."""

from collections.abc import Sequence

from jitter_jax.bench.cases import FRAMEWORKS, Plain
from jitter_jax.bench.scale import FIELDS

# Title, field and format of each number in the table; columns without a number are left out.
_COLUMNS = (
    ("median s", "median_s", ".3g"),
    ("min s", "min_s", ".3g"),
    ("CPU s", "median_cpu_s", ".3g"),
    ("items/s", "items_per_s", ".3g"),
    ("GFLOP/s", "gflop_per_s", ".3g"),
    ("of peak", "peak_share", ".0%"),
    ("cores", "cores", ".2f"),
    ("peak GB", "peak_gb", ".2f"),
    ("import GB", "import_gb", ".2f"),
    ("temp GB", "temp_gb", ".3f"),
    ("compile s", "compile_s", ".1f"),
    ("over MSE", "over_mse", ".2f"),
    ("PyTorch / JAX", "torch_over_jax", ".2f"),
    ("by CPU", "torch_over_jax_cpu", ".2f"),
    ("peak, JAX / PyTorch", "peak_of_torch", ".2f"),
    ("torch.compile / JAX", "torch_compile_over_jax", ".2f"),
    ("peak, JAX / torch.compile", "peak_of_torch_compile", ".2f"),
)
_NOTES = (
    "GFLOP/s, of the median, counts convolutions and matrix products of the networks alone; what is"
    " computed again does not count, nor do transforms. Of peak: beside a large 3x3 convolution in "
    "the same rounds. CPU s: median processor time, which other programs disturb less. Cores: that "
    "over wall time. Peak: largest memory of the device; of a CPU the resident memory of the case's"
    " process, in all and after its imports, of which the compiler takes its share. Temp: what the "
    "compiled program takes beside its arguments and results. Over MSE: time of a training step "
    "beside the plain one. PyTorch / JAX, torch.compile / JAX: above 1 JAX is faster; by CPU: of "
    "the processor times. All ratios are medians over rounds in which both ran. Workers wait with "
    "OMP_WAIT_POLICY=passive and KMP_BLOCKTIME=0."
)


def format_report(report: Plain) -> str:
    """Return the report as Markdown."""
    columns = [
        column for column in _COLUMNS if any(row[column[1]] is not None for row in report["rows"])
    ]
    lines = [
        *_heading(report),
        "",
        "| problem | case | | " + " | ".join(title for title, _, _ in columns) + " |",
        "| --- | --- | --- |" + " ---: |" * len(columns),
    ]
    scaled = FIELDS.get(str(report["scale"]).partition(":")[0], ())
    for row in report["rows"]:
        numbers = ["" if row[key] is None else f"{row[key]:{form}}" for _, key, form in columns]
        cells = [row["problem"], _label(row, scaled), FRAMEWORKS[row["framework"]], *numbers]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_growth(report["growth"])]
    if peak := report["peak"]:
        lines.append(
            f"Peak: a 3x3 convolution {peak['convolution']:.4g} GFLOP/s, a product of matrices "
            f"{peak['matmul']:.4g}"
        )
    lines += [f"No PyTorch peer: {problem}" for problem in report["without_peer"]]
    lines += [*_overheads(report["jitter_overhead"])]
    if report["loader"] is not None:
        lines.append(_loader(report["loader"], report["rows"]))
    return "\n".join([*lines, "", _NOTES])


def _heading(report: Plain) -> list[str]:
    load = report["load_average"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    devices = {row["device"] for row in report["rows"] if row["platform"] != "cpu"}
    sizes = "; ".join(
        f"{problem} {' x '.join(str(s[n]) for n in ('batch', 'height', 'width') if s[n])}, "
        f"K = {s['iterations']}"
        for problem, s in report["sizes"].items()
    )
    return [
        f"{report['date']}; {', '.join([*sorted(devices), report['cpu']])}, {report['threads']} of "
        f"{report['processors']} processors; load average {load['before'][0]:.1f} before, "
        f"{load['after'][0]:.1f} after; {versions}",
        "",
        f"{sizes}{', or as a case says' if report['scale'] else ''}; remat "
        f"{', '.join(report['remat'])}; precision {report['precision']}; {report['repeats']} "
        "alternated runs",
    ]


def _label(row: Plain, scaled: Sequence[str]) -> str:
    named = {"samples", "chunk", "steps", *scaled}
    own = [f"{key} = {size}" for key, size in row["sizes"].items() if key in named and size]
    remat = [f"remat {row['remat']}"] if row["remat"] and row["framework"] == "jax" else []
    return ", ".join([row["case"], *own, *remat])


def _growth(fits: Sequence[Plain]) -> list[str]:
    lines = []
    for fit in fits:
        ours = fit["remat"] and fit["framework"] == "jax"
        remat = f", remat {fit['remat']}" if ours else ""
        peaks = ", ".join(f"{peak:.2f}" for peak in fit["peak_gb"])
        powers = [
            f"{what} as {fit['field']}^{fit[key]:.2f}"
            for what, key in (("time", "time_power"), ("temporaries", "temp_power"))
            if fit[key] is not None
        ]
        lines.append(
            f"Growth, {fit['problem']} {fit['case']}{remat}, {FRAMEWORKS[fit['framework']]}: "
            f"{fit['intercept_s']:.3g} {fit['slope_s']:+.3g} * {fit['field']} seconds (least "
            f"squares over the medians, off by {fit['largest_deviation_s']:.2g} s at most); "
            f"{', '.join(powers)}; peak {peaks} GB at {', '.join(map(str, fit['values']))}"
        )
    return lines


def _overheads(overheads: Sequence[Plain]) -> list[str]:
    lines = []
    for jitter in overheads:
        low, high = jitter["quartiles"]
        lines.append(
            f"SGD jittering over MSE, {jitter['problem']}, {FRAMEWORKS[jitter['framework']]}: "
            f"{jitter['percent']:+.1f} % a training step (median of {len(jitter['seconds'])} "
            f"pairs in one process; quartiles {low:+.1f} to {high:+.1f} %), by CPU time "
            f"{jitter['cpu_percent']:+.1f} %"
        )
    return lines


def _loader(loader: Plain, rows: Sequence[Plain]) -> str:
    steps = [
        f"{row['items_per_s']:.1f} in {row['case']}"
        for row in rows
        if row["problem"] == "mri" and row["framework"] == "jax"
    ]
    return (
        f"Loader: {loader['median_slices_per_s']:.0f} slices/s of {loader['kspace_shape']} "
        f"k-space, cropped to {loader['size']}, from files in the system's cache; the library "
        f"takes {', '.join(steps) or 'what its cases say'}"
    )
