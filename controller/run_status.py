"""Where a run stands, from its folder alone.

Owns: the lines of `t2po status`. Called by the CLI. Must not know: Ray, or whether the run's processes live.
"""

from __future__ import annotations

import time
from pathlib import Path

from controller.live_view import ViewState, duration, percent, sparkline, step_line
from controller.metrics import read_metrics


class NotARunError(ValueError):
    """A folder that holds no run."""


def status_lines(folder: Path, now: float | None = None) -> list[str]:
    """The last step, the course of success, and how long ago anything happened."""
    path = folder / "metrics.jsonl"
    if not (folder / "config.toml").is_file():
        raise NotARunError(f"{folder}: no config.toml; that is not the folder of a run")
    steps = read_metrics(path) if path.is_file() else []
    if not steps:
        return [f"{folder}: no step is finished yet"]
    last = steps[-1]
    total = _planned_steps(folder)
    success = [step.values.get("success", float("nan")) for step in steps]
    state = ViewState(run=folder.name, total_steps=total or last.step, step=last.step, values=last.values)
    age = (time.time() if now is None else now) - last.time
    return [
        step_line(state),
        f"success {percent(success[0])} → {percent(success[-1])}  {sparkline(success)}",
        "finished" if total and last.step >= total else f"last step {duration(age)} ago",
    ]


def _planned_steps(folder: Path) -> int:
    import tomllib

    try:
        return int(tomllib.loads((folder / "config.toml").read_text(encoding="utf-8")).get("steps", 0))
    except (ValueError, TypeError):
        return 0
