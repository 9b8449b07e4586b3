"""The dashboards: current, drawn within Grafana's grid, and every query asks for something that is exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.metric_definitions import METRICS
from controller.metrics_endpoint import ALWAYS, FROM_FACTS, exported_name
from controller.monitoring.panels import Dashboard, curves, metric
from tests.monitoring_pages import PAGES, REDIS_NAMES, sample_names

pytest.importorskip("grafana_foundation_sdk", reason="needs the package grafana-foundation-sdk (make setup)")

from controller.monitoring.dashboards import DASHBOARDS, as_json
from controller.monitoring.write_dashboards import FOLDER, file_of

RULES = Path(__file__).resolve().parents[2] / "deploy" / "monitoring" / "rules.yml"
FAMILIES = ("t2po_alarms_", "t2po_restarts_", "t2po_failed_attempts_", "t2po_busy_")
"""Metrics of which there are as many as there are parts, detectors, reasons."""


def exported() -> set[str]:
    """Every name that a query may ask for."""
    names = (
        {exported_name(name) for name in METRICS} | set(ALWAYS) | set(FROM_FACTS) | {"t2po_run_info", "up", "ALERTS"}
    )
    names |= set(re.findall(r"record: (\S+)", RULES.read_text(encoding="utf-8"))) | set(REDIS_NAMES)
    return names | {name for page in PAGES for name in sample_names(page)}


def asked_for(expr: str) -> set[str]:
    """The metrics of an expression: names before a selector or a range, and our own wherever they stand."""
    bare = re.sub(r'"[^"]*"', '""', expr)
    selected = set(re.findall(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?=[{\[])", bare))
    return selected | set(re.findall(r"\b(?:t2po|vllm|ray|redis|node|process)[_:][a-zA-Z0-9_:]+", bare))


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_the_committed_file_is_current(dashboard: Dashboard) -> None:
    written = file_of(dashboard).read_text(encoding="utf-8")
    assert written == as_json(dashboard), "python -m controller.monitoring.write_dashboards"


def test_no_file_is_left_of_a_dashboard_that_is_gone() -> None:
    assert sorted(FOLDER.iterdir()) == sorted(file_of(one) for one in DASHBOARDS)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_every_query_asks_for_what_is_exported(dashboard: Dashboard) -> None:
    known = exported()
    for panel in dashboard.panels:
        assert panel.queries and panel.sentence, panel.title
        for query in panel.queries:
            names = asked_for(query.expr)
            assert names, query.expr
            unknown = {name for name in names if name not in known and not name.startswith(FAMILIES)}
            assert not unknown, f"{dashboard.title}, {panel.title}: {query.expr}"


def test_a_misspelt_metric_would_be_found() -> None:
    assert asked_for('rate(t2po_nonsense_total{run=~"$run"}[1m])') - exported() == {"t2po_nonsense_total"}
    with pytest.raises(KeyError):
        metric("nonsense")
    with pytest.raises(KeyError):
        curves("x", "nonsense")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_grafana_can_place_and_tell_apart_the_panels(dashboard: Dashboard) -> None:
    drawn = json.loads(as_json(dashboard))
    panels = drawn["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert all(x < 24 for x, _ in mine)
        assert not mine & cells, panel["title"]
        cells |= mine
    assert {panel["title"] for panel in panels if panel["type"] == "row"} == {row.title for row in dashboard.rows}
    assert len([panel for panel in panels if panel["type"] != "row"]) == len(dashboard.panels)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_source_and_run_are_the_viewer_s_choice(dashboard: Dashboard) -> None:
    drawn = json.loads(as_json(dashboard))
    assert [one["name"] for one in drawn["templating"]["list"]] == ["datasource", "run"]
    for panel in drawn["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            assert target["refId"]
    assert "${datasource}" not in dashboard.title
    uids = [one.uid for one in DASHBOARDS]
    assert len(set(uids)) == len(uids) and all(len(uid) <= 40 for uid in uids)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_the_file_is_what_grafana_s_own_schema_reads(dashboard: Dashboard) -> None:
    """The SDK's model reads it and writes it back without losing or adding anything."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard as Model

    register_default_plugins()
    written = json.loads(as_json(dashboard))
    again = json.loads(json.dumps(Model.from_json(json.loads(as_json(dashboard))), cls=JSONEncoder))
    assert again == written


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs the Debian package prometheus (promtool)")
def test_promtool_parses_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query.expr.replace("$__rate_interval", "1m").replace("$run", "x")}
        for number, query in enumerate(
            query for dashboard in DASHBOARDS for panel in dashboard.panels for query in panel.queries
        )
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout
