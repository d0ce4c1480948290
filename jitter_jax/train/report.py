"""Pictures of a run."""

import os

from jitter_jax.train.metrics_log import read_metrics


def curves_figure(
    metrics_jsonl: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    metric: str = "loss",
) -> None:
    """Draws one metric over the steps, for training and for validation.

    Args:
        metrics_jsonl: The record of a run, as `fit` writes it.
        path: Where the figure goes; its ending chooses the format (.png, .pdf, .svg).
        metric: The name of the metric. The axis is logarithmic if all its values are positive.

    Raises:
        ValueError: If no line of the record holds the metric.
    """
    from matplotlib.figure import Figure

    records = read_metrics(metrics_jsonl)
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        if record.get(metric) is not None:
            curves.setdefault(record["split"], []).append((record["step"], record[metric]))
    if not curves:
        names = sorted({name for record in records for name in record} - {"step", "split"})
        raise ValueError(
            f"{metrics_jsonl} has no {metric!r}; it has {', '.join(names) or 'no lines'}"
        )
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for split, points in curves.items():
        marker = "." if len(points) < 50 else None
        axes.plot(*zip(*points, strict=True), label=split, marker=marker)
    if all(value > 0 for points in curves.values() for _, value in points):
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel=metric)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
