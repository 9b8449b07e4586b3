"""A private Ray: authenticated, side by side with another one, gone without a trace, also after kill -9."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from controller.monitoring.programs import get
from controller.reaper import Reaper, end_recorded
from tests.integration.run_process import ROOT, gone
from tests.monitoring_pages import RECORDED, sample_names

SESSION = """
import json, sys, time
from pathlib import Path
from controller.ray_session import RaySession
session = RaySession(Path(sys.argv[1]), object_store_bytes=100 * 2**20)
session.start()
import ray, subprocess, os
@ray.remote(num_cpus=0)
class Part:
    def spawn(self):
        # like vLLM's engine: a child that does not notice the death of its parents
        return subprocess.Popen(["sleep", "600"], start_new_session=True).pid
part = Part.remote()
child = ray.get(part.spawn.remote(), timeout=120)
time.sleep(3)
folder = str(session._folder)
print(json.dumps({"child": child, "folder": folder, "mode": os.environ["RAY_AUTH_MODE"],
                  "metrics": session.metrics_addresses()}), flush=True)
sys.stdin.readline()
session.stop()
print("stopped", flush=True)
"""


HELD = """
import functools, os, psutil, signal, sys
from pathlib import Path
import ray._private.worker
import controller.ray_session
from controller.ray_session import RaySession
connect = ray._private.worker.connect
def freeze_and_connect(*args, **kwargs):
    raylet, = (child for child in psutil.Process().children() if child.name() == "raylet")
    os.kill(raylet.pid, signal.SIGSTOP)
    connect(*args, **kwargs)
ray._private.worker.connect = freeze_and_connect
controller.ray_session.StartGuard = functools.partial(controller.ray_session.StartGuard, patience_s=5.0)
RaySession(Path(sys.argv[1]), object_store_bytes=100 * 2**20).start()
"""


def begin(folder: Path) -> tuple[subprocess.Popen[str], dict[str, object]]:
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION, str(folder)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def what_ray_says(session: dict[str, object]) -> set[str]:
    """Names of the metrics of the session's node; its agent counts every ten seconds or so."""
    (address,) = session["metrics"]  # type: ignore[misc]
    wanted, deadline = sample_names(RECORDED / "exporters" / "ray.prom"), time.monotonic() + 90
    found: set[str] = set()
    while not wanted <= found and time.monotonic() < deadline:
        time.sleep(0.5)
        page = (get(int(address.split(":")[1]), "/metrics", timeout_s=5.0) or b"").decode()
        found = {re.split(r"[{ ]", line)[0] for line in page.splitlines() if line and not line.startswith("#")}
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_session_two_side_by_side_end_without_a_trace(tmp_path: Path) -> None:
    first, one = begin(tmp_path / "one")
    second, two = begin(tmp_path / "two")
    try:
        assert one["folder"] != two["folder"]
        assert one["mode"] == "token"
        assert what_ray_says(one) >= sample_names(RECORDED / "exporters" / "ray.prom")
        assert (Path(str(one["folder"])) / "token").stat().st_mode & 0o077 == 0
        family = psutil.Process(first.pid).children(recursive=True)
        others = psutil.Process(second.pid).children(recursive=True)
        first.communicate("\n", timeout=120)
        assert gone(family)
        assert not Path(str(one["folder"])).exists()
        assert not (tmp_path / "one" / "processes.json").exists()
        assert all(process.is_running() for process in others), "the neighbour lost processes"
        second.kill()
        second.wait(30)
        assert gone(others), "what was left after kill -9 did not end"
        for _ in range(100):
            if not Path(str(two["folder"])).exists():
                break
            time.sleep(0.1)
        assert not Path(str(two["folder"])).exists()
    finally:
        for process in (first, second):
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ray_session_held_by_a_frozen_raylet_ends_with_the_cause(tmp_path: Path) -> None:
    """`ray.init` lets no thread and no signal handler of its process run while it waits for the raylet."""
    process = subprocess.Popen([sys.executable, "-c", HELD, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=200)
        assert process.returncode != 0
        assert re.search(r"starting Ray: Ray's raylet \(pid \d+\) is stopped since", (tmp_path / "run.log").read_text())
        assert "the run ended: starting Ray: Ray's raylet" in errors
    finally:
        process.kill()


def test_reaper_ends_what_the_dead_left(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "600"])
    owner = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, psutil, time; from pathlib import Path; from controller.reaper import Reaper\n"
            "folder = Path(sys.argv[1])\n"
            "Reaper(folder / 'record', folder / 'x').watch([psutil.Process(int(sys.argv[2]))])\n"
            "print('watching', flush=True); time.sleep(600)",
            str(tmp_path), str(sleeper.pid),
        ],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert owner.stdout is not None
    assert owner.stdout.readline() == "watching\n"
    owner.kill()
    assert sleeper.wait(30) == -9
    owner.wait(30)


def test_reaper_released_ends_nothing(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        reaper = Reaper(tmp_path / "record", tmp_path / "folder")
        reaper.watch([psutil.Process(sleeper.pid)])
        reaper.release()
        assert sleeper.poll() is None
        assert not (tmp_path / "record").exists()
    finally:
        sleeper.kill()
        sleeper.wait(30)


def test_reaper_leaves_reused_pids_alone(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        (tmp_path / "record").write_text(
            json.dumps({"folder": str(tmp_path / "folder"), "processes": [[sleeper.pid, 12345.0]]}), encoding="utf-8"
        )
        assert end_recorded(tmp_path / "record") == 0
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait(30)
