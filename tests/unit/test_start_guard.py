"""A process that Ray may hold is watched from outside: what ends it is said, with real processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]

HELD = """
import subprocess, sys, time
from pathlib import Path
from controller.start_guard import StartGuard
doing = sys.argv[3]
timeout_s = 3.0 if doing == "hang" else 60.0
with StartGuard("starting Ray", Path(sys.argv[1]) / "run.log", patience_s=1.0, timeout_s=timeout_s):
    server = subprocess.Popen([sys.argv[2], "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(server.pid, flush=True)
    if doing == "wait":
        print(server.wait(60), flush=True)
    elif doing == "hang":
        time.sleep(600)
    server.kill()
print("came through", flush=True)
"""


def begin(folder: Path, doing: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A process that is in a start, and its server, a sleep under the name of Ray's."""
    raylet = folder / "raylet"
    shutil.copy(shutil.which("sleep") or "", raylet)
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, str(folder), str(raylet), doing],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


def test_start_guard_kills_a_server_that_stays_stopped(tmp_path: Path) -> None:
    process, raylet = begin(tmp_path, "wait")
    raylet.send_signal(signal.SIGSTOP)
    said, errors = process.communicate(timeout=90)
    assert said == f"{-signal.SIGKILL}\ncame through\n"
    assert f"starting Ray: Ray's raylet (pid {raylet.pid}) is stopped since" in (tmp_path / "run.log").read_text()
    assert "the run ended" not in errors, "its process says itself what becomes of it"


def test_start_guard_ends_a_process_that_takes_too_long(tmp_path: Path) -> None:
    process, raylet = begin(tmp_path, "hang")
    _, errors = process.communicate(timeout=90)
    raylet.kill()
    assert process.returncode == -signal.SIGKILL
    for told in (errors, (tmp_path / "run.log").read_text()):
        assert "starting Ray: not done within 3 s; a raylet or GCS that it needs does not answer" in told
    assert "the run ended: starting Ray" in errors


def test_start_guard_says_that_the_process_died(tmp_path: Path) -> None:
    process, raylet = begin(tmp_path, "wait")
    process.kill()
    _, errors = process.communicate(timeout=90)
    raylet.kill()
    assert "the run ended: starting Ray: its process was killed" in errors


def test_start_guard_is_silent_about_a_start_that_comes_through(tmp_path: Path) -> None:
    process, _ = begin(tmp_path, "succeed")
    said, errors = process.communicate(timeout=90)
    assert (said, errors) == ("came through\n", "")
    assert not (tmp_path / "run.log").exists()
