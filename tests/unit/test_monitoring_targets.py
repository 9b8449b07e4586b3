"""Where a run says that its numbers are: its endpoint with its facts, the file of the others, the engines' ports."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.engine import engine_arguments
from actors.settings import InferenceSettings
from controller.config import ConfigError, load_config
from controller.metric_targets import TARGETS, write_targets
from controller.metrics import StepMetrics, read_metrics
from controller.metrics_endpoint import MetricsEndpoint
from controller.part_settings import inference_settings
from controller.run_facts import run_facts
from controller.run_folder import RunFolder
from tests.monitoring_pages import STEPS


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def endpoint(port: int, tmp_path: Path) -> Iterator[MetricsEndpoint]:
    changes = [f"runs_dir={tmp_path}", "name=r1", "seed=7", "steps=24", "tds=off", "queue.max_groups=99"]
    with RunFolder.create(load_config("alfworld", changes), "alfworld") as run:
        facts = run_facts(run)
    endpoint = MetricsEndpoint(port, facts)
    yield endpoint
    endpoint.close()


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def value(text: str, name: str) -> float:
    found = re.search(rf"^{name}(?:{{.*}})? (\S+)$", text, flags=re.MULTILINE)
    assert found, name
    return float(found.group(1))


def test_the_endpoint_says_which_run_it_is(endpoint: MetricsEndpoint, port: int) -> None:
    text = scrape(port)
    info = re.search(r"t2po_run_info{(.*)} 1.0", text)
    assert info
    labels = dict(re.findall(r'(\w+)="([^"]*)"', info.group(1)))
    assert labels["run"] == "r1" and labels["run_id"].startswith("r1-")
    assert (labels["recipe"], labels["environment"], labels["algorithm"]) == ("alfworld", "alfworld", "gigpo")
    assert (labels["seed"], labels["tti"], labels["tds"]) == ("7", "paper", "off")
    assert value(text, "t2po_steps_planned") == 24
    assert value(text, "t2po_queue_bound") == 99
    assert 0 < value(text, "t2po_disk_free_bytes") <= value(text, "t2po_disk_size_bytes")
    assert value(text, "process_resident_memory_bytes") > 0


def test_totals_are_there_at_0_before_the_first_step(endpoint: MetricsEndpoint, port: int) -> None:
    """Else Prometheus would not see the first increase, and a skipped step would raise no alert."""
    assert value(scrape(port), "t2po_skipped_steps_total") == 0
    endpoint.observe(StepMetrics(step=1, values={"skipped_steps": 2.0}))
    assert value(scrape(port), "t2po_skipped_steps_total") == 2


def test_a_resumed_run_shows_where_it_stands_and_counts_anew(endpoint: MetricsEndpoint, port: int) -> None:
    endpoint.resume(20, {"success": 0.5, "trajectories": 64.0, "phi": math.nan})
    text = scrape(port)
    assert value(text, "t2po_step") == 20
    assert value(text, "t2po_success") == 0.5
    assert value(text, "t2po_trajectories_total") == 0
    endpoint.observe(StepMetrics(step=21, values={"trajectories": 64.0}))
    assert value(scrape(port), "t2po_trajectories_total") == 64


def test_a_scrape_sees_a_step_as_a_whole(endpoint: MetricsEndpoint) -> None:
    """What is collected while a step is taken over is of the step before or of this one, never of both."""
    import threading

    names = [f"odd_{number}" for number in range(50)]
    done = threading.Event()
    torn: list[set[float]] = []

    def look() -> None:
        while not done.is_set():
            seen = {
                sample.value
                for family in endpoint._registry.collect()
                for sample in family.samples
                if sample.name.startswith("t2po_odd_")
            }
            if len(seen) > 1:
                torn.append(seen)

    thread = threading.Thread(target=look)
    thread.start()
    for step in range(1, 200):
        endpoint.observe(StepMetrics(step=step, values=dict.fromkeys(names, float(step))))
    done.set()
    thread.join(timeout=10)
    assert torn == []


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs the Debian package prometheus (promtool)")
def test_promtool_finds_nothing_but_our_seconds(endpoint: MetricsEndpoint, port: int) -> None:
    for step in read_metrics(STEPS):
        endpoint.observe(step)
    page = scrape(port)
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=60,
                          check=False)  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "abbreviated units" not in line]
    assert [line.split()[0] for line in complaints] == ["t2po_updates_skipped_total"]  # the learner's own total


def test_targets_are_what_prometheus_reads(tmp_path: Path) -> None:
    write_targets(tmp_path, {"inference-1": 9481, "inference-0": 9480, "inference-2": 0}, ["192.0.2.2:4444"])
    run = tmp_path.name
    assert json.loads((tmp_path / TARGETS).read_text()) == [
        {"targets": ["127.0.0.1:9480"], "labels": {"job": "vllm", "run": run, "part": "inference-0"}},
        {"targets": ["127.0.0.1:9481"], "labels": {"job": "vllm", "run": run, "part": "inference-1"}},
        {"targets": ["192.0.2.2:4444"], "labels": {"job": "ray", "run": run}},
    ]


def test_a_full_disk_does_not_end_a_run_for_its_targets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_targets(tmp_path / "gone", {"inference-0": 9480}, [])
    assert "metric-targets.json: cannot write" in caplog.text


def test_every_engine_has_a_port_of_its_own(tmp_path: Path) -> None:
    config = load_config("alfworld", ["inference.metrics_port=9480", "inference.num_servers=2"])
    assert inference_settings(config, "inference-0", trains=True).metrics_port == 9480
    assert inference_settings(config, "inference-11", trains=True).metrics_port == 9491
    assert inference_settings(config, "inference-1", trains=False).metrics_port == 0  # an evaluation beside the run
    off = load_config("alfworld", [])
    assert inference_settings(off, "inference-1", trains=True).metrics_port == 0


def test_the_engine_keeps_statistics_only_where_they_are_served() -> None:
    arguments = [
        engine_arguments("m", InferenceSettings(metrics_port=port), seed=0, on_cpu=True)["disable_log_stats"]
        for port in (0, 9480)
    ]
    assert arguments == [True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["inference.metrics_port=9463", "inference.num_servers=2"], "9463 to 9464, and metrics.port = 9464"),
        (["inference.metrics_port=65535", "inference.num_servers=2"], "at most 65536 - inference.num_servers"),
        (["inference.metrics_port=-1"], "inference.metrics_port = -1"),
    ],
)
def test_ports_that_collide_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("alfworld", changes)
