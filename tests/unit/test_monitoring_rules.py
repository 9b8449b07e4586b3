"""The rules and alerts, by Prometheus' own tools; and that each alert has a test and a runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.metric_definitions import METRICS
from controller.metrics_endpoint import ALWAYS, FROM_FACTS, exported_name
from controller.monitoring import configuration
from tests.unit.test_monitoring_stack import some_run

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]

promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs the Debian package prometheus (promtool)")
amtool = pytest.mark.skipif(
    not shutil.which("amtool"), reason="needs the Debian package prometheus-alertmanager (amtool)"
)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


@promtool
def test_promtool_takes_the_rules() -> None:
    done = run("promtool", "check", "rules", "--lint-fatal", MONITORING / "rules.yml", MONITORING / "alerts.yml")
    assert done.returncode == 0, done.stderr


@promtool
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    done = run("promtool", "test", "rules", MONITORING / "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_both_ways() -> None:
    tests = {test["name"]: test for test in yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]}
    for alert in ALERTS:
        test = tests[alert["alert"]]
        checks = test.get("promql_expr_test") or test["alert_rule_test"]
        expected = [check.get("exp_samples", check.get("exp_alerts")) for check in checks]
        assert [] in expected and any(expected), alert["alert"]
        assert any('run="good"' in series["series"] for series in test["input_series"]), alert["alert"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda one: one["alert"])
def test_every_alert_says_what_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    assert "$value" in notes["description"] or alert["alert"] in ("T2poHeartbeatAbsent", "T2poNothingScraped",
                                                                   "T2poEngineUnreachable")  # fmt: skip
    page, anchor = notes["runbook"].split("#")
    assert anchor == alert["alert"].lower()
    assert re.search(rf"^#+ {alert['alert']}$", (ROOT / page).read_text(), flags=re.MULTILINE), alert["alert"]


def test_alerts_and_rules_ask_for_what_is_exported() -> None:
    text = (MONITORING / "alerts.yml").read_text() + (MONITORING / "rules.yml").read_text()
    rules = set(re.findall(r"record: (\S+)", text))
    known = {exported_name(name) for name in METRICS} | set(ALWAYS) | set(FROM_FACTS) | rules
    for line in re.findall(r"expr: (.+?)\n\s+(?:for|labels|- record|$)", text + "\n  labels", flags=re.DOTALL):
        for name in re.findall(r"\bt2po[_:][a-z0-9_:]+", re.sub(r'"[^"]*"', "", line)):
            assert name in known, f"{name} in {line}"


@amtool
@pytest.mark.parametrize("webhook", ["", "http://127.0.0.1:9999/alerts"])
def test_amtool_takes_the_generated_configuration(webhook: str, tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(configuration.alertmanager_file(webhook, wait_s=10.0), encoding="utf-8")
    done = run("amtool", "check-config", path)
    assert done.returncode == 0, done.stderr


@amtool
def test_amtool_takes_the_example() -> None:
    done = run("amtool", "check-config", MONITORING / "alertmanager.yml")
    assert done.returncode == 0, done.stderr
    routed = run("amtool", "config", "routes", "test", f"--config.file={MONITORING / 'alertmanager.yml'}",
                 "severity=critical", "run=a")  # fmt: skip
    assert routed.stdout.strip() == "page", routed.stderr


@promtool
def test_promtool_takes_the_generated_configuration(tmp_path: Path) -> None:
    runs = [some_run(tmp_path, name='a "run"', port=9464), some_run(tmp_path, name="b", port=9470)]
    rules = [MONITORING / "rules.yml", MONITORING / "alerts.yml"]
    text = configuration.prometheus_file(runs, {"b": 9500}, 9501, 9502, rules, every_s=0.25)
    path = tmp_path / "prometheus.yml"
    path.write_text(text, encoding="utf-8")
    done = run("promtool", "check", "config", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_provisioned_with_these_dashboards() -> None:
    """No Grafana can be had for the tests: the files hold what its documentation asks for."""
    source = yaml.safe_load((MONITORING / "grafana" / "datasources" / "t2po.yaml").read_text())
    assert source["apiVersion"] == 1
    assert source["datasources"][0]["type"] == "prometheus"
    provider = yaml.safe_load((MONITORING / "grafana" / "dashboards" / "t2po.yaml").read_text())["providers"][0]
    assert provider["type"] == "file"
    assert yaml.safe_load(configuration.grafana_datasource_file(9465))["datasources"][0]["url"].endswith(":9465")
    assert yaml.safe_load(configuration.grafana_dashboards_file(Path("/d")))["providers"][0]["options"]["path"] == "/d"
