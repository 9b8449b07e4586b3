"""The programs that monitoring starts: found, started apart from us, waited for, and ended again.

Owns: their names and packages, one program's start and end. Called by `controller.monitoring.stack`. Must not know:
what they are configured to do.

They outlive the command that starts them, so each is known by its pid and start time: a pid alone may be another
process's by the time of `down`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controller.detached_process import DetachedError, last_line
from controller.detached_process import start as start_detached
from controller.monitoring.watched_runs import MonitoringError
from controller.process_identity import ProcessId

LOOPBACK = "127.0.0.1"
POLL_S = 0.05
STOP_TIMEOUT_S = 15.0

BINARIES: dict[str, tuple[tuple[str, ...], str]] = {
    "prometheus": (("prometheus",), "apt-get install prometheus"),
    "alertmanager": (("prometheus-alertmanager", "alertmanager"), "apt-get install prometheus-alertmanager"),
    "grafana": (("grafana-server",), "https://grafana.com/docs/grafana/latest/setup-grafana/installation"),
    "redis-exporter": (("prometheus-redis-exporter", "redis_exporter"), "apt-get install prometheus-redis-exporter"),
    "node-exporter": (("prometheus-node-exporter", "node_exporter"), "apt-get install prometheus-node-exporter"),
}
"""Names that a program goes by (Debian's, its authors'), and where it comes from."""

# Without the proxies of the environment: everything here is on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Program:
    """`ready`: a path that answers 200 once it serves. `environment` is added to ours: for what must not stand in the
    list of processes."""

    name: str
    command: Sequence[str]
    port: int
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict)


def find_binary(name: str) -> str | None:
    """The path of a program of BINARIES; None when it is not installed. /usr/sbin is looked at too: not all have it in
    their PATH."""
    path = os.pathsep.join(filter(None, [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/bin", "/usr/bin"]))
    for binary in BINARIES[name][0]:
        if found := shutil.which(binary, path=path):
            return found
    return None


def check_port_free(name: str, port: int) -> None:
    """Raises MonitoringError when something listens on the loopback port already."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise MonitoringError(
                f"port {port} for {name} on {LOOPBACK}: {error.strerror or error}; end the program that uses it, or "
                "choose other ports with --port"
            ) from error


def start(program: Program, log: Path) -> ProcessId:
    """Starts it in a session of its own, with what it prints in `log`. Returns at once. Raises MonitoringError."""
    try:
        return start_detached(program.command, log, {**os.environ, **program.environment})
    except DetachedError as error:
        raise MonitoringError(str(error)) from error


def wait_ready(program: Program, process: ProcessId, log: Path, timeout_s: float) -> None:
    """Returns when it serves. Raises MonitoringError when it ends, or is not ready in time; it is not ended here."""
    deadline = time.monotonic() + timeout_s
    while get(program.port, program.ready, timeout_s=2.0) is None:
        if not process.alive():
            raise MonitoringError(f"{program.name} ended: {last_line(log)} (all of it: {log})")
        if time.monotonic() > deadline:
            raise MonitoringError(
                f"{program.name} on port {program.port} was not ready in {timeout_s:g} s: {last_line(log)} (all of it: "
                f"{log}); the machine may be overloaded: try again"
            )
        time.sleep(POLL_S)


def end(process: ProcessId, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Asks it to end, and kills it when it does not within the time. True when it is gone."""
    process.kill(signal.SIGTERM)
    if not process.wait_gone(timeout_s):
        process.kill(signal.SIGKILL)
    gone = process.wait_gone(timeout_s)
    with contextlib.suppress(ChildProcessError):  # not our child: somebody else's `down` ends what `up` has started
        os.waitpid(process.pid, os.WNOHANG)
    return gone


def get(port: int, path: str, timeout_s: float) -> bytes | None:
    """What a server on this machine answers; None when it does not, or not with 200."""
    try:
        with _OPENER.open(f"http://{LOOPBACK}:{port}{path}", timeout=timeout_s) as answer:
            return bytes(answer.read())
    except (OSError, urllib.error.HTTPError, ValueError):
        return None
