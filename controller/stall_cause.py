"""Why a run stands still, in words: from what its controller waits for and what its parts say of themselves.

Owns: `cause_of_stall`, which part is to blame, and when a cause is worth a line of the log. Called by
`controller.live_view`. Must not know: clocks, Ray, how a part is asked.

Whoever waits gives its wait a name (`controller.deadline`): "inference-1: starting", "env-0: status" (a ping), "queue:
pull", "trajectory ...", and "the groups of step 3" for what the whole run waits for. The deepest cause is named first:
a part that answers nothing before one that starts, and that before the learner, which works while it is waited for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.deadline import Wait
from controller.parts_file import Part

SILENT_S = 5.0
"""A ping takes milliseconds; a part that owes an answer for longer is said to be silent."""
LONG_S = 10.0
"""Anything else is waited for so long before it is called a stall."""
STILL_S = 60.0
"""When no environment and no engine has anything new to say for so long, that alone is a stall."""
NOTE_AFTER_S = 30.0
"""A cause that lasts so long is worth a line of the log."""
MOST_NAMED = 3
SILENT, QUEUE, PART, STILL, LEARNER, TRAJECTORY = range(6)
"""Kinds of causes, the deepest first."""
PLAYING = "trajectory "
NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class _Cause:
    kind: int
    who: str
    does: str
    for_s: float

    def __str__(self) -> str:
        if self.kind == SILENT:
            return f"{self.who} answers nothing since {self.for_s:.0f} s"
        if self.kind == STILL:
            return f"{self.who} says nothing new since {self.for_s:.0f} s ({self.does})"
        return f"{self.head} since {self.for_s:.0f} s"

    @property
    def head(self) -> str:
        """As that which is waited for."""
        if self.kind == SILENT:
            return f"{self.who}: it answers nothing"
        return f"{self.who}: {self.does}" if self.does else self.who


def cause_of_stall(waits: Sequence[Wait], parts: Mapping[str, Part], now: float) -> str:
    """One line, empty while nothing stands still. `now`: the clock of `parts`, seconds since 1970."""
    playing = any(wait.what.startswith(PLAYING) for wait in waits)
    goal = next((wait for wait in waits if wait.what.startswith("the ") and wait.for_s >= SILENT_S), None)
    causes = [cause for wait in waits if (cause := _cause(wait, parts, playing))]
    causes.sort(key=lambda cause: (cause.kind, -cause.for_s, cause.who))
    causes = [cause for place, cause in enumerate(causes) if cause.who not in {one.who for one in causes[:place]}]
    if goal is not None and not causes and goal.for_s >= STILL_S:
        causes = _standing_still(parts, now)
    if goal is not None and (causes or (not playing and goal.for_s >= LONG_S)):
        rollouts = [parts["rollouts"].doing] if "rollouts" in parts else []
        return f"waiting {goal.for_s:.0f} s for {goal.what}: {_listed([*rollouts, *map(str, causes)])}"
    if not causes:
        return ""
    first, *others = causes
    return f"waiting {first.for_s:.0f} s for {_listed([first.head, *map(str, others)])}"


def _cause(wait: Wait, parts: Mapping[str, Part], playing: bool) -> _Cause | None:
    """What there is to say of this wait; None while it is no longer than it should be."""
    part, doing, late = wait.part, wait.task, wait.for_s > wait.timeout_s / 2
    if doing == "status":
        return _Cause(SILENT, part, doing, wait.for_s) if wait.for_s >= SILENT_S else None
    if part == "queue":
        return _Cause(QUEUE, part, doing, wait.for_s) if wait.for_s >= SILENT_S else None
    if wait.what.startswith(PLAYING):
        return _Cause(TRAJECTORY, wait.what, "", wait.for_s) if late else None
    if not part or wait.for_s < LONG_S:
        return None
    said = parts[part].doing if part in parts else doing
    if part == "learner" and doing != "starting":  # at work; the rollouts go on meanwhile as far as slots are free
        return _Cause(LEARNER, part, said, wait.for_s) if late or not playing else None
    return _Cause(PART, part, said if doing == "starting" else doing, wait.for_s)


def _standing_still(parts: Mapping[str, Part], now: float) -> list[_Cause]:
    """The environments and engines, if not one of them has had anything new to say."""
    found = [
        _Cause(STILL, name, part.doing, now - part.moved)
        for name, part in sorted(parts.items())
        if name.startswith(("env-", "inference-"))
    ]
    return found if all(cause.for_s >= STILL_S for cause in found) else []


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - MOST_NAMED
    return ", ".join(texts[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def silent_parts(waits: Sequence[Wait]) -> dict[str, float]:
    """Parts that were asked how they are and have not answered, with the seconds since."""
    return {wait.part: wait.for_s for wait in waits if wait.task == "status" and wait.for_s >= SILENT_S}


class StallNotes:
    """Which causes are told to a person: each when it has lasted NOTE_AFTER_S, and again when it lasts twice as long as
    it ever did when it was told. So a step of the learner that always takes a minute is told of once."""

    def __init__(self) -> None:
        self._kind = ""
        self._since = 0.0
        self._told: dict[str, float] = {}

    def observe(self, cause: str, now: float) -> bool:
        """Whether `cause` (empty: none), which holds at `now`, is to be told."""
        kind = NUMBER.sub("#", cause)
        if kind != self._kind:
            self._kind, self._since = kind, now
        lasted = now - self._since
        if not cause or lasted < max(NOTE_AFTER_S, 2 * self._told.get(kind, 0.0)):
            return False
        self._told[kind] = lasted
        return True
