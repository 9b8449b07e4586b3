"""Monitoring on this machine, brought up and taken down: `t2po monitoring up|down|status`.

Owns: the monitoring folder (what runs is recorded in it), which programs are started with which ports, and their
order. Called by `controller.cli_monitoring` and tests. Must not know: what is measured, how a file is worded.

    monitoring/            below the run's folder, or where --folder says
      state.json           what runs, by pid and start time, and on which ports
      prometheus.yml       alertmanager.yml     grafana/provisioning
      prometheus/          alertmanager/        grafana/data     their data
      *.log                what they print
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.durable_files import encode_json, write_whole
from controller.monitoring import configuration
from controller.monitoring.programs import (
    BINARIES,
    LOOPBACK,
    Program,
    check_port_free,
    end,
    find_binary,
    start,
    wait_ready,
)
from controller.monitoring.watched_runs import MonitoringError, QueueServer, WatchedRun
from controller.process_identity import ProcessId
from controller.run_folder import take_lock
from controller.valkey_process import free_port, write_private

FOLDER = "monitoring"
STATE = "state.json"
DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
RULES = (DEPLOY / "rules.yml", DEPLOY / "alerts.yml")
DEFAULT_PORT = 9465
"""Of Prometheus; the others follow. Not its usual 9090: where Debian's package is installed, that one is taken."""

RETENTION = "30d"


@dataclass(frozen=True, slots=True)
class Options:
    """`port` of Prometheus, the others on the next ones; 0 takes free ports. `every_s`: between scrapes, and between
    evaluations of the rules. `webhook`: a URL that alerts are posted to. `wait_s`: how long alerts are collected."""

    port: int = DEFAULT_PORT
    every_s: float = 5.0
    webhook: str = ""
    wait_s: float = 10.0
    start_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """One program of the stack, as it was started."""

    name: str
    port: int
    process: ProcessId

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


def up(
    runs: Sequence[WatchedRun], folder: Path, options: Options, say: Callable[[str], None] = lambda line: None
) -> list[Running]:
    """Starts everything that is installed and waits until it serves. Raises MonitoringError, with nothing left running.

    `say` is told what is left out and why.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if alive := [one for one in running(folder) if one.process.alive()]:
            names = ", ".join(f"{one.name} at {one.url}" for one in alive)
            raise MonitoringError(f"{folder}: runs already ({names}); `t2po monitoring down` ends it")
        started: list[Running] = []
        try:
            programs = list(_programs(runs, folder, options, say))
            for program in programs:
                check_port_free(program.name, program.port)
            for program in programs:
                process = start(program, _log(folder, program.name))
                started.append(Running(program.name, program.port, process))
                _record(folder, started, runs)
            for program, one in zip(programs, started, strict=True):
                wait_ready(program, one.process, _log(folder, program.name), options.start_timeout_s)
        except BaseException:  # also Ctrl-C: nobody would know of what was started
            _end_all(started)
            (folder / STATE).unlink(missing_ok=True)
            raise
        return started


def down(folder: Path) -> list[Running]:
    """Ends what `up` has started there, exactly that, and waits until it is gone. What it ended."""
    folder = folder.absolute()
    if not (folder / STATE).exists():
        raise MonitoringError(
            f"{folder}: no monitoring was brought up here; `t2po monitoring up` does, or name its --folder"
        )
    with _locked(folder):
        alive = [one for one in running(folder) if one.process.alive()]
        if left := _end_all(alive):
            names = ", ".join(f"{one.name} (pid {one.process.pid})" for one in left)
            raise MonitoringError(f"{folder}: {names} cannot be ended; is it stuck on a disk that does not answer?")
        (folder / STATE).unlink(missing_ok=True)
        return alive


def running(folder: Path) -> list[Running]:
    """What `up` has recorded there, alive or not; nothing where there is no record. Raises MonitoringError."""
    return [
        Running(row["name"], row["port"], ProcessId(**row["process"])) for row in _state(folder).get("programs", [])
    ]


def watched(folder: Path) -> list[str]:
    """The folders of the runs that `up` was told to watch."""
    return list(_state(folder).get("runs", []))


def _state(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        for row in state["programs"]:
            ProcessId(**row["process"]), int(row["port"]), str(row["name"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MonitoringError(
            f"{path}: cannot be read ({error}); end prometheus and alertmanager by hand (`ss -ltnp` shows them), then "
            "delete the file"
        ) from error
    return dict(state)


def _record(folder: Path, started: Sequence[Running], runs: Sequence[WatchedRun]) -> None:
    rows = [{"name": one.name, "port": one.port, "process": dataclasses.asdict(one.process)} for one in started]
    state = {"since": time.time(), "runs": [str(run.folder) for run in runs], "programs": rows}
    write_whole(folder / STATE, encode_json(state) + b"\n")


def _end_all(programs: Sequence[Running]) -> list[Running]:
    """What could not be ended. Prometheus last: it still sees the others go."""
    return [one for one in reversed(programs) if not end(one.process)]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = take_lock(folder, "this monitoring")
    try:
        yield
    finally:
        os.close(descriptor)


def _log(folder: Path, name: str) -> Path:
    return folder / f"{name}.log"


def _programs(
    runs: Sequence[WatchedRun], folder: Path, options: Options, say: Callable[[str], None]
) -> Iterator[Program]:
    """In the order in which they are started: Prometheus first. Writes their configuration."""
    binaries = {name: find_binary(name) for name in BINARIES}
    prometheus = binaries["prometheus"]
    if prometheus is None:
        raise MonitoringError(f"prometheus is not installed: {BINARIES['prometheus'][1]}")
    for name, what in (
        ("alertmanager", "alerts are shown by Prometheus and sent nowhere"),
        ("grafana", "the dashboards in deploy/monitoring/dashboards can be imported into another one"),
        ("redis-exporter", "the replay queue's server is not scraped"),
        ("node-exporter", "the host is not scraped; Ray's agent tells its memory and CPU"),
    ):
        if binaries[name] is None:
            say(f"{name} is not installed, {what} ({BINARIES[name][1]})")
    ports = _Ports(options.port)
    port = ports.take()
    alertmanager_port = ports.take() if binaries["alertmanager"] else 0
    grafana_port = ports.take() if binaries["grafana"] else 0
    node_port = ports.take() if binaries["node-exporter"] else 0
    exporters = {}
    for run in runs:
        if run.queue is None:
            say(
                f"{run.name}: its replay queue has no server now, so that is not scraped; bring up again when it trains"
            )
        elif binaries["redis-exporter"]:
            exporters[run.name] = ports.take()

    text = configuration.prometheus_file(runs, exporters, node_port, alertmanager_port, RULES, options.every_s)
    write_whole(folder / "prometheus.yml", text.encode())
    yield Program(
        "prometheus",
        [
            prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--storage.tsdb.retention.time={RETENTION}",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--log.level=warn",
        ],
        port,
        "/-/ready",
    )
    if binaries["alertmanager"]:
        write_private(folder / "alertmanager.yml", configuration.alertmanager_file(options.webhook, options.wait_s))
        yield Program(
            "alertmanager",
            [
                binaries["alertmanager"],
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address={LOOPBACK}:{alertmanager_port}",
                "--cluster.listen-address=",  # alone: else it listens on every interface for others
                "--log.level=warn",
            ],
            alertmanager_port,
            "/-/ready",
        )
    if binaries["grafana"]:
        yield _grafana(binaries["grafana"], folder, grafana_port, port)
    if binaries["node-exporter"]:
        listen = f"--web.listen-address={LOOPBACK}:{node_port}"
        yield Program("node-exporter", [binaries["node-exporter"], listen, "--log.level=warn"], node_port, "/")
    for run in runs:
        if run.name in exporters and run.queue and binaries["redis-exporter"]:
            yield _exporter(binaries["redis-exporter"], run.name, run.queue, exporters[run.name])


def _exporter(binary: str, run: str, queue: QueueServer, port: int) -> Program:
    """User and password go by the environment: the list of processes is everybody's to read."""
    command = [
        binary,
        f"--web.listen-address={LOOPBACK}:{port}",
        f"--check-single-streams=db{queue.database}={queue.stream}",
        "--redis-only-metrics",
    ]
    if queue.ca_file:
        command.append(f"--tls-ca-cert-file={queue.ca_file}")
    secret = {"REDIS_ADDR": queue.address, "REDIS_USER": queue.user, "REDIS_PASSWORD": queue.password}
    return Program(f"redis-exporter-{run}", command, port, "/", secret)


def _grafana(binary: str, folder: Path, port: int, prometheus_port: int) -> Program:
    """On loopback, for looking only: nobody need log in, nobody can change anything, nothing is fetched or reported."""
    home = folder / "grafana"
    provisioning = home / "provisioning"
    for part in ("datasources", "dashboards", "plugins", "alerting"):
        (provisioning / part).mkdir(parents=True, exist_ok=True)
    (home / "data").mkdir(exist_ok=True)
    source = configuration.grafana_datasource_file(prometheus_port)
    write_whole(provisioning / "datasources" / "t2po.yaml", source.encode())
    dashboards = configuration.grafana_dashboards_file(DEPLOY / "dashboards")
    write_whole(provisioning / "dashboards" / "t2po.yaml", dashboards.encode())
    settings = {
        "GF_SERVER_HTTP_ADDR": LOOPBACK,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_DATA": str(home / "data"),
        "GF_PATHS_LOGS": str(home / "data" / "log"),
        "GF_PATHS_PLUGINS": str(home / "data" / "plugins"),
        "GF_PATHS_PROVISIONING": str(provisioning),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_SECURITY_ADMIN_PASSWORD": secrets.token_urlsafe(24),
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(DEPLOY / "dashboards" / "training-health.json"),
    }
    return Program("grafana", [binary, "--homepath", _grafana_home()], port, "/api/health", settings)


def _grafana_home() -> str:
    found = [home for home in ("/usr/share/grafana", "/opt/grafana") if Path(home).is_dir()]
    return found[0] if found else str(Path(shutil.which("grafana-server") or "/").resolve().parent.parent)


class _Ports:
    """Consecutive ports from the first on; from 0, free ones that nobody has."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._taken: set[int] = set()

    def take(self) -> int:
        if not self._next:
            port = free_port()
            while port in self._taken:
                port = free_port()
            self._taken.add(port)
            return port
        if self._next > 65535:
            raise MonitoringError("--port: too high, the other programs have the ports after it; choose a lower one")
        self._next += 1
        return self._next - 1
