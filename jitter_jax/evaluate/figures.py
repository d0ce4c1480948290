"""Pictures of reconstructions."""

from collections.abc import Sequence
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
    """

    title: str
    values: np.ndarray
    limit: float


def panels_figure(
    rows: Sequence[Sequence[Panel]], path: str | Path, *, row_labels: Sequence[str] = ()
) -> None:
    """Draw rows of images, each with its own limit.

    Real images are signed, with zero in mid grey; of complex ones the magnitude is drawn.

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
            signed = not np.iscomplexobj(image)
            axes.imshow(
                image if signed else np.abs(image),
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
    """Return a measurement as one looks at it: itself, or of k-space the zero-filled `A^H y`."""
    return operator.adjoint(y) if np.issubdtype(y.dtype, np.complexfloating) else y


def visible_title(y: np.ndarray) -> str:
    """Return what `visible` shows."""
    return "zero-filled" if np.iscomplexobj(y) else "measurement"


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


def largest(*arrays: np.ndarray) -> float:
    """Return the largest absolute value, or 1 if all is zero, for the limits of panels."""
    return float(max(np.abs(a).max() for a in arrays)) or 1.0
