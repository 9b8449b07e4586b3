"""`t2po status`: what the parts of a run do, while its process lives, is stopped, and after it was killed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from controller.deadline import Wait
from controller.durable_files import encode_json
from controller.live_view import LiveView
from controller.parts_file import PARTS, Part, PartsFile, read_parts
from controller.run_folder import take_lock
from controller.run_life import life_lines

HOLDER = """
import sys, time
from pathlib import Path
from controller.parts_file import Part, PartsFile
from controller.run_folder import take_lock
folder = Path(sys.argv[1])
lock = take_lock(folder)
PartsFile(folder).write({"inference-1": Part("starting engine", time.time() - 41)}, "waiting 41 s for inference-1")
print("up", flush=True)
time.sleep(300)
"""


def view_of(folder: Path, out: io.StringIO | None = None) -> LiveView:
    return LiveView("r", 1, Console(file=out or io.StringIO(), width=200, force_terminal=False), folder=folder)


def age(folder: Path, seconds: float) -> None:
    """Makes the file look as if it was written so long ago."""
    record = read_parts(folder)
    assert record is not None
    parts = {name: replace(part, since=part.since - seconds) for name, part in record.parts.items()}
    earlier = replace(record, monotonic=record.monotonic - seconds, time=record.time - seconds, parts=parts)
    (folder / PARTS).write_bytes(encode_json(asdict(earlier)))


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait(30)


def test_status_says_what_each_part_does_and_since_when(tmp_path: Path) -> None:
    lock = take_lock(tmp_path)
    view = view_of(tmp_path)
    view.part("inference-1", "starting engine")
    view.part("env-0", "3 trajectories")
    view.come_round([Wait("inference-1: starting", 41.0, 300.0), Wait("env-0: status", 28.0, 60.0)])
    lines = life_lines(tmp_path)
    assert lines[0] == "inference-1   starting engine   since 0 s"
    assert lines[1] == "env-0         answers nothing (before: 3 trajectories)   since 28 s"
    assert lines[2] == "waiting 28 s for env-0: it answers nothing, inference-1: starting engine since 41 s"
    assert len(lines) == 3
    os.close(lock)


def test_status_of_a_run_that_ended_names_no_parts(tmp_path: Path) -> None:
    lock = take_lock(tmp_path)
    with view_of(tmp_path) as view:
        view.come_round([])
    assert "has not said yet" in life_lines(tmp_path)[0], "another life of the same process begins"
    os.close(lock)
    assert life_lines(tmp_path) == []


def test_status_of_a_run_that_has_only_begun(tmp_path: Path) -> None:
    assert life_lines(tmp_path) == []
    lock = take_lock(tmp_path)
    assert life_lines(tmp_path) == [f"process {os.getpid()} is at work on it and has not said yet what its parts do"]
    os.close(lock)


def test_status_of_a_stopped_process_says_so(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 30
    while psutil.Process(holder.pid).status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
        time.sleep(0.01)
    age(tmp_path, 6000.0)
    part, stall, silence = life_lines(tmp_path)
    assert part == "inference-1   starting engine   since 1 h 41 min"
    assert stall == "waiting 41 s for inference-1"
    assert silence.startswith("the controller has written nothing for 1 h 40 min: ")
    assert silence.endswith(f"process {holder.pid} is stopped (T); let it go on with: kill -CONT {holder.pid}")


def test_status_of_a_killed_process_says_how_to_go_on(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait(30)
    (line,) = life_lines(tmp_path)
    assert f"process {holder.pid} is gone: it was killed" in line
    assert line.endswith(f"go on with: t2po train --resume {tmp_path}")


def test_parts_are_written_when_they_change_and_as_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("controller.parts_file.time.monotonic", lambda: now[0])
    file = PartsFile(tmp_path)
    written = []
    for second in range(12):
        now[0] = 100.0 + second
        file.write({"env-0": Part("a" if second < 7 else "b", 0.0)}, "")
        written.append(read_parts(tmp_path))
    times = [record.monotonic for record in written if record is not None]
    assert times == [100, 100, 100, 100, 100, 105, 105, 107, 107, 107, 107, 107]


def test_parts_that_cannot_be_written_end_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("controller.parts_file.time.monotonic", lambda: now[0])
    file = PartsFile(tmp_path / "gone")
    for _ in range(3):
        file.write({}, "")
        now[0] += 1.0
    assert file.failures == 3, "tried again each second"
    (tmp_path / "gone").mkdir()
    file.write({}, "")
    assert read_parts(tmp_path / "gone") is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"process": 3}', b"\x00\x00"])
def test_parts_that_cannot_be_read_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PARTS).write_bytes(content)
    assert read_parts(tmp_path) is None


def test_view_notes_a_stall_that_lasts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    view = view_of(tmp_path, out)
    clock = [1000.0]
    monkeypatch.setattr("controller.live_view.time.monotonic", lambda: clock[0])
    for second in range(50):
        clock[0] = 1000.0 + second
        view.come_round([Wait("router: status", 10.0 + second, 300.0)])
    assert out.getvalue() == "waiting 40 s for router: it answers nothing\n"
    assert view.state.stall == "waiting 59 s for router: it answers nothing"


def test_a_part_keeps_its_time_while_only_its_numbers_change(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of_nothing()
    for now, doing in ((10.0, "ready: 3 requests, 7 answered"), (20.0, "ready: 4 requests, 9 answered")):
        monkeypatch.setattr("controller.live_view.time.time", lambda now=now: now)
        view.part("inference-0", doing)
    part = view.state.parts["inference-0"]
    assert (part.since, part.moved) == (10.0, 20.0)
    monkeypatch.setattr("controller.live_view.time.time", lambda: 30.0)
    view.part("inference-0", "updating: 4 requests, 9 answered")
    assert view.state.parts["inference-0"].since == 30.0


def view_of_nothing() -> LiveView:
    return LiveView("r", 1, Console(file=io.StringIO()))
