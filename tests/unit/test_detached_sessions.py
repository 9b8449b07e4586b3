"""Processes that outlive their command: found by their session, also when its leader is dead; ended to the last."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from controller.detached_process import DetachedError, end_sessions, last_line, session_of, start
from controller.process_identity import ProcessId

# A leader with a child that does not listen, and a grandchild in a process group of its own.
FAMILY = """
import os, signal, subprocess, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "600"], process_group=0)
    print("ready", flush=True)
    time.sleep(600)
time.sleep(600)
"""


def family(log: Path) -> ProcessId:
    leader = start([sys.executable, "-c", FAMILY], log, os.environ)
    deadline = time.monotonic() + 60
    while last_line(log) != "ready":
        assert time.monotonic() < deadline, last_line(log)
        time.sleep(0.02)
    return leader


def test_session_is_found_and_ended_also_without_its_leader(tmp_path: Path) -> None:
    leader = family(tmp_path / "log")
    members = session_of(leader)
    assert len(members) == 3
    os.kill(leader.pid, signal.SIGKILL)
    os.waitpid(leader.pid, 0)
    assert len(session_of(leader)) == 2
    assert end_sessions([leader], patience_s=0.5) == []
    assert not any(member.alive() for member in members)


def test_nothing_is_found_by_a_number_that_another_process_has_now(tmp_path: Path) -> None:
    leader = family(tmp_path / "log")
    try:
        assert session_of(replace(leader, start_ticks=leader.start_ticks - 1)) == []
        assert session_of(replace(leader, boot_id="of another boot")) == []
        assert end_sessions([replace(leader, start_ticks=1)], patience_s=0.1) == []
        assert leader.alive()
    finally:
        assert end_sessions([leader], patience_s=0.5) == []


def test_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DetachedError, match="/no/such: does not start"):
        start(["/no/such"], tmp_path / "log", {})
