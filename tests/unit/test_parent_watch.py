"""A process that multiprocessing started ends when its parent is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from actors.parent_watch import end_with_parent
from tests.integration.run_process import gone

ROOT = Path(__file__).resolve().parents[2]

PARENT = """
import multiprocessing, time
from actors import parent_watch
def child(pipe):
    parent_watch.LOOK_EVERY_S = 0.05
    pipe.send((__import__("os").getpid(), parent_watch.end_with_parent()))
    time.sleep(600)
if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    multiprocessing.get_context("fork").Process(target=child, args=(theirs,)).start()
    print(*ours.recv(), flush=True)
    time.sleep(600)
"""


def test_process_ends_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, watched = parent.stdout.readline().split()
    child = psutil.Process(int(pid))
    assert watched == "True"
    parent.kill()
    parent.wait(30)
    assert gone([child])


def test_process_of_its_own_watches_nobody() -> None:
    assert not end_with_parent()
