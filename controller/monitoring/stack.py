"""Monitoring on this machine, brought up and taken down: `t2po monitoring up|down|status`.

Owns: the monitoring folder (what runs is recorded in it), and starting and ending the line-up as a whole.
Called by `controller.cli_monitoring` and tests. Must not know: what is measured, which programs there are.

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
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.durable_files import encode_json, write_whole
from controller.monitoring.lineup import Options, line_up
from controller.monitoring.programs import LOOPBACK, check_port_free, end, start, wait_ready
from controller.monitoring.watched_runs import MonitoringError, WatchedRun
from controller.process_identity import ProcessId
from controller.run_folder import take_lock

FOLDER = "monitoring"
STATE = "state.json"


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
            programs = list(line_up(runs, folder, options, say))
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
