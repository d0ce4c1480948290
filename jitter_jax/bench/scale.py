"""Sizes that go from value to value, and how cost grows with them."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from jitter_jax.bench.cases import Plain, Sizes

FIELDS = {name: (name,) for name in Sizes._fields} | {"size": ("height", "width")}
"""What can be scaled, and the sizes that this sets."""


class Scale(NamedTuple):
    """One of the sizes, from value to value.

    Attributes:
        name: in `FIELDS`.
        values: ascending.
    """

    name: str
    values: tuple[int, ...]

    def sizes(self, given: Sizes) -> dict[int, Sizes]:
        """Return the sizes with each value."""
        return {v: given._replace(**dict.fromkeys(FIELDS[self.name], v)) for v in self.values}


def parse_scale(text: str) -> Scale:
    """Return the scale of `"name:v1,v2,..."`.

    Raises:
        ValueError: it has another form.
    """
    name, _, values = text.partition(":")
    numbers = sorted({int(v) if v.strip().isdecimal() else 0 for v in values.split(",")})
    if name not in FIELDS or numbers[0] < 1 or len(numbers) < 2:
        raise ValueError(
            f"scale={text!r} is not accepted: two or more numbers of at least 1 are expected for "
            f"one of {[*FIELDS]}, as in 'samples:1,2,5'"
        )
    return Scale(name, tuple(numbers))


def growth(rows: Sequence[Plain], name: str) -> list[Plain]:
    """Return how each case grows with a size.

    `seconds = a + b value` and `seconds = c value^p`, of least squares over the medians, the latter
    in logarithms; the same power of the temporaries and of the peak of the memory.

    Args:
        rows: lines of the table, those of a case with different values of the size.
        name: of the scale.

    Returns:
        The fits of every case of several lines, of each framework and rematerialisation.
    """
    alike: dict[tuple[str, ...], list[Plain]] = {}
    for row in rows:
        group = row["problem"], row["case"], row["framework"], row["remat"]
        alike.setdefault(group, []).append(row)
    found = []
    for (problem, case, framework, remat), group_rows in alike.items():
        if len(group_rows) == 1:  # it has no such size
            continue
        values = [row["value"] for row in group_rows]
        of = {
            field: [row[field] for row in group_rows]
            for field in ("median_s", "temp_gb", "peak_gb")
        }
        slope, intercept = statistics.linear_regression(values, of["median_s"])
        errors = [
            abs(intercept + slope * value - seconds)
            for value, seconds in zip(values, of["median_s"], strict=True)
        ]
        found.append(
            {
                "problem": problem,
                "case": case,
                "framework": framework,
                "remat": remat,
                "field": name,
                "values": values,
                **of,
                "intercept_s": intercept,
                "slope_s": slope,
                "largest_deviation_s": max(errors),
                "time_power": power(values, of["median_s"]),
                "temp_power": power(values, of["temp_gb"]),
                "peak_power": power(values, of["peak_gb"]),
            }
        )
    return found


def power(values: Sequence[float], costs: Sequence[float | None]) -> float | None:
    """Return `p` of `cost = c value^p`; None where costs are unknown or zero."""
    logs = [math.log(cost) for cost in costs if cost]
    if len(logs) < len(values):
        return None
    return statistics.linear_regression([math.log(value) for value in values], logs).slope
