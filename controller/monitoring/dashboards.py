"""Dashboards as Grafana's JSON: our panels, drawn with Grafana's own builders.

Owns: layout, colours, variables, the schema (Grafana 10.1, what later ones still read). Called by
`controller.monitoring.write_dashboards` and its test. Must not know: what is shown.

`grafana-foundation-sdk` is a package for developers: nothing that a run or `t2po monitoring` needs imports this module.
"""

from __future__ import annotations

import json

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as choice
from grafana_foundation_sdk.models import dashboard as model

from controller.monitoring.cluster_and_queue import CLUSTER_AND_QUEUE
from controller.monitoring.exploration import EXPLORATION
from controller.monitoring.panels import Dashboard, Panel
from controller.monitoring.throughput import THROUGHPUT
from controller.monitoring.training_health import TRAINING_HEALTH

DASHBOARDS = (TRAINING_HEALTH, EXPLORATION, THROUGHPUT, CLUSTER_AND_QUEUE)

HEIGHTS = {"timeseries": 8, "stat": 4, "state": 8}
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

Drawn = timeseries.Panel | stat.Panel | statetimeline.Panel


def as_json(dashboard: Dashboard) -> str:
    """The file that Grafana is provisioned with, the same for the same dashboard."""
    text = json.dumps(draw(dashboard).build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
    return text + "\n"


def draw(dashboard: Dashboard) -> build.Dashboard:
    """Rows from top to bottom, panels from left to right as far as they fit, numbered in this order."""
    drawn = (
        build.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.sentence)
        .tags(["t2po"])
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .refresh("10s")
        .time("now-3h", "now")
        .with_variable(build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            build.QueryVariable("run")
            .label("run")
            .datasource(SOURCE)
            .query("label_values(t2po_step, run)")
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".+")
            .current(model.VariableOption(selected=True, text="All", value="$__all"))
        )
        .link(build.DashboardLink("t2po").type(model.DashboardLinkType.DASHBOARDS).tags(["t2po"])
              .include_vars(True).keep_time(True))
    )  # fmt: skip
    number, top = 1, 0
    for row in dashboard.rows:
        drawn.with_row(build.Row(row.title).id(number).grid_pos(model.GridPos(h=1, w=24, x=0, y=top)))
        number, top, left, height = number + 1, top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > 24:
                top, left, height = top + height, 0, 0
            tall = HEIGHTS[panel.kind]
            place = model.GridPos(h=tall, w=panel.width, x=left, y=top)
            drawn.with_panel(_panel(panel).id(number).grid_pos(place))
            number, left, height = number + 1, left + panel.width, max(height, tall)
        top += height
    return drawn


def _panel(panel: Panel) -> Drawn:
    drawn = _bare(panel).title(panel.title).description(panel.sentence).datasource(SOURCE).unit(panel.unit)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(letter)
        drawn.with_target(target.datasource(SOURCE).range())
    if panel.words:
        words = {str(value): model.ValueMappingResult(text=text, color=colour) for value, text, colour in panel.words}
        steps = [
            model.Threshold(value=None if not number else float(value), color=colour)
            for number, (value, _, colour) in enumerate(panel.words)
        ]
        drawn.mappings([model.ValueMap(options=words)])
        drawn.thresholds(build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        drawn.color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    return drawn


def _bare(panel: Panel) -> Drawn:
    legend = options.VizLegendOptions().show_legend(True).placement(choice.LegendPlacement.BOTTOM)
    legend.display_mode(choice.LegendDisplayMode.LIST)
    if panel.kind == "stat":
        last = options.ReduceDataOptions().calcs(["lastNotNull"])
        colour = choice.BigValueColorMode.VALUE if panel.words else choice.BigValueColorMode.NONE
        return stat.Panel().reduce_options(last).color_mode(colour).graph_mode(choice.BigValueGraphMode.NONE)
    if panel.kind == "state":
        line = statetimeline.Panel().show_value(choice.VisibilityMode.NEVER)
        return line.line_width(0).fill_opacity(70).legend(legend)
    tooltip = options.VizTooltipOptions().mode(choice.TooltipDisplayMode.MULTI)
    return timeseries.Panel().legend(legend).tooltip(tooltip).line_width(1).fill_opacity(0)
