"""A server of Ray's that died or stands is found, with real processes of those names."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controller.ray_servers import RayServers


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Programs that sleep, under the names of Ray's."""
    sleep = shutil.which("sleep")
    assert sleep
    started = {}
    for name in ("gcs_server", "raylet", "log_monitor"):
        shutil.copy(sleep, tmp_path / name)
        started[name] = subprocess.Popen([str(tmp_path / name), "60"])
    yield started
    for process in started.values():
        process.kill()
        process.wait(20)


def servers(processes: dict[str, subprocess.Popen[bytes]], clock: Clock) -> RayServers:
    found = [psutil.Process(process.pid) for process in processes.values()]
    deadline = time.monotonic() + 20
    while {one.name() for one in found} != processes.keys() and time.monotonic() < deadline:
        time.sleep(0.02)  # between fork and exec a process has its parent's name
    return RayServers(found, clock)


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_server_that_died_is_a_problem_at_once(processes: dict[str, subprocess.Popen[bytes]], name: str) -> None:
    watched = servers(processes, Clock())
    assert watched.problem(20.0) == ""
    processes[name].kill()
    psutil.wait_procs([psutil.Process(processes[name].pid)], timeout=20)
    assert watched.problem(20.0) == f"Ray's {name} (pid {processes[name].pid}) died"


def test_other_process_of_ray_may_die(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    watched = servers(processes, Clock())
    processes["log_monitor"].kill()
    processes["log_monitor"].wait(20)
    assert watched.problem(0.0) == ""


def test_server_that_stands_is_a_problem_when_patience_is_over_and_is_forgiven_when_it_goes_on(
    processes: dict[str, subprocess.Popen[bytes]],
) -> None:
    clock = Clock()
    watched = servers(processes, clock)
    raylet = psutil.Process(processes["raylet"].pid)

    def signalled(number: signal.Signals, stopped: bool) -> None:
        raylet.send_signal(number)
        deadline = time.monotonic() + 20
        while (raylet.status() == psutil.STATUS_STOPPED) != stopped and time.monotonic() < deadline:
            time.sleep(0.02)

    signalled(signal.SIGSTOP, stopped=True)
    assert watched.problem(20.0) == ""
    clock.now = 19.0
    assert watched.problem(20.0) == ""
    signalled(signal.SIGCONT, stopped=False)
    assert watched.problem(20.0) == ""
    signalled(signal.SIGSTOP, stopped=True)
    clock.now = 30.0
    assert watched.problem(20.0) == ""
    clock.now = 50.0
    assert watched.problem(20.0) == f"Ray's raylet (pid {raylet.pid}) is stopped since 20 s"
