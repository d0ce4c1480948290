"""Pictures of reconstructions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jitter_jax.operators import LinearOperator

Array = jax.Array


class Panel(NamedTuple):
    """One picture of a figure.

    Attributes:
        title: what stands above it.
        values: `(height, width)` or `(height, width, 1)`; of complex values the magnitude is drawn.
        limit: grey levels run from `-limit` to `limit`, of magnitudes from 0.
        positive: they run from 0, as those of pictures do.
    """

    title: str
    values: np.ndarray
    limit: float
    positive: bool = False


def panels_figure(
    rows: Sequence[Sequence[Panel]], path: str | Path, *, row_labels: Sequence[str] = ()
) -> None:
    """Draw rows of images, each with its own limit.

    Real images are signed, with zero in mid grey, unless they are positive; of complex ones the
    magnitude is drawn.

    Args:
        rows: as many panels in each row.
        path: where the figure goes; its ending chooses the format.
        row_labels: what stands left of each row.
    """
    from matplotlib.figure import Figure

    height, width = np.shape(rows[0][0].values)[:2]
    size = 2.4
    panel_height = size * float(np.clip(height / width, 0.4, 1.5))
    figure = Figure(figsize=(size * len(rows[0]) + 0.4, (panel_height + 0.35) * len(rows) + 0.1))
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for number, (axes_row, panels) in enumerate(zip(grid, rows, strict=True)):
        for axes, panel in zip(axes_row, panels, strict=True):
            values = np.asarray(panel.values)
            image = values[..., 0] if values.ndim == 3 else values
            signed = not (np.iscomplexobj(image) or panel.positive)
            axes.imshow(
                np.abs(image) if np.iscomplexobj(image) else image,
                cmap="gray",
                vmin=-panel.limit if signed else 0,
                vmax=panel.limit,
                aspect="auto" if signed else "equal",
                interpolation="nearest",
            )
            axes.set_title(panel.title, fontsize=8)
            axes.set(xticks=[], yticks=[])
        if row_labels:
            axes_row[0].set_ylabel(row_labels[number], fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=150)


def visible(operator: LinearOperator, y: Array) -> Array:
    """Return a measurement as one looks at it: itself, or `A^H y` of k-space and of blocks."""
    shows = np.issubdtype(y.dtype, np.complexfloating) or y.ndim > 3
    return operator.adjoint(y) if shows else y


def visible_title(seen: np.ndarray, y: Array | np.ndarray) -> str:
    """Return what `visible` made of a measurement."""
    if np.iscomplexobj(seen):
        return "zero-filled"
    return "back-projection" if y.ndim > 3 else "measurement"


def points_figure(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray]], truth: np.ndarray, path: str | Path
) -> None:
    """Draw measurements and estimates in the plane.

    Args:
        panels: title, measurements `(points, 2)` and estimates `(points, 2)` of each picture.
        truth: `(2,)`, the same for all points.
        path: where the figure goes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.8 * len(panels), 2.9), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)
    for axes, (title, measurements, estimates) in zip(grid[0], panels, strict=True):
        axes.plot(*np.transpose(measurements), ".", color="0.75", label="measurement")
        axes.plot(*np.transpose(estimates), ".", color="tab:blue", label="estimate")
        axes.plot(*truth, "+", color="tab:red", markersize=10, label="truth")
        axes.set_title(title, fontsize=8)
        axes.set_aspect("equal")
    grid[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=150)


class Line(NamedTuple):
    """One curve of a plot.

    Attributes:
        label: what the legend says.
        x: where it is known, `(points,)`.
        mean: its height, `(points,)`; a gap where it is None.
        spread: half the width of the band around it, `(points,)`; no band where it is None.
    """

    label: str
    x: Sequence[float]
    mean: Sequence[float | None]
    spread: Sequence[float | None]


def lines_figure(
    plots: Mapping[str, Sequence[Line]],
    path: str | Path,
    *,
    x_label: str,
    y_label: str,
    x_scale: str = "linear",
) -> None:
    """Draw curves with bands, one plot beside the other.

    Args:
        plots: by their title.
        path: where the figure goes.
        x_label: what is on the horizontal axis.
        y_label: what is on the vertical axis.
        x_scale: `"linear"` or `"log"`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(plots), 3.2), layout="constrained")
    grid = figure.subplots(1, len(plots), squeeze=False)
    for axes, (title, lines) in zip(grid[0], plots.items(), strict=True):
        for label, x, *heights in lines:
            mean, spread = (np.asarray(values, float) for values in heights)  # None becomes NaN
            axes.plot(x, mean, ".-", label=label)
            axes.fill_between(x, mean - spread, mean + spread, alpha=0.12)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel=x_label, ylabel=y_label, xscale=x_scale)
        axes.grid(alpha=0.3)
    grid[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=150)


def scatter_figure(
    plots: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    path: str | Path,
    *,
    x_label: str,
    y_label: str,
) -> None:
    """Draw groups of points, one plot beside the other.

    Args:
        plots: by their title; of each the groups by their label, with their `x` and `y`.
        path: where the figure goes.
        x_label: what is on the horizontal axis.
        y_label: what is on the vertical axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(plots), 3.4), layout="constrained")
    grid = figure.subplots(1, len(plots), squeeze=False)
    for axes, (title, groups) in zip(grid[0], plots.items(), strict=True):
        for label, (x, y) in groups.items():
            axes.plot(x, y, ".", label=label)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def largest(*arrays: np.ndarray) -> float:
    """Return the largest absolute value, or 1 if all is zero, for the limits of panels."""
    return float(max(np.abs(a).max() for a in arrays)) or 1.0
