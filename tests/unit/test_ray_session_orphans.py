"""What a dead actor had started is ended with it: its engine would keep its memory until the end of the run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from controller.ray_session import RaySession
from controller.reaper import end_processes

PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", sys.argv[1]] if sys.argv[1:] else ["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], psutil.Process, psutil.Process]]:
    """An actor, its engine and the engine's worker."""
    actor = subprocess.Popen([sys.executable, "-c", PARENT, PARENT], stdout=subprocess.PIPE, text=True)
    assert actor.stdout is not None
    engine = psutil.Process(int(actor.stdout.readline()))
    worker = psutil.Process(int(actor.stdout.readline()))
    yield actor, engine, worker
    end_processes([engine, worker], patience_s=0.0)
    actor.kill()
    actor.wait(30)


def test_ray_session_ends_the_orphans_of_a_dead_actor(
    family: tuple[subprocess.Popen[str], psutil.Process, psutil.Process],
) -> None:
    actor, engine, worker = family
    neighbour = subprocess.Popen(["sleep", "600"])
    try:
        session = RaySession(None, object_store_bytes=0)
        session._roots = [psutil.Process(actor.pid), psutil.Process(neighbour.pid)]
        session._note_processes()
        actor.kill()
        actor.wait(30)
        session._note_processes()
        assert engine.is_running() and worker.is_running(), "they do not notice"
        session.end_children_of(actor.pid)
        assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in (engine, worker))
        assert neighbour.poll() is None
    finally:
        neighbour.kill()
        neighbour.wait(30)
