"""A full disk neither ends a run by its record of processes, nor keeps it from ending in order."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from controller.ray_session import PROCESS_FILE, RaySession
from controller.reaper import Reaper


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    process = subprocess.Popen(["sleep", "600"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait(30)


def refuse(path: Any, *arguments: Any, **options: Any) -> None:
    """Stands for writing a file, when the disk is full."""
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def recorded(record: Path) -> list[int]:
    return [pid for pid, _ in json.loads(record.read_text(encoding="utf-8"))["processes"]]


def test_reaper_keeps_its_last_record_when_the_disk_is_full(
    tmp_path: Path, sleeper: psutil.Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = tmp_path / "record"
    reaper = Reaper(record, tmp_path / "folder")
    try:
        reaper.watch([sleeper])
        with caplog.at_level(logging.WARNING), monkeypatch.context() as full:
            full.setattr(Path, "write_text", refuse)
            reaper.watch([])
            reaper.watch([])
        assert recorded(record) == [sleeper.pid]
        assert ["No space left on device" in one.getMessage() for one in caplog.records] == [True], "said once"
        reaper.watch([])
        assert recorded(record) == [], "there is space again"
    finally:
        reaper.release()


def test_ray_session_ends_in_order_when_the_disk_is_full(
    tmp_path: Path, sleeper: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the record of the processes nor the actors' logs can be written."""
    run_folder, ray_folder = tmp_path / "run", tmp_path / "ray"
    run_folder.mkdir()
    log = ray_folder / "session_1" / "logs" / "worker-1-2-3.out"
    log.parent.mkdir(parents=True)
    log.write_text("x" * 1000, encoding="utf-8")
    session = RaySession(run_folder, object_store_bytes=0)
    session._folder = ray_folder
    session._family = {sleeper.pid: sleeper}
    session._reaper = Reaper(run_folder / PROCESS_FILE, ray_folder)
    session._note_processes()
    shut_down: list[bool] = []

    def shutdown() -> None:  # what Ray does to its processes
        shut_down.append(True)
        sleeper.kill()

    monkeypatch.setattr("ray.shutdown", shutdown)
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", refuse)
        full.setattr("shutil.copy", refuse)
        session.stop()
    assert shut_down == [True]
    assert not ray_folder.exists()
    assert not (run_folder / PROCESS_FILE).exists()
