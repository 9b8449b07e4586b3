"""The numbers of a step and the file that they are written to.

Owns: `StepMetrics`, the moving mean, the JSON lines file. Called by the training loop, evaluation and `t2po status`.
Must not know: Ray, Prometheus, the terminal, what the numbers mean.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path


class MetricsError(RuntimeError):
    """Metrics cannot be written or served; the message names the place and the remedy."""


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """The numbers of one optimizer step; `time` in seconds since 1970."""

    step: int
    values: dict[str, float]
    time: float = field(default_factory=time.time)


class MovingMean:
    """Mean of the last `window` values that were measured."""

    def __init__(self, window: int = 10) -> None:
        self._values: deque[float] = deque(maxlen=window)

    def add(self, value: float) -> float:
        if math.isfinite(value):
            self._values.append(value)
        return self.value

    @property
    def value(self) -> float:
        return sum(self._values) / len(self._values) if self._values else math.nan


class MetricsLog:
    """JSON lines, one a step: `{"step": 3, "time": …, "success": 0.25, …}`; not measured is null.

    A resumed run passes the step of its checkpoint: later lines, and one cut short by a kill, are dropped,
    so that no step stands there twice.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if resume_step is not None and path.exists():
                kept = [encode(step) for step in read_metrics(path) if step.step <= resume_step]
                scratch = path.with_suffix(".tmp")
                scratch.write_text("".join(kept), encoding="utf-8")
                scratch.replace(path)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._error(error) from error

    def write(self, step: StepMetrics) -> None:
        try:
            self._file.write(encode(step))
            self._file.flush()
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        self._file.close()

    def _error(self, error: OSError) -> MetricsError:
        return MetricsError(
            f"metrics cannot be written to {self._path}: {error.strerror or error}; free some space or choose "
            "another folder with runs_dir"
        )


def encode(step: StepMetrics) -> str:
    """One line. Strict JSON: what is not finite is null."""
    values = {name: float(value) if math.isfinite(value) else None for name, value in step.values.items()}
    return json.dumps({"step": step.step, "time": round(step.time, 3), **values}) + "\n"


def read_metrics(path: Path) -> list[StepMetrics]:
    """All whole lines of a metrics file, in order; a last line that was cut short is left out."""
    steps = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            step, when = int(values.pop("step")), float(values.pop("time"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                break
            raise MetricsError(f"{path}:{number}: not a line of metrics ({error}); delete that line") from error
        numbers = {name: math.nan if value is None else float(value) for name, value in values.items()}
        steps.append(StepMetrics(step=step, values=numbers, time=when))
    return steps
