"""A run as monitoring sees it: where its numbers are served, and where its replay queue's server is.

Owns: `WatchedRun`, read from a run's folder alone, and the checks that several runs can be watched together. Called by
`controller.monitoring.stack`. Must not know: Prometheus, processes, Ray.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from controller.metric_targets import TARGETS
from controller.queue_address import queue_address, queue_key
from controller.run_folder import RunFolder


class MonitoringError(RuntimeError):
    """Monitoring cannot be brought up or down; the message names what, where, and the remedy."""


@dataclass(frozen=True, slots=True)
class QueueServer:
    """`address`: redis://host:port without credentials. `stream`: the run's stream, `database` its number."""

    address: str
    user: str
    password: str
    ca_file: str
    database: str
    stream: str


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """`port`: of the controller's endpoint. `targets`: the file that names the other endpoints, once there are some."""

    name: str
    folder: Path
    port: int
    targets: Path
    queue: QueueServer | None


def watched_run(folder: Path, environment: Mapping[str, str] = os.environ) -> WatchedRun:
    """The run in `folder`. Raises MonitoringError when it serves no metrics, RunFolderError when it is no run."""
    run = RunFolder.read(folder)
    config = run.config()
    if not config.metrics.port:
        raise MonitoringError(
            f"{run.path / 'config.toml'}: metrics.port = 0, so the run serves no metrics; begin one with "
            "metrics.port=9464 (`t2po train RECIPE metrics.port=9464`)"
        )
    url = config.queue.url
    server = _named_server(run, environment) if url else _embedded_server(run)
    return WatchedRun(run.path.name, run.path, config.metrics.port, run.path / TARGETS, server)


def check_together(runs: Sequence[WatchedRun]) -> None:
    """Raises MonitoringError when two of the runs cannot be told apart."""
    for number, run in enumerate(runs):
        for other in runs[:number]:
            if run.folder == other.folder:
                raise MonitoringError(f"{run.folder}: named twice; name each run once")
            if run.port == other.port:
                raise MonitoringError(
                    f"{other.folder} and {run.folder} both have metrics.port = {run.port}: only one of them can serve "
                    "it; begin the other with another metrics.port, or watch one"
                )
            if run.name == other.name:
                raise MonitoringError(
                    f"{other.folder} and {run.folder} have one name, which is their label: watch them one at a time"
                )


def _embedded_server(run: RunFolder) -> QueueServer | None:
    """The server that the run has started itself: port and password are new in each life of a run."""
    try:
        port = json.loads((run.queue / "server.json").read_text(encoding="utf-8"))["port"]
        lines = (run.queue / "valkey.conf").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the run is not under way
    passwords = [line.removeprefix("requirepass ") for line in lines if line.startswith("requirepass ")]
    password = passwords[0] if passwords else ""
    return QueueServer(f"redis://127.0.0.1:{port}", "", password, "", "0", queue_key(run.id, "groups"))


def _named_server(run: RunFolder, environment: Mapping[str, str]) -> QueueServer | None:
    settings = run.config().queue
    parts = urlsplit(queue_address(settings.url, settings.ca_file, environment))
    if parts.scheme not in ("redis", "rediss"):
        return None  # the exporter does not speak to a socket in the file system
    database = parts.path.strip("/") or "0"
    return QueueServer(
        f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}",
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        parse_qs(parts.query).get("ssl_ca_certs", [""])[0],
        database,
        queue_key(run.id, "groups"),
    )
