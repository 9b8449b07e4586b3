"""Ends what a killed run leaves behind, at once: a small process that outlives it by a few seconds.

Owns: the record of a run's processes, ending them, and the process that does so when the run was killed.
Called by `controller.ray_session`; runs as `python -m controller.reaper RECORD`. Must not know: Ray.

Most of a run's processes end by themselves when it is killed; vLLM's engine does not notice. The reaper holds
the reading end of a pipe whose other end only the run has: when the run is gone, however it went, the pipe is
closed, and after a moment whatever is left of the recorded processes is killed. `end_recorded` is also called
by a resume, should the reaper have been killed too.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)

GRACE_S = 3.0
"""Time that the processes of a killed run get to end by themselves."""

STOP_PATIENCE_S = 10.0


class Reaper:
    """`watch` the processes of a run from its start; `release` when they have been ended in order."""

    def __init__(self, record: Path, folder: Path) -> None:
        self.record = record
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._unwritten = False

    def watch(self, processes: Iterable[psutil.Process]) -> None:
        """Notes which processes are the run's, by pid and start time; a pid alone may be somebody else's later.

        A record that cannot be written (a full disk) stays as it was: what a kill -9 leaves behind is no reason to
        end a run, or to hide what ended it.
        """
        rows = [[process.pid, process.create_time()] for process in processes]
        text = json.dumps({"folder": str(self._folder), "processes": rows})
        try:
            self._fresh.write_text(text, encoding="utf-8")
            self._fresh.replace(self.record)
            self._unwritten = False
        except OSError as error:
            if not self._unwritten:  # once, not every two seconds
                logger.warning("%s: the run's processes are not recorded: %s", self.record, error)
            self._unwritten = True
        if self._process is None:
            command = [sys.executable, "-m", "controller.reaper", str(self.record)]
            root = Path(__file__).resolve().parent.parent
            self._process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, start_new_session=True)

    @property
    def _fresh(self) -> Path:
        return self.record.with_name(f".{self.record.name}.new")

    def release(self) -> None:
        """Nothing is left to be ended."""
        for path in (self.record, self._fresh):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s: not removed: %s", path, error)
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(timeout=STOP_PATIENCE_S + GRACE_S)
            except subprocess.TimeoutExpired:  # frozen; there is nothing left that it could end
                self._process.kill()
            self._process = None


def end_recorded(record: Path) -> int:
    """Kills the recorded processes that still live, and removes their folder; how many there were."""
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    left = []
    for pid, created in kept["processes"]:
        try:
            process = psutil.Process(pid)
            is_same = abs(process.create_time() - created) < 0.5
            if is_same and pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
        except psutil.Error:
            continue
    end_processes(left, patience_s=0.0)
    shutil.rmtree(kept["folder"], ignore_errors=True)
    record.unlink(missing_ok=True)
    return len(left)


def end_processes(processes: list[psutil.Process], patience_s: float = STOP_PATIENCE_S) -> None:
    """Waits for the processes to end on their own, then kills what is left."""
    _wait(processes, patience_s)
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue
    _wait(processes, STOP_PATIENCE_S)


def _wait(processes: list[psutil.Process], timeout_s: float) -> None:
    """Until all have ended. A zombie has: its parent is gone or busy, and not ours to replace."""
    deadline = time.monotonic() + timeout_s
    while any(_lives(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def main() -> None:
    """Blocks until the run is gone; its record is gone too when it ended in order."""
    record = Path(sys.argv[1])
    while os.read(sys.stdin.fileno(), 4096):
        pass
    if record.exists():
        time.sleep(GRACE_S)
        end_recorded(record)


if __name__ == "__main__":
    main()
