"""A metrics endpoint that ended by itself is opened again, within a budget; the numbers stay."""

from __future__ import annotations

import io
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from controller.config import validate
from controller.live_view import LiveView
from controller.metrics_endpoint import MetricsEndpoint
from controller.replacements import PartLost
from controller.run_folder import RunFolder
from controller.run_records import RunRecords
from controller.valkey_process import free_port


def records_of(tmp_path: Path, **supervision: Any) -> tuple[RunRecords, int]:
    port = free_port()
    tree = {
        "name": "run", "runs_dir": str(tmp_path), "metrics": {"port": port},
        "supervision": {"restart_pause_s": 0.0, **supervision},
    }  # fmt: skip
    config = validate(tree, source="test")
    folder = RunFolder.create(config, "test")
    records = RunRecords(config, folder, LiveView("run", 4, Console(file=io.StringIO())))
    records.serve()
    return records, port


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def end_thread(records: RunRecords) -> None:
    endpoint = records._endpoint
    assert isinstance(endpoint, MetricsEndpoint)
    endpoint._server.shutdown()
    endpoint._thread.join(10)
    assert not endpoint.serves


def test_run_records_endpoint_that_ended_serves_again_with_the_same_numbers(tmp_path: Path) -> None:
    records, port = records_of(tmp_path)
    try:
        records.take_up(0, resumed=False)
        records.step(3, {"success": 0.25})
        end_thread(records)
        records.beat()
        text = scrape(port)
        assert "t2po_success 0.25" in text and "t2po_step 3.0" in text
    finally:
        records.close()


def test_run_records_endpoint_that_ends_again_and_again_ends_the_run(tmp_path: Path) -> None:
    records, _ = records_of(tmp_path, max_restarts=2)
    try:
        for _ in range(2):
            end_thread(records)
            records.beat()
        end_thread(records)
        with pytest.raises(PartLost, match="metrics endpoint is not opened again, .*max_restarts = 2"):
            records.beat()
    finally:
        records.close()
