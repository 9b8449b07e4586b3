"""The state of a run: healthy, warning, collapsed. It changes only when findings agree for some steps in a row.

Owns: `State`, `advance`. Called by `controller.collapse.observatory`. Must not know: series, how findings come about,
what is done about a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from controller.collapse.finding import Finding, Level
from controller.collapse.settings import CollapseSettings


@dataclass(frozen=True, slots=True)
class Watch:
    """One detector over time: the level that is believed, the levels that it saw last (oldest first), and the cause
    that it gave when it last saw one as high as is believed."""

    level: Level = Level.HEALTHY
    seen: tuple[Level, ...] = ()
    cause: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """After `step`. `since`: the step in which `level` was entered, 0 before the first. `watches` by detector."""

    step: int = 0
    level: Level = Level.HEALTHY
    since: int = 0
    watches: dict[str, Watch] = field(default_factory=dict)


def advance(state: State, step: int, findings: Sequence[Finding], settings: CollapseSettings) -> State:
    """The state after one more step.

    A detector rises to a level that it saw for `steps_to_enter` steps in a row, and falls to the highest one that it
    saw in the last `steps_to_leave`. The run is at the highest level of its detectors.
    """
    watches = dict(state.watches)
    for finding in findings:
        watches[finding.detector] = _watch(watches.get(finding.detector, Watch()), finding, settings)
    level = max((watch.level for watch in watches.values()), default=Level.HEALTHY)
    return State(step, level, state.since if level == state.level else step, watches)


def _watch(watch: Watch, finding: Finding, settings: CollapseSettings) -> Watch:
    kept = max(settings.steps_to_enter, settings.steps_to_leave)
    seen = (*watch.seen, finding.level)[-kept:]
    level = watch.level
    sure = min(seen[-settings.steps_to_enter :]) if len(seen) >= settings.steps_to_enter else Level.HEALTHY
    if sure > level:
        level = sure
    elif len(seen) >= settings.steps_to_leave:
        level = min(level, max(seen[-settings.steps_to_leave :]))
    cause = finding.cause if finding.level >= level and finding.cause else watch.cause
    return replace(watch, level=level, seen=seen, cause=cause if level else "")
