"""The judgment on a chaos run: finished, ended with a cause, or at fault.

Owns: the outcomes and what counts as a problem. Pure but for nothing: facts in, verdict out. Called by
`bench.chaos.conductor` and the tests. Must not know: how a run is driven.

    finished             exit status 0, all steps, in one life
    ended with a cause   a life ended non-zero and said why, or was killed by the harness; a resume finished the run
    hung                 neither progress nor an end within the deadline
    no cause             a life ended and did not say why
    not resumable        no life of the run finished it

Any problem of the audit, and any process left behind, is a problem whatever the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.audit import judge

FINISHED, ENDED, HUNG, NO_CAUSE, NOT_RESUMABLE = (
    "finished", "ended with a cause", "hung", "no cause", "not resumable",
)  # fmt: skip
GOOD = (FINISHED, ENDED)


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a run. `exit_code`: of its process, negative for a signal. `cause`: what it said that it ended of.
    `killed`: the harness killed the controller itself. `left`: processes that outlived it. `disturbed`: a fault was
    done, or lasted, while it went on."""

    exit_code: int
    cause: str
    seconds: float
    killed: bool = False
    left: tuple[str, ...] = ()
    disturbed: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the judgment goes by. `hung`: for whom nobody knows what, in words; empty: it did not. `audit`: the
    events of audit.jsonl. `task_of(index)`: the id of the task that the panel serves at this place."""

    lives: Sequence[Life]
    hung: str
    audit: Sequence[Mapping[str, Any]]
    steps: int
    trajectories: int
    task_of: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`causes`: of the lives that ended early. `problems`: empty when nothing was lost, done twice or left behind."""

    outcome: str
    causes: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        return self.outcome in GOOD and not self.problems


def judge_run(found: Evidence) -> Verdict:
    """The verdict on a run that is over, or hangs."""
    early = [life for life in found.lives if life.exit_code != 0]
    causes = tuple("killed by the harness" if life.killed else life.cause for life in early)
    problems = [f"life {number}: left behind: {one}" for number, life in enumerate(found.lives) for one in life.left]
    problems += [
        f"life {number}: ended with {life.exit_code} though nothing was done to it: {life.cause}"
        for number, life in enumerate(found.lives) if life.exit_code and not life.disturbed
    ]  # fmt: skip
    outcome = FINISHED if not early else ENDED
    if found.hung:
        outcome = HUNG
        problems.append(f"hung: {found.hung}")
    elif any(not life.cause and not life.killed for life in early):
        outcome = NO_CAUSE
        problems += [
            f"life {number}: ended with {life.exit_code} and no cause"
            for number, life in enumerate(found.lives) if life.exit_code and not life.cause and not life.killed
        ]  # fmt: skip
    elif not found.lives or found.lives[-1].exit_code != 0:
        outcome = NOT_RESUMABLE
        problems.append(f"no life finished it; last: {causes[-1] if causes else 'there was none'}")
    return Verdict(outcome, causes, (*problems, *audit_problems(found, whole=outcome in GOOD)))


def audit_problems(found: Evidence, whole: bool) -> tuple[str, ...]:
    """What the audit finds; with `whole` also what is missing of a run that is said to be done."""
    report = judge(dict(event) for event in found.audit)
    problems = list(report.problems)
    for event in found.audit:
        if event.get("event") == "issued" and (asked := found.task_of(event["index"])) != event["task"]:
            problems.append(f"group {event['group']}: task {event['task']} instead of {asked} of the panel")
    if not whole:
        return tuple(problems)
    verdicts = list(report.trajectories.values())
    if report.committed_step != found.steps:
        problems.append(f"step {report.committed_step} is committed, {found.steps} were to be done")
    if (count := verdicts.count("trained")) != found.trajectories:
        problems.append(f"{count} trajectories are in a committed step, {found.trajectories} were to be")
    if lost := verdicts.count("live"):
        problems.append(f"{lost} trajectories are neither trained nor dropped: lost")
    return tuple(problems)
