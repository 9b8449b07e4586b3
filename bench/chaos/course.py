"""Where a run stands, from its folder alone: finished steps, saved ones, whether anything happens at all.

Owns: what counts as progress. Called by `bench.chaos.conductor`, many times a second. Must not know: what is done to
the run.

Progress is a line in the metrics, the audit, the run's log or its output, or another checkpoint. A run that says again
and again that it replaces a part is not hung; its budget of restarts ends it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from bench.chaos.fault import Moment

WEIGHTS = Path("/dev/shm")
WATCHED = ("metrics.jsonl", "audit.jsonl", "run.log")


class Course:
    """Of one run, over all its lives. Times are of the monotonic clock."""

    def __init__(self, folder: Path, output: Path) -> None:
        self.folder = folder
        self._output = output
        self._marks: tuple[object, ...] = ()
        self._metrics_mark: object = None
        self._rows: set[tuple[int, float]] = set()
        self._up_at = 0.0
        self.step = 0
        """The last finished step."""
        self.finished: list[tuple[float, int]] = []
        """(when it was seen, step) of every finished step, repeated ones too."""
        self.begin()

    def begin(self) -> None:
        """A new life."""
        self.began = self.progress = time.monotonic()
        self._said_before = self._output.stat().st_size if self._output.exists() else 0
        self._up_at = 0.0

    def look(self) -> None:
        now = time.monotonic()
        files = [self.folder / name for name in WATCHED]
        marks = (*(_mark(path) for path in (*files, self._output)), self._checkpoints())
        if marks != self._marks:
            self._marks, self.progress = marks, now
        if not self._up_at and self._has_said(b"everything is up"):
            self._up_at = now
        if (mark := _mark(self.folder / "metrics.jsonl")) != self._metrics_mark:
            self._metrics_mark = mark
            rows = _rows(self.folder / "metrics.jsonl")
            self.finished += [(now, step) for step, _ in rows if (step, _) not in self._rows]
            self._rows.update(rows)
            self.step = rows[-1][0] if rows else 0

    @property
    def is_up(self) -> bool:
        """Whether every part of this life has started."""
        return bool(self._up_at)

    def is_time(self, moment: Moment) -> bool:
        """Whether a fault at this moment is due in this life, its target apart."""
        now = time.monotonic()
        if moment.when == "starting":
            return self.is_up or now >= self.began + moment.after_s
        if not self.is_up or self.step < moment.step:
            return False
        if moment.when == "transfer":
            return any(WEIGHTS.glob("t2po-weights-*")) or self.step > moment.step
        if moment.when == "unsaved":
            return True
        reached = max((when for when, step in self.finished if step >= moment.step), default=self._up_at)
        return now >= max(reached, self._up_at) + moment.after_s

    def saved(self) -> int:
        """The last step that a checkpoint holds."""
        return max((int(name[5:]) for name in self._checkpoints() if name.startswith("step-")), default=0)

    def next_step_after(self, moment: float) -> float | None:
        """When the first step was finished after `moment`."""
        return next((when for when, _ in self.finished if when > moment), None)

    def _has_said(self, text: bytes) -> bool:
        try:
            return text in self._output.read_bytes()[self._said_before :]
        except OSError:
            return False

    def _checkpoints(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(path.name for path in (self.folder / "checkpoints").iterdir()))
        except OSError:
            return ()


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _rows(path: Path) -> list[tuple[int, float]]:
    """(step, its own time) of the whole lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return [(int(row["step"]), float(row["time"])) for row in rows]
