"""How a run was and is, from its metrics file alone.

Owns: the replay of a run through the observatory, and the lines and the JSON of `t2po health`. Called by the CLI and by
`bench.collapse`. Must not know: Ray, or whether the run's processes live.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from controller.collapse.observatory import Health, Observatory
from controller.collapse.settings import CollapseSettings
from controller.live_view import duration
from controller.metrics import StepMetrics, read_metrics
from controller.run_folder import RunFolder


def replay(steps: Iterable[StepMetrics], settings: CollapseSettings) -> list[Health]:
    """The health after each step."""
    observatory = Observatory(settings)
    return [observatory.observe(step.step, step.values) for step in steps]


def changes(healths: Sequence[Health]) -> list[Health]:
    """The healths with which the level changed, the first step included."""
    levels = [None, *(health.level for health in healths)]
    return [health for health, before in zip(healths, levels, strict=False) if health.level != before]


def health_lines(path: Path, now: float | None = None) -> list[str]:
    """The changes of state, each with its cause, and the state at present. Works on a run that is going on."""
    seen = health_json(path, now)
    if not seen["now"]:
        return [f"{path}: no step is finished yet"]
    lines = [f"step {change['step']}: {_text(change)}" for change in seen["changes"]]
    last = seen["now"]
    since = f", since step {last['since']}" if last["since"] else ""
    lines.append(f"now, after step {last['step']} ({duration(seen['waited_s'])} ago){since}: {_text(last)}")
    return [*lines, f"{seen['stalled']}: it has stalled, or was stopped"] if seen["stalled"] else lines


def health_json(path: Path, now: float | None = None) -> dict[str, Any]:
    """The same for programs. `now` and `waited_s`, the seconds since the last step, are null before the first step;
    `stalled` says in words when steps are still to come and none came for long."""
    run = RunFolder.read(path)
    config = run.config()
    steps = read_metrics(run.metrics) if run.metrics.is_file() else []
    observatory = Observatory(config.collapse)
    healths = [observatory.observe(step.step, step.values) for step in steps]
    waited_s = (time.time() if now is None else now) - steps[-1].time if steps else None
    waiting = observatory.health
    if waited_s is not None and steps[-1].step < config.steps:
        waiting = observatory.waiting(waited_s)
    return {
        "run": str(path),
        "changes": [as_json(health) for health in changes(healths)],
        "now": as_json(observatory.health) if healths else None,
        "waited_s": waited_s,
        "stalled": waiting.causes[0] if waiting != observatory.health else "",
    }


def as_json(health: Health) -> dict[str, Any]:
    """A health for programs: only the detectors that are not healthy."""
    return {
        "step": health.step,
        "level": str(health.level),
        "since": health.since,
        "causes": list(health.causes),
        "detectors": {name: str(level) for name, level in health.detectors if level},
    }


def _text(health: dict[str, Any]) -> str:
    return ": ".join([health["level"], *(["; ".join(health["causes"])] if health["causes"] else [])])
