"""What a panel, a row and a dashboard are, in our own words: data, no drawing.

Owns: `Query`, `Panel`, `Row`, `Dashboard`, and the short ways to write queries of a run's metrics. Called by the
modules that say what is on each dashboard; drawn by `controller.monitoring.dashboards`. Must not know: Grafana's
schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from controller.metric_definitions import METRICS
from controller.metrics_endpoint import exported_name

RUN = 'run=~"$run"'
"""Selects the runs that the dashboard's variable names."""

RATE = "[$__rate_interval]"

Kind = Literal["timeseries", "stat", "state"]


@dataclass(frozen=True, slots=True)
class Query:
    """`expr` in PromQL with the variables `$run` and `$__rate_interval`; `legend` with labels in double braces."""

    expr: str
    legend: str = "{{run}}"


@dataclass(frozen=True, slots=True)
class Panel:
    """`unit`: Grafana's name of it ("s", "percentunit", "bytes", "short"); `width` of 24 columns; `words`: what values
    are called, where they stand for states."""

    title: str
    sentence: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    words: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    sentence: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)


UNITS = {"share": "percentunit", "s": "s", "bytes": "bytes", "tokens/s": "short"}
"""Grafana's names of the units in `metric_definitions`; any other is a plain number."""


def metric(name: str) -> str:
    """The last value of a step metric, of the chosen runs. KeyError for one that is not defined."""
    return f"{exported_name(METRICS[name].name)}{{{RUN}}}"


def rule(name: str) -> str:
    """A recording rule of deploy/monitoring/rules.yml, of the chosen runs."""
    return f"t2po:{name}{{{RUN}}}"


def curves(title: str, *names: str, sentence: str = "", unit: str = "", width: int = 8) -> Panel:
    """A panel of step metrics by name. With one, its sentence and unit are the panel's; with several, each is in the
    legend, and its sentence in the panel's."""
    metrics = [METRICS[name] for name in names]
    sentences = sentence or " ".join(
        one.sentence if len(metrics) == 1 else f"{one.name}: {one.sentence}" for one in metrics
    )
    queries = tuple(
        Query(metric(one.name), "{{run}}" if len(metrics) == 1 else f"{{{{run}}}} {one.name}") for one in metrics
    )
    return Panel(title, sentences, queries, unit or UNITS.get(metrics[0].unit, "short"), width=width)


def number(title: str, expr: str, sentence: str, unit: str = "short", legend: str = "{{run}}", width: int = 4) -> Panel:
    """One large number a run."""
    return Panel(title, sentence, (Query(expr, legend),), unit, "stat", width)
