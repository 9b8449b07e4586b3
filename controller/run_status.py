"""Where a run stands, from its folder alone.

Owns: the lines of `t2po status`. Called by the CLI. Must not know: Ray, how it is found out what the run's processes do
(`controller.run_life`).
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from controller.live_view import ViewState, duration, percent, sparkline, step_line
from controller.metrics import read_metrics
from controller.mishaps import mishap_line, mishaps
from controller.run_folder import RunFolder
from controller.run_life import life_lines


def status_lines(path: Path, now: float | None = None) -> list[str]:
    """The evaluations, the last step, the course of success, what went wrong, how long ago anything happened, and what
    it does now."""
    run = RunFolder.read(path)
    total = run.config().steps
    lines = _evaluations(run.evaluations)
    steps = read_metrics(run.metrics) if run.metrics.is_file() else []
    if not steps:
        return [*lines, f"{path}: no step is finished yet", *life_lines(run.path)]
    last = steps[-1]
    success = [step.values.get("success", math.nan) for step in steps]
    trouble = mishap_line(mishaps(step.values for step in steps))
    age = (time.time() if now is None else now) - last.time
    return [
        *lines,
        step_line(ViewState(run=path.name, total_steps=total, step=last.step, values=last.values)),
        f"success {percent(success[0])} → {percent(success[-1])}  {sparkline(success)}",
        *([f"dealt with: {trouble}"] if trouble else []),
        "all steps done" if last.step >= total else f"last step {duration(age)} ago",
        *life_lines(run.path),
    ]


def _evaluations(folder: Path) -> list[str]:
    """One line a result, oldest first. A file that cannot be read is left out: it is being written."""
    rows = []
    for path in folder.glob("*.json"):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            low, high = row["interval"]
            text = f"{row['label']}: {row['panel']} {row['success']:.1%} [{low:.1%}, {high:.1%}]"
            rows.append((row["time"], f"{text} ({row['won']}/{row['played']} tasks)"))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [line for _, line in sorted(rows)]
