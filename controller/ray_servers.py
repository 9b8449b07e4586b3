"""Whether Ray's own servers still serve: without raylet or GCS no actor can be made, and 60 s later Ray ends the driver
itself (`gcs_rpc_server_reconnect_timeout_s`), without a word in the run's log.

Owns: which processes these are, and when one counts as lost. Called by `controller.ray_session` and
`controller.start_guard`. Must not know: who is told, what becomes of the run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

import psutil

SERVERS = ("gcs_server", "raylet")


class RayServers:
    """`problem()` is asked again and again."""

    def __init__(self, processes: Iterable[psutil.Process], clock: Callable[[], float] = time.monotonic) -> None:
        """`processes`: Ray's; those that are no server are left out."""
        self._clock = clock
        self._servers: dict[int, tuple[str, psutil.Process]] = {}
        self._stopped: dict[int, float] = {}
        """Since when, by pid, a server was seen to be stopped."""
        self.add(processes)

    def add(self, processes: Iterable[psutil.Process]) -> None:
        """More of Ray's processes; those that are known stay."""
        for process in processes:
            if process.pid not in self._servers and (name := _server(process)):
                self._servers[process.pid] = (name, process)

    def problem(self, patience_s: float) -> str:
        """What is wrong, in words; "" while all serve. A server that is stopped (SIGSTOP) has `patience_s` seconds to
        go on: by then Ray itself takes its node for dead."""
        for name, process in self._servers.values():
            state = _state(process)
            if state in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return f"Ray's {name} (pid {process.pid}) died"
            if state != psutil.STATUS_STOPPED:
                self._stopped.pop(process.pid, None)
                continue
            stopped_s = self._clock() - self._stopped.setdefault(process.pid, self._clock())
            if stopped_s >= patience_s:
                return f"Ray's {name} (pid {process.pid}) is stopped since {stopped_s:.0f} s"
        return ""

    def kill_stopped(self, patience_s: float) -> int:
        """Kills those that `problem` has seen stopped for `patience_s` seconds; how many there were."""
        killed = [pid for pid, since in self._stopped.items() if self._clock() - since >= patience_s]
        for pid in killed:
            del self._stopped[pid]
            with contextlib.suppress(psutil.Error):
                self._servers[pid][1].kill()
        return len(killed)


def _server(process: psutil.Process) -> str:
    """ "raylet", "gcs_server", or "" for what is neither."""
    try:
        name: str = process.name()
    except psutil.Error:
        return ""
    return name if name in SERVERS else ""


def _state(process: psutil.Process) -> str:
    try:
        state: str = process.status() if process.is_running() else psutil.STATUS_DEAD
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_DEAD)
    return state
