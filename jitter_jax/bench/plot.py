"""Time and memory against the values of a scale, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from jitter_jax.bench.cases import FRAMEWORKS, Plain

_PANELS = (
    ("seconds a call", "median_s"),
    ("temporaries of the program, GB", "temp_gb"),
    ("peak memory, GB", "peak_gb"),
)


def plot_growth(fits: Sequence[Plain], path: str | Path) -> None:
    """Draw one line a case, framework and rematerialisation.

    Args:
        fits: as `scale.growth` returns them.
        path: where the figure goes; its ending chooses the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(_PANELS), 3.4))
    for axes, (title, field) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for fit in fits:
            if None not in fit[field]:
                axes.plot(fit["values"], fit[field], marker="o", label=_label(fit))
        axes.set(xlabel=fits[0]["field"], title=title)
        axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def _label(fit: Plain) -> str:
    parts = [fit["problem"], fit["case"], FRAMEWORKS[fit["framework"]]]
    return ", ".join(
        [*parts, *([f"remat {fit['remat']}"] if fit["remat"] and fit["framework"] == "jax" else [])]
    )
