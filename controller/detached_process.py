"""A process that outlives the command that starts it, in a session of its own, and everything that it starts.

Owns: starting it, finding the members of its session, ending them all. Called by `controller.local_cluster` and
`controller.monitoring.programs`. Must not know: what it does.

A session keeps together what a process tree loses: when a parent is killed its children get another parent, but stay in
the session. While one member lives, the kernel gives the session's number to no other process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from controller.process_identity import ProcessId

POLL_S = 0.05


class DetachedError(RuntimeError):
    """A program that does not start; names it, the cause and the remedy."""


def start(command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path | None = None) -> ProcessId:
    """Starts it; what it prints is added to `log`. `folder`: its working directory, default: ours. Returns at once."""
    output = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), output, (os.POSIX_SPAWN_DUP2, 1, 2)]
    words = list(command)
    if folder is not None:  # posix_spawn has no working directory
        words = ["/usr/bin/env", f"--chdir={folder}", *words]
    try:
        pid = os.posix_spawn(words[0], words, dict(environment), file_actions=files, setsid=True)
    except OSError as error:
        raise DetachedError(
            f"{words[0]}: does not start ({error.strerror or error}); is it a program for this machine, and is "
            f"{log.parent} writable?"
        ) from error
    identity = ProcessId.of(pid)
    if identity is None:
        raise DetachedError(f"{words[0]} ended at once: {last_line(log)} (all of it: {log})")
    return identity


def session_of(leader: ProcessId) -> list[ProcessId]:
    """The live members of its session, the leader included; also when the leader is gone. Nothing after a reboot."""
    now = ProcessId.of(leader.pid)
    if now is not None and now != leader:
        return []  # the number is another process's now, so nobody was left
    members = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            member = ProcessId.of(int(place.name))
            with contextlib.suppress(OSError):
                if member is not None and member.boot_id == leader.boot_id and os.getsid(member.pid) == leader.pid:
                    members.append(member)
    return members


def end_sessions(leaders: Iterable[ProcessId], patience_s: float) -> list[ProcessId]:
    """Asks the leaders to end, then kills whoever is left of their sessions. Who lives after that."""
    leaders = list(leaders)
    for leader in leaders:
        leader.kill(signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while (left := _members(leaders)) and time.monotonic() < deadline:
        _reap(leaders)
        time.sleep(POLL_S)
    deadline = time.monotonic() + patience_s
    while left and time.monotonic() < deadline:
        for member in left:  # again: one that was killed may have started another just before
            if member.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)
        _reap(leaders)
        time.sleep(POLL_S)
        left = _members(leaders)
    return left


def last_line(log: Path) -> str:
    """Why a program ended stands in the last line of what it printed."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError as error:
        return f"no log ({error.strerror})"
    return lines[-1][-300:] if lines else "nothing in its log"


def _members(leaders: Sequence[ProcessId]) -> list[ProcessId]:
    return [member for leader in leaders for member in session_of(leader)]


def _reap(leaders: Sequence[ProcessId]) -> None:
    """When it is this process that started them."""
    for leader in leaders:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(leader.pid, os.WNOHANG)
