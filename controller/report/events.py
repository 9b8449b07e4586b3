"""What happened in a run beside its steps: checkpoints, evaluations, resumes, restarts, health, actions, warnings.

Owns: the marks of the page's curves. Called by `controller.report.collection`. Must not know: files, how a mark is
drawn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.report.run_log import LogLine, zone_offset

KINDS = {
    "checkpoint": "Checkpoint",
    "evaluation": "Evaluation",
    "resume": "Resumed",
    "restart": "Restart",
    "health": "Change of health",
    "action": "Action",
    "warning": "Warning",
    "failure": "Failure",
}
"""In the order of the page's legend."""
ROUTINE = frozenset({"issued", "finished", "queued", "trained", "dropped"})
"""Events of the audit that every group goes through."""
HEALTH = ("healthy", "warning", "collapsed")
RESTARTED = (" is replaced (", "Valkey restarted (", "Ray started it again")
TAKEN_BACK = " (taken back: the run went on from an earlier step)"
Resumes = Sequence[tuple[float, int]]
LONGEST = 400
"""Characters of a text that are kept."""
MOST = 300
"""Events of one kind that a page shows: a run that limps for days writes a warning every few seconds."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something at a step (0: before the first one)."""

    kind: str
    step: int
    text: str


def events_of(
    audit: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    log: Sequence[LogLine],
    evaluations: Sequence[Mapping[str, Any]],
    steps: Mapping[int, Mapping[str, Any]],
    created: float | None,
) -> list[Event]:
    """All events by step, each once. `audit`, `events`: records of audit.jsonl and events.jsonl. `created`: when the
    run was, seconds since 1970; None leaves the log out."""
    resumes = resumes_of(audit)
    found = [*_audited(audit, resumes), *_noted(events, resumes), *_evaluated(evaluations, resumes), *_restarts(steps)]
    if not any(record.get("event") == "health" for record in events):
        found += _health(steps)
    if created is not None and log:
        found += _logged(log, steps, zone_offset(created, log[0].time))
    order = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(dict.fromkeys(found), key=lambda event: (event.step, order[event.kind]))


def resumes_of(audit: Sequence[Mapping[str, Any]]) -> list[tuple[float, int]]:
    """When the run began anew, seconds since 1970, and the step that it went on from."""
    rows = [(row.get("time"), row.get("step")) for row in audit if row.get("event") == "resumed"]
    return [(when, step) for when, step in rows if isinstance(when, int | float) and isinstance(step, int)]


def is_taken_back(step: Any, when: Any, resumes: Resumes) -> bool:
    """Whether a step that ended at `when` never was: the run went on from an earlier one after that."""
    known = isinstance(step, int) and isinstance(when, int | float)
    return known and any(when < begun and step > back_to for begun, back_to in resumes)


def newest(events: Sequence[Event]) -> tuple[list[Event], list[str]]:
    """The last `MOST` events of each kind, in their order, and in words what was left out."""
    counts = Counter(event.kind for event in events)
    left = {kind: count - MOST for kind, count in counts.items() if count > MOST}
    notes = [f"{KINDS[kind]}: the newest {MOST} of {counts[kind]} are shown" for kind in left]
    kept = []
    for event in events:
        if left.get(event.kind, 0) > 0:
            left[event.kind] -= 1
        else:
            kept.append(event)
    return kept, notes


def _audited(audit: Sequence[Mapping[str, Any]], resumes: Resumes) -> list[Event]:
    found = []
    for record in audit:
        name, step = record.get("event"), record.get("step", 0)
        if not isinstance(name, str) or name in ROUTINE or not isinstance(step, int):
            continue
        if name == "committed":
            found.append(Event("checkpoint", step, f"checkpoint of step {step}" + _back(step, record, resumes)))
        elif name == "resumed":
            place = f"the checkpoint of step {step}" if step else "its beginning"
            found.append(Event("resume", step, f"resumed from {place}"))
        else:
            found.append(Event("action", step, _told(name, record) + _back(step, record, resumes)))
    return found


def _back(step: int, record: Mapping[str, Any], resumes: Resumes) -> str:
    return TAKEN_BACK if is_taken_back(step, record.get("time"), resumes) else ""


def _noted(events: Sequence[Mapping[str, Any]], resumes: Resumes) -> list[Event]:
    """What the run did about its health, or was asked to do. A rollback is no part of what it takes back."""
    found = []
    for record in events:
        name, step = record.get("event"), record.get("step")
        if isinstance(name, str) and isinstance(step, int):
            back = "" if record.get("action") == "rollback" else _back(step, record, resumes)
            found.append(Event("health" if name == "health" else "action", step, _told(name, record) + back))
    return found


def _told(name: str, record: Mapping[str, Any]) -> str:
    """A record in words: its own, or its fields."""
    if isinstance(record.get("text"), str):
        return _short(record["text"])
    text = ", ".join(f"{key} {value}" for key, value in record.items() if key not in ("event", "step", "time"))
    return _short(f"{name}: {text}" if text else name)


def _evaluated(evaluations: Sequence[Mapping[str, Any]], resumes: Resumes) -> list[Event]:
    found = []
    for row in evaluations:
        step, success = row.get("version"), row.get("success")
        if isinstance(step, int) and isinstance(success, int | float):
            text = f"{row.get('label', 'evaluation')}: {success:.1%} on {row.get('panel', '?')}"
            text = _short(f"{text} ({row.get('won')}/{row.get('played')} tasks)")
            found.append(Event("evaluation", step, text + _back(step, row, resumes)))
    return found


def _health(steps: Mapping[int, Mapping[str, Any]]) -> list[Event]:
    """From the metric itself, of runs that do not note its changes."""
    found, before = [], 0
    for step, row in steps.items():
        level = row.get("health")
        if not isinstance(level, int | float) or int(level) == before or int(level) not in range(len(HEALTH)):
            continue
        alarms = [name.removeprefix("alarms_") for name, on in row.items() if name.startswith("alarms_") and on]
        cause = f" ({', '.join(alarms)})" if alarms else ""
        found.append(Event("health", step, f"{HEALTH[before]} → {HEALTH[int(level)]}{cause}"))
        before = int(level)
    return found


def _restarts(steps: Mapping[int, Mapping[str, Any]]) -> list[Event]:
    """From totals `restarts_<part>` that grew."""
    found: list[Event] = []
    last: dict[str, float] = {}
    for step, row in steps.items():
        for name, value in row.items():
            if name.startswith("restarts_") and isinstance(value, int | float):
                if value > last.get(name, 0):
                    found.append(
                        Event("restart", step, f"{name.removeprefix('restarts_')} restarted ({value:g} so far)")
                    )
                last[name] = value
    return found


def _logged(log: Sequence[LogLine], steps: Mapping[int, Mapping[str, Any]], offset: float) -> list[Event]:
    """Warnings and failures, at the step that was under way."""
    ends = [(row["time"], step) for step, row in steps.items() if isinstance(row.get("time"), int | float)]
    found = []
    for line in log:
        if line.level not in ("WARNING", "ERROR", "CRITICAL"):
            continue
        place = bisect_left(ends, (line.time - offset,))
        step = ends[place][1] if place < len(ends) else ends[-1][1] if ends else 0
        restarted = any(part in line.text for part in RESTARTED)
        kind = "restart" if restarted else "warning" if line.level == "WARNING" else "failure"
        found.append(Event(kind, step, _short(line.text)))
    return found


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
