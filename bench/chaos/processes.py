"""The processes of a run, by kind, and what is left of them when it is over.

Owns: how each kind is told, and which processes were ever the run's. Called by `bench.chaos.conductor`. Must not know:
why anybody looks for them.

A process belongs to the run when it descends from its controller, as seen several times a second, or when it
carries the run's mark in its environment (one that was orphaned between two looks; Ray's actors overwrite theirs).
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import uuid
from collections.abc import Callable

import psutil

MARK = "T2PO_CHAOS_RUN"


AGENTS = ("log_monitor.py", "monitor.py", "dashboard.py", "ray::DashboardAgent", "ray::RuntimeEnvAgent")


def _word(*words: str) -> Callable[[str], bool]:
    return lambda command: any(word in command for word in words)


KIND_OF: dict[str, Callable[[str], bool]] = {
    "inference actor": _word("ray::InferenceActor"),
    "engine": _word("VLLM::EngineCore"),
    "engine worker": _word("VLLM::Worker"),
    "router": _word("ray::RouterActor"),
    "env actor": _word("ray::EnvActor"),
    "learner rank": _word("ray::LearnerActor"),
    "valkey": _word("_binaries"),
    "raylet": _word("raylet/raylet "),
    "gcs": _word("gcs/gcs_server"),
    "ray agents": _word(*AGENTS),
    "reaper": _word("controller.reaper"),
}
"""By the command line. The controller is the process that was started."""


class Family:
    """Of one run, over all its lives. Sets the mark in this process's environment, which its children inherit."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        os.environ[MARK] = self._mark
        self._known: dict[tuple[int, float], psutil.Process] = {}
        self._controller: psutil.Process | None = None
        self._looked = -math.inf

    def follow(self, pid: int) -> None:
        """The controller of a new life."""
        self._controller = psutil.Process(pid)
        self._add(self._controller)

    def look(self, every_s: float = 0.0) -> None:
        """Notes who is there now, unless that was noted less than `every_s` ago: it costs tens of milliseconds."""
        if time.monotonic() < self._looked + every_s:
            return
        self._looked = time.monotonic()
        if self._controller is not None:
            with contextlib.suppress(psutil.Error):
                for process in self._controller.children(recursive=True):
                    self._add(process)
        for process in list(self._known.values()):
            if process is not self._controller and not lives(process):
                del self._known[process.pid, process.create_time()]

    def find(self, kind: str, every_s: float = 0.0) -> list[psutil.Process]:
        """The living processes of a kind, in order of birth."""
        self.look(every_s)
        if kind == "controller":
            return [process for process in (self._controller,) if process is not None and lives(process)]
        found = [
            process for process in self._known.values() if process is not self._controller and lives(process)
            and is_kind(kind, _command(process), lambda process=process: _command_of_parent(process))
        ]  # fmt: skip
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def left(self) -> list[psutil.Process]:
        """Processes of the run that live."""
        self.look()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(MARK) == self._mark:
                    self._add(process)
        return [process for process in self._known.values() if lives(process)]

    def gone(self, timeout_s: float) -> list[str]:
        """What is left, in words, of a run that has ended, when `timeout_s` is over or nothing is."""
        deadline = time.monotonic() + timeout_s
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.25)
        return [f"{_command(process)[:80]} (pid {process.pid}, {_state(process)})" for process in left]

    def states(self) -> list[str]:
        """Of the living, in words: name and state."""
        return [f"{_command(process).split(' ')[0].rpartition('/')[2]}: {_state(process)}" for process in self.left()]

    def end(self) -> None:
        """Kills whatever is left."""
        for process in self.left():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.gone(10.0)

    def _add(self, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.Error):
            self._known.setdefault((process.pid, process.create_time()), process)


def is_kind(kind: str, command: str, parent: Callable[[], str]) -> bool:
    """By the command line; of an engine that could not name itself, by its parent's."""
    if kind == "engine" and "spawn_main" in command:
        return KIND_OF["inference actor"](parent())
    return KIND_OF[kind](command)


def lives(process: psutil.Process) -> bool:
    """A zombie does not: it waits for its parent to look."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _command_of_parent(process: psutil.Process) -> str:
    try:
        parent = process.parent()
    except psutil.Error:
        return ""
    return "" if parent is None else _command(parent)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


def _state(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return "gone"
