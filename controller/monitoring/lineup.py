"""The line-up: which programs monitoring consists of on this machine, with their ports, files and command lines.

Owns: what is left out where something is not installed, and every option that a program is started with. Called by
`controller.monitoring.stack`, which starts them. Must not know: processes, what is measured.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.durable_files import write_whole
from controller.monitoring import configuration
from controller.monitoring.programs import BINARIES, LOOPBACK, Program, find_binary
from controller.monitoring.watched_runs import MonitoringError, QueueServer, WatchedRun
from controller.valkey_process import free_port, write_private

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


def line_up(
    runs: Sequence[WatchedRun], folder: Path, options: Options, say: Callable[[str], None]
) -> Iterator[Program]:
    """In the order in which they are started: Prometheus first. Writes their configuration into `folder`; `say` is told
    what is left out and why. Raises MonitoringError when there is no Prometheus."""
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
    ports = Ports(options.port)
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
            yield exporter(binaries["redis-exporter"], run.name, run.queue, exporters[run.name])


def exporter(binary: str, run: str, queue: QueueServer, port: int) -> Program:
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


class Ports:
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
