"""The Prometheus endpoint over HTTP, on loopback."""

from __future__ import annotations

import math
import socket
import urllib.request
from collections.abc import Iterator

import pytest

from controller.metrics import MetricsError, StepMetrics
from controller.metrics_endpoint import MetricsEndpoint, open_endpoint


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def endpoint(port: int) -> Iterator[MetricsEndpoint]:
    endpoint = MetricsEndpoint(port)
    yield endpoint
    endpoint.close()


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def test_gauges_totals_and_heartbeat(endpoint: MetricsEndpoint, port: int) -> None:
    for step in (1, 2):
        endpoint.observe(StepMetrics(step=step, values={"success": 0.25 * step, "trajectories": 64.0, "phi": math.nan}))
    text = scrape(port)
    assert "t2po_success 0.5" in text
    assert "t2po_trajectories_total 128.0" in text
    assert "t2po_step 2.0" in text
    assert "t2po_phi NaN" in text
    assert "Share of the step's trajectories that reached the goal. [share]" in text
    assert float(text.split("\nt2po_heartbeat_timestamp_seconds ")[1].split("\n")[0]) > 1.7e9


def test_unknown_and_odd_names_pass(endpoint: MetricsEndpoint, port: int) -> None:
    endpoint.observe(StepMetrics(step=1, values={"odd name/µ": 3.0, "step": 1.0, "skipped_steps": math.nan}))
    text = scrape(port)
    assert "t2po_odd_name__ 3.0" in text
    assert "t2po_skipped_steps_total 0.0" in text


def test_a_taken_port_is_named_with_its_knob() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(MetricsError, match=rf"metrics.port = {taken}.*metrics.port=0"):
            MetricsEndpoint(taken)


def test_port_zero_is_off() -> None:
    assert open_endpoint(0) is None


def test_a_closed_endpoint_frees_its_port(port: int) -> None:
    MetricsEndpoint(port).close()
    MetricsEndpoint(port).close()
