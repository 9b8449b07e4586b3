"""Real Prometheus, Alertmanager and exporter on loopback, watching the real endpoint of a recorded run.

Every panel of every dashboard returns data; a provoked collapse reaches a webhook and is taken back; `down` leaves no
process.
"""

from __future__ import annotations

import json
import math
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from controller.cli import main
from controller.config import load_config
from controller.metrics import StepMetrics, read_metrics
from controller.metrics_endpoint import MetricsEndpoint
from controller.monitoring.lineup import Options
from controller.monitoring.programs import find_binary, get
from controller.monitoring.stack import Running, down, running, up
from controller.monitoring.watched_runs import MonitoringError, watched_run
from controller.replay_queue import ReplayQueue
from controller.run_facts import run_facts
from controller.run_folder import RunFolder
from controller.valkey import ValkeyServer
from tests.monitoring_pages import REDIS_NAMES, STEPS, GrowingPages

pytest.importorskip("grafana_foundation_sdk", reason="needs the package grafana-foundation-sdk (make setup)")
from controller.monitoring.dashboards import DASHBOARDS

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not find_binary("prometheus"), reason="needs the Debian package prometheus"),
]

NOT_MEASURED = {
    "health": 0.0, "alarms_kl_spike": 0.0, "alarms_entropy_collapse": 1.0, "restarts_inference-0": 1.0,
    "failed_attempts_timeout": 2.0, "cut_observations": 1.0,
    "reference_kl": 0.01, "mismatch_kl_fresh": 1e-6, "void_trajectories": 0.0,
    "tti_epsilon": 0.08, "tds_eta": 0.008, "value_loss": 0.1, "explained_variance": 0.5, "critic_grad_norm": 1.0,
    "overlap_share": 0.9, "overlap_bound_s": 9.0, "t_generate_s": 8.0, "t_train_s": 7.0, "t_sync_s": 1.0,
    "memory_mb_engine": 900.0, "private_mb_engine": 800.0, "fds_engine": 60.0, "threads_engine": 40.0,
}  # fmt: skip
"""What the recorded run did not have: a critic, a reference, tracked thresholds, detectors, a failure, measures of its
overlap and of its processes."""

DEADLINE_S = 90.0


class Webhook:
    """Collects what Alertmanager posts."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        alerts = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                alerts.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/alerts"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def heard(self, name: str, status: str) -> list[dict[str, Any]]:
        return [one for one in self.alerts if one["labels"]["alertname"] == name and one["status"] == status]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class Watched:
    """A recorded run that is served, and the monitoring that watches it."""

    def __init__(self, folder: Path, endpoint: MetricsEndpoint, webhook: Webhook, started: list[Running]) -> None:
        self.folder = folder
        self.endpoint = endpoint
        self.webhook = webhook
        self.port = {one.name: one.port for one in started}
        self.steps = [
            StepMetrics(step=step.step, values={**NOT_MEASURED, **step.values}) for step in read_metrics(STEPS)
        ]

    def query(self, expr: str) -> list[float]:
        """The values of an instant query."""
        path = f"/api/v1/query?query={urllib.parse.quote(expr)}"
        answer = get(self.port["prometheus"], path, timeout_s=10.0)
        if answer is None:
            return []
        return [float(series["value"][1]) for series in json.loads(answer)["data"]["result"]]


def until(true: Callable[[], Any], what: str) -> Any:
    """What `true` returns once it is something; fails after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := true()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE_S:g} s: {what}")
        time.sleep(0.1)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A run with its queue's server, engines, Ray and host (recorded pages), watched every second."""
    base = tmp_path_factory.mktemp("monitoring")
    port = free_port()
    with RunFolder.create(load_config("alfworld", [f"runs_dir={base}", "name=r", f"metrics.port={port}"]), "x") as run:
        facts = run_facts(run)
    webhook = Webhook()
    with ValkeyServer(run.queue) as server, GrowingPages() as pages:
        queue = ReplayQueue(server.url, run.id, 8, 10.0)
        endpoint = MetricsEndpoint(port, facts)
        served = [("vllm", {"part": "inference-0"}), ("ray", {}), ("node", {})]
        targets = [
            {
                "targets": [f"127.0.0.1:{pages.port}"],
                "labels": {"job": job, "run": "r", "__metrics_path__": f"/{job}", **more},
            }
            for job, more in served
        ]
        (run.path / "metric-targets.json").write_text(json.dumps(targets))
        try:
            found = watched_run(run.path)
            options = Options(port=0, every_s=1.0, webhook=webhook.url, wait_s=0.2)
            started = up([found], run.path / "monitoring", options)
            yield Watched(run.path, endpoint, webhook, started)
        finally:
            if running(run.path / "monitoring"):
                down(run.path / "monitoring")
            queue.close()
            endpoint.close()
            webhook.close()


def test_every_panel_of_every_dashboard_returns_data(watched: Watched) -> None:
    for step in watched.steps:
        watched.endpoint.observe(step)
        if step.step % 8 == 0:
            until(lambda step=step: watched.query("t2po_step") == [step.step], f"step {step.step} is scraped")
    missing = {
        (dashboard.title, panel.title, query.expr.replace("$run", ".+").replace("$__rate_interval", "1m"))
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries
        if find_binary("redis-exporter") or not any(name in query.expr for name in REDIS_NAMES)
    }
    assert len(missing) > 100

    def all_answered() -> bool:
        missing.difference_update([one for one in missing if any(map(math.isfinite, watched.query(one[2])))])
        return not missing

    deadline = time.monotonic() + DEADLINE_S
    while not all_answered() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not missing, "\n".join(map(str, sorted(missing)))


def test_prometheus_reaches_everything_and_says_what_the_run_is(watched: Watched) -> None:
    jobs = 'up{job=~"t2po|vllm|ray|node|valkey"}'
    expected = 4 + bool(find_binary("redis-exporter")) + bool(find_binary("node-exporter"))
    until(lambda: watched.query(jobs) == [1.0] * expected, "every target is up")
    assert watched.query('t2po_run_info{run="r", environment="alfworld", seed="0"}') == [1.0]
    assert watched.query('t2po:busy_ratio{run="r", part="learner"}') != []


@pytest.mark.skipif(not find_binary("redis-exporter"), reason="needs the Debian package prometheus-redis-exporter")
def test_the_replay_queue_s_own_server_is_scraped(watched: Watched) -> None:
    for name in REDIS_NAMES:
        until(lambda name=name: watched.query(f'{name}{{run="r"}}'), name)


@pytest.mark.skipif(not find_binary("alertmanager"), reason="needs the Debian package prometheus-alertmanager")
def test_a_collapse_reaches_the_webhook_and_is_taken_back(watched: Watched) -> None:
    last = watched.steps[-1]
    assert not watched.webhook.heard("T2poCollapsed", "firing")
    watched.endpoint.observe(StepMetrics(step=25, values={**last.values, "health": 2.0, "alarms_kl_spike": 2.0}))
    (alert, *_) = until(lambda: watched.webhook.heard("T2poCollapsed", "firing"), "the webhook hears of the collapse")
    assert alert["labels"]["run"] == "r" and alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["summary"] == "r has collapsed"
    assert alert["annotations"]["runbook"] == "docs/monitoring.md#t2pocollapsed"
    watched.endpoint.observe(StepMetrics(step=26, values=last.values))
    until(lambda: watched.webhook.heard("T2poCollapsed", "resolved"), "the webhook hears that it is over")


def test_a_second_up_says_what_runs(watched: Watched) -> None:
    with pytest.raises(MonitoringError, match="runs already .prometheus at http://127.0.0.1.*monitoring down"):
        up([watched_run(watched.folder)], watched.folder / "monitoring", Options(port=0))


def test_status_tells_whom_it_reaches(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitoring", "status", str(watched.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("prometheus") and "http://127.0.0.1" in line for line in lines)
    assert any(line.startswith("up ") and " r t2po " in line for line in lines), lines


def test_down_leaves_no_process(watched: Watched) -> None:
    folder = watched.folder / "monitoring"
    before = running(folder)
    assert before and all(one.process.alive() for one in before)
    assert {one.name for one in down(folder)} == {one.name for one in before}
    assert not any(one.process.alive() for one in before)
    for one in before:
        with socket.socket() as probe:  # the port is free again
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", one.port))
    assert running(folder) == []
    with pytest.raises(MonitoringError, match="no monitoring was brought up here"):
        down(folder)


@pytest.mark.skipif(not find_binary("alertmanager"), reason="needs the Debian package prometheus-alertmanager")
def test_a_program_that_does_not_start_ends_the_others(tmp_path: Path) -> None:
    with RunFolder.create(load_config("alfworld", [f"runs_dir={tmp_path}", "name=r"]), "x") as run:
        pass
    folder = tmp_path / "m"
    with pytest.raises(MonitoringError, match=r"alertmanager ended: .*alertmanager.log"):
        up([watched_run(run.path)], folder, Options(port=0, webhook="http://"))
    assert running(folder) == []
    port = json.loads((folder / "prometheus.yml").read_text())["alerting"]["alertmanagers"][0]["static_configs"]
    assert port  # it was written, and nobody uses it:
    until(lambda: get(int(port[0]["targets"][0].split(":")[1]), "/-/ready", 1.0) is None, "nobody listens")
