"""What Prometheus, Alertmanager and Grafana are told: their configuration as text.

Owns: the files' content. Called by `controller.monitoring.stack`. Pure: names and ports in, text out. Must not know:
processes, where the files lie.

The files are JSON, which is YAML as well: any path and any label is quoted right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.monitoring.watched_runs import WatchedRun

LOOPBACK = "127.0.0.1"

RAY_LEFT_OUT = (
    "ray_(operation|grpc|gcs_storage|gcs_task|io_context|pull|push|object_(directory|manager)|spill|health).*"
)
"""A node of Ray exports more than a thousand series; these are of interest to its developers."""

RAY_LABELS_LEFT_OUT = "otel_scope_.*|SessionName|Version"
"""New in each life of a run, or always the same: every restart would begin new series."""


def duration(seconds: float) -> str:
    """As Prometheus writes it: milliseconds are the least it knows."""
    return f"{max(1, round(seconds * 1000))}ms"


def prometheus_file(
    runs: Sequence[WatchedRun],
    exporters: Mapping[str, int],
    node_port: int,
    alertmanager_port: int,
    rules: Sequence[Path],
    every_s: float,
) -> str:
    """prometheus.yml. `exporters`: name of a run -> port of the exporter of its queue's server; ports 0: there is none.
    `every_s`: seconds between two scrapes, and between two evaluations of the rules."""
    jobs: list[dict[str, Any]] = [
        {
            "job_name": "t2po",
            "honor_labels": True,  # t2po_run_info says itself which run it is
            "static_configs": [_static(run.port, {"run": run.name}) for run in runs],
        },
        {
            "job_name": "t2po-parts",  # each target in the file says its own job, vllm or ray
            "file_sd_configs": [{"files": [str(run.targets) for run in runs], "refresh_interval": "10s"}],
            "metric_relabel_configs": [
                {"source_labels": ["__name__"], "regex": RAY_LEFT_OUT, "action": "drop"},
                {"regex": RAY_LABELS_LEFT_OUT, "action": "labeldrop"},
            ],
        },
    ]
    queues = [_static(exporters[run.name], {"run": run.name}) for run in runs if exporters.get(run.name)]
    if queues:
        jobs.append({"job_name": "valkey", "static_configs": queues})
    if node_port:
        jobs.append({"job_name": "node", "static_configs": [_static(node_port, {})]})
    tree: dict[str, Any] = {
        "global": {"scrape_interval": duration(every_s), "evaluation_interval": duration(every_s),
                   "scrape_timeout": duration(min(every_s, 10.0))},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": jobs,
    }  # fmt: skip
    if alertmanager_port:
        tree["alerting"] = {"alertmanagers": [{"static_configs": [_static(alertmanager_port, {})]}]}
    return _text(tree)


def alertmanager_file(webhook: str, wait_s: float) -> str:
    """alertmanager.yml: everything to `webhook`, a URL that alerts are posted to; empty: they are only shown.
    `wait_s`: seconds that alerts of a run and a severity are collected before they are sent."""
    receiver: dict[str, Any] = {"name": "default"}
    if webhook:
        receiver["webhook_configs"] = [{"url": webhook, "send_resolved": True}]
    route = {
        "receiver": "default",
        "group_by": ["run", "severity"],  # what is critical does not wait for the interval of what is not
        "group_wait": duration(wait_s),
        "group_interval": duration(max(wait_s, 10 * wait_s)),
        "repeat_interval": "4h",
    }
    return _text({"route": route, "receivers": [receiver], "inhibit_rules": [INHIBIT]})


INHIBIT = {
    "source_matchers": ['alertname = "T2poHeartbeatAbsent"'],
    "target_matchers": ['alertname =~ "T2poStepOverdue|T2poEngineUnreachable|T2poQueueServerDown"'],
    "equal": ["run"],
}
"""A run that is gone is said once."""


def grafana_datasource_file(prometheus_port: int) -> str:
    """Grafana's provisioning of its source, on the Prometheus of `t2po monitoring`."""
    source = {
        "name": "t2po Prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": f"http://{LOOPBACK}:{prometheus_port}",
        "isDefault": True,
    }
    return _text({"apiVersion": 1, "datasources": [source]})


def grafana_dashboards_file(folder: Path) -> str:
    """Grafana's provisioning of the dashboards in `folder`."""
    provider = {"name": "t2po", "folder": "t2po", "type": "file", "allowUiUpdates": False,
                "options": {"path": str(folder)}}  # fmt: skip
    return _text({"apiVersion": 1, "providers": [provider]})


def _static(port: int, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"targets": [f"{LOOPBACK}:{port}"], "labels": dict(labels)}


def _text(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
