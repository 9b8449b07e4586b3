"""The metrics of a run as curves: one column a metric, and which part of the page it belongs to.

Owns: columns, groups of metrics, the course of success by task kind. Called by `controller.report.collection`. Must
not know: files, how a curve is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controller.metric_definitions import METRICS, definition

Column = list[float | None]
"""One value a step; None where it was not measured."""

GROUPS = {
    "outcome": "success", "exploration": "entropy", "update": "mismatch_kl", "flow": "staleness",
    "cluster": "memory_mb_controller",
}  # fmt: skip
"""Parts of the table of metric definitions, in its order, by the first metric of each."""
HEALTH, OTHER = "health", "other"
DIGITS = 6


def group_of(name: str) -> str:
    """The part of the page that a metric belongs to; one that the table does not know is in `other`."""
    if name in ("health", "webhook_failures") or name.startswith(("alarms_", "actions_")):
        return HEALTH
    if name.startswith("restarts_"):
        return "flow"
    if name not in METRICS:
        return OTHER
    names = list(METRICS)
    place = names.index(name)
    starts = [(names.index(first), group) for group, first in GROUPS.items()]
    return max((start, group) for start, group in starts if start <= place)[1]


def describe(names: Iterable[str]) -> list[dict[str, Any]]:
    """The metrics of these names in the order of the table: what the page says about each."""
    order = {name: place for place, name in enumerate(METRICS)}
    return [
        {
            "name": metric.name,
            "unit": metric.unit,
            "sentence": metric.sentence,
            "formula": metric.formula,
            "group": group_of(metric.name),
        }
        for metric in map(definition, sorted(set(names), key=lambda name: (order.get(name, len(order)), name)))
    ]


def columns(steps: Mapping[int, Mapping[str, Any]]) -> dict[str, Column]:
    """Lines of metrics -> name -> one value a step, rounded to what a picture can show."""
    names = dict.fromkeys(name for row in steps.values() for name in row if name not in ("step", "time"))
    found = {name: [number(row.get(name)) for row in steps.values()] for name in names}
    return {name: column for name, column in found.items() if any(value is not None for value in column)}


def number(value: Any) -> float | None:
    """A finite number with six digits, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def seconds(value: Any) -> float | None:
    """A time since 1970, to a tenth of a second: six digits would not tell days apart."""
    return None if number(value) is None else round(float(value), 1)


def mean_of(column: Sequence[float | None]) -> float | None:
    """The mean of what was measured."""
    measured = [value for value in column if value is not None]
    return sum(measured) / len(measured) if measured else None


def by_kind(outcomes: Mapping[int, Iterable[tuple[str, bool]]]) -> dict[str, dict[str, list[int]]]:
    """Step -> (task kind, won) of its trajectories: for each kind how many were won and played at each step."""
    kinds = sorted({kind for rows in outcomes.values() for kind, _ in rows})
    table = {kind: {"won": [0] * len(outcomes), "played": [0] * len(outcomes)} for kind in kinds}
    for place, rows in enumerate(outcomes.values()):
        for kind, won in rows:
            table[kind]["won"][place] += won
            table[kind]["played"][place] += 1
    return table
