"""What the curves of the report are marked with."""

from __future__ import annotations

from typing import Any

from controller.report.events import MOST, TAKEN_BACK, Event, events_of, newest
from controller.report.run_log import LogLine

CREATED = 1_000_000.0
STEPS = {step: {"time": CREATED + 100.0 * step} for step in (1, 2, 3)}


def found(**changes: Any) -> list[Event]:
    given: dict[str, Any] = {
        "audit": [],
        "events": [],
        "log": [],
        "evaluations": [],
        "steps": STEPS,
        "created": CREATED,
    }
    return events_of(**{**given, **changes})


def test_checkpoints_resumes_and_unknown_events_come_from_the_audit() -> None:
    audit = [
        {"event": "issued", "group": "g", "step": 1},
        {"event": "committed", "step": 2, "time": 1.0},
        {"event": "committed", "step": 2, "time": 2.0},  # again, after a resume
        {"event": "resumed", "step": 0},
        {"event": "scaled", "step": 3, "envs": 4},
        {"event": None},
        {},
    ]
    assert found(audit=audit) == [
        Event("resume", 0, "resumed from its beginning"),
        Event("checkpoint", 2, "checkpoint of step 2"),
        Event("action", 3, "scaled: envs 4"),
    ]


def test_what_a_rollback_took_back_is_marked_so() -> None:
    audit = [
        {"event": "committed", "step": 1, "time": 10.0},
        {"event": "committed", "step": 3, "time": 30.0},
        {"event": "resumed", "step": 1, "time": 40.0},
        {"event": "committed", "step": 3, "time": 60.0},
    ]
    events = [
        {"event": "health", "step": 3, "text": "ill", "time": 31.0},
        {"event": "action", "step": 3, "action": "rollback", "text": "rollback: ill", "time": 32.0},
    ]
    row = {"label": "during", "panel": "seen", "version": 2, "success": 0.5, "won": 1, "played": 2, "time": 25.0}
    assert found(audit=audit, events=events, evaluations=[row]) == [
        Event("checkpoint", 1, "checkpoint of step 1"),
        Event("resume", 1, "resumed from the checkpoint of step 1"),
        Event("evaluation", 2, "during: 50.0% on seen (1/2 tasks)" + TAKEN_BACK),
        Event("checkpoint", 3, "checkpoint of step 3" + TAKEN_BACK),
        Event("checkpoint", 3, "checkpoint of step 3"),
        Event("health", 3, "ill" + TAKEN_BACK),
        Event("action", 3, "rollback: ill"),
    ]


def test_evaluations_are_marked_at_their_step() -> None:
    row = {"label": "after", "panel": "seen", "version": 3, "success": 0.5, "won": 1, "played": 2}
    assert found(evaluations=[row, {"label": "odd"}]) == [Event("evaluation", 3, "after: 50.0% on seen (1/2 tasks)")]


def test_log_messages_are_marked_at_the_step_under_way() -> None:
    zone = 3600.0
    at = lambda seconds, text, level="WARNING": LogLine(CREATED + zone + seconds, level, "a", text)  # noqa: E731
    log = [
        at(10, "env-0 is up", "INFO"),
        at(150, "env-0 is replaced (1 of 5): killed"),
        at(200, "late"),
        at(999, "the run ended: cause", "ERROR"),
    ]
    assert found(log=log) == [
        Event("restart", 2, "env-0 is replaced (1 of 5): killed"),
        Event("warning", 2, "late"),
        Event("failure", 3, "the run ended: cause"),
    ]
    assert found(log=log, created=None) == []


def test_health_is_told_by_the_run_or_else_by_its_metric() -> None:
    levels = [0.0, 1.0, 1.0, 2.0, None, 0.0]
    steps = {step: {"health": level, "alarms_kl": float(step == 4)} for step, level in enumerate(levels, start=1)}
    assert [(event.step, event.text) for event in found(steps=steps)] == [
        (2, "healthy → warning"), (4, "warning → collapsed (kl)"), (6, "collapsed → healthy"),
    ]  # fmt: skip
    events = [
        {"event": "health", "step": 2, "text": "entropy fell"},
        {"event": "action", "step": 2, "action": "checkpoint"},
    ]
    assert found(steps=steps, events=events) == [
        Event("health", 2, "entropy fell"), Event("action", 2, "action: action checkpoint"),
    ]  # fmt: skip


def test_restarts_are_marked_where_their_count_grows() -> None:
    steps = {1: {"restarts_env-0": 0.0}, 2: {"restarts_env-0": 2.0}, 3: {"restarts_env-0": 2.0}}
    assert found(steps=steps) == [Event("restart", 2, "env-0 restarted (2 so far)")]


def test_long_texts_are_cut() -> None:
    (event,) = found(audit=[{"event": "told", "step": 1, "text": "x" * 9999}])
    assert len(event.text) == 400 and event.text.endswith("…")


def test_newest_events_of_each_kind_are_kept_in_order() -> None:
    many = [Event("warning", step, str(step)) for step in range(MOST + 5)]
    kept, notes = newest([Event("resume", 0, "once"), *many])
    assert kept == [Event("resume", 0, "once"), *many[5:]]
    assert notes == [f"Warning: the newest {MOST} of {MOST + 5} are shown"]
    assert newest(many[:3]) == (many[:3], [])
