"""The audit: what became of every group and trajectory, from a log alone.

Owns: the events of `audit.jsonl`, writing them, and the verdict. Called by the training loop, which writes, and by the
tests that kill runs, which judge what it wrote. Must not know: how any of it came about.

Events, one JSON line each, with the `group` they are about, a `time` and a `step` (first step: 1). `trained` and
`committed` name the finished step, events of the rollouts the one under way:
    issued     [index, task]         the group was begun (again, after a kill or a loss: that is no second group)
    finished   trajectories          all siblings are played
    queued     trajectories          the replay queue confirmed it
    trained    step, trajectories    the optimizer step used it
    dropped    reason, step          it will not be trained; or single `trajectories` of it, replaced by other attempts
    committed  step                  a checkpoint holds every step up to this one
    resumed    step                  the run goes on from the checkpoint of this step (0: from its beginning)

What counts. A run that resumes from step s never did the steps after s: `resumed` takes back every `trained` and
`dropped` of a later step, committed or not (the newest checkpoint may have been damaged), and commits the steps up to
s, for which the `committed` line may be missing (killed between the commit and the line). So `trained` counts only
when its step is part of the course that the last checkpoint holds. What was trained after that checkpoint is live: it
will be committed, or taken back.
A trajectory that was given up for another attempt counts as dropped, unless the group was issued again and trained with
it: after a kill, or when the queue lost the group, its siblings are played again under the same ids.

Verdicts: `trained` exactly once in a committed step, `dropped` with a reason, else `live`. Everything else is a
problem: trained twice, trained and dropped, trained without having been issued, siblings that differ between queue and
step, one trajectory in two groups, indices that leave a gap.

In order. Groups are issued in the order of their indices, every task of the panel once an epoch, and settled (trained
or dropped) in that order too: one that a committed step has passed over is lost, whatever is still written of it. That
the epochs are shuffled as they should be cannot be seen in the log; whoever has the panel passes `task_of`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from controller.durable_files import JsonLines, read_json_lines

Verdict = Literal["trained", "dropped", "live"]


class AuditLog:
    """Appends events. Lines survive kill -9; `committed` and `resumed` are on the disk when `write` returns."""

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        """`resume_step`: the step of the checkpoint that the run goes on from; None at the start of a new run."""
        self._lines = JsonLines(path)
        if resume_step is not None:
            self.write("resumed", step=resume_step)

    def write(self, event: str, **fields: Any) -> None:
        record = {"event": event, **fields, "time": round(time.time(), 3)}
        self._lines.append(record, sync=event in ("committed", "resumed"))

    def close(self) -> None:
        self._lines.close()


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What became of everything. `groups` and `trajectories` map ids to verdicts."""

    groups: dict[str, Verdict]
    trajectories: dict[str, Verdict]
    drop_reasons: dict[str, int]
    committed_step: int
    rolled_back: int
    """`trained` lines that a resume took back."""
    problems: list[str]

    @property
    def clean(self) -> bool:
        return not self.problems

    def counts(self) -> dict[Verdict, int]:
        """Groups by verdict."""
        found = Counter(self.groups.values())
        return {"trained": found["trained"], "dropped": found["dropped"], "live": found["live"]}


@dataclass(slots=True)
class _Fate:
    """All that the log says about one group, after what was taken back."""

    issues: int = 0
    """How often it was begun."""
    task: str | None = None
    queued: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """(number of the issue, siblings)"""
    trained: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """(step, siblings)"""
    trained_issue: int = 0
    dropped: list[tuple[int, str]] = field(default_factory=list)
    """(step, reason)"""
    attempts: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Siblings that were given up: (number of the issue, reason)"""


class _Course:
    """Reads events in order."""

    def __init__(self) -> None:
        self.fates: dict[str, _Fate] = {}
        self.indices: dict[int, str] = {}
        self.committed = 0
        self.rolled_back = 0
        self.problems: list[str] = []

    def read(self, number: int, record: dict[str, Any]) -> None:
        try:
            event, step = record["event"], int(record.get("step", 0))
            if event == "committed":
                self.committed = max(self.committed, step)
                return
            if event == "resumed":
                self._take_back(step)
                return
            fate = self.fates.setdefault(record["group"], _Fate())
            names = tuple(record.get("trajectories", ()))
            if event == "issued":
                fate.issues += 1
                self._check_order(record)
            elif event in ("queued", "finished"):
                if names:
                    fate.queued.append((fate.issues, names))
            elif event == "trained":
                step = int(record["step"])
                if step <= self.committed:
                    self.problems.append(f"group {record['group']}: trained in step {step}, which was committed before")
                fate.trained.append((step, names))
                fate.trained_issue = fate.issues
            elif event == "dropped":
                reason = str(record["reason"])
                if names:
                    fate.attempts |= dict.fromkeys(names, (fate.issues, reason))
                else:
                    fate.dropped.append((step, reason))
            else:
                self.problems.append(f"line {number}: unknown event {event!r}")
        except (KeyError, TypeError, ValueError) as error:
            self.problems.append(f"line {number}: not an audit event ({type(error).__name__}: {error})")

    def _take_back(self, step: int) -> None:
        for fate in self.fates.values():
            kept = [one for one in fate.trained if one[0] <= step]
            self.rolled_back += len(fate.trained) - len(kept)
            fate.trained = kept
            fate.dropped = [one for one in fate.dropped if one[0] <= step]
        self.committed = step

    def _check_order(self, record: dict[str, Any]) -> None:
        """The panel is served in order: a first issue continues the row, a repeated one names the same group."""
        if "index" not in record:
            return
        index, group = int(record["index"]), record["group"]
        known = self.indices.setdefault(index, group)
        if known != group:
            self.problems.append(f"index {index}: issued as {known} and as {group}")
        if index > 0 and index - 1 not in self.indices:
            self.problems.append(f"group {group}: index {index} was issued before index {index - 1}")
        task, fate = record.get("task"), self.fates[group]
        if fate.task is not None and task != fate.task:
            self.problems.append(f"group {group}: issued for task {fate.task} and for task {task}")
        fate.task = task


TaskOf = Callable[[int], str]
"""The id of the task that the run has to serve with the group of this index (`controller.task_order`)."""


def judge(events: Iterable[dict[str, Any]], task_of: TaskOf | None = None) -> AuditReport:
    """The verdict on every group and trajectory. `report.clean` says that nothing was lost or trained twice, and that
    the panel was served in order: with `task_of`, in exactly that one."""
    course = _Course()
    for number, record in enumerate(events, start=1):
        course.read(number, record)
    problems = [*course.problems, *_out_of_epoch(course), *_out_of_row(course)]
    if task_of is not None:
        problems += _not_asked_for(course, task_of)
    groups: dict[str, Verdict] = {}
    trajectories: dict[str, Verdict] = {}
    owners: dict[str, str] = {}
    reasons: Counter[str] = Counter()
    for name, fate in course.fates.items():
        problems += _contradictions(name, fate)
        committed = [one for one in fate.trained if one[0] <= course.committed]
        groups[name] = "trained" if committed else "dropped" if fate.dropped else "live"
        reasons.update(reason for _, reason in fate.dropped[:1])
        members = fate.trained[0][1] if fate.trained else fate.queued[-1][1] if fate.queued else ()
        verdicts: dict[str, Verdict] = dict.fromkeys(members, groups[name])
        given_up = _given_up(fate)
        reasons.update(given_up.values())
        verdicts.update(dict.fromkeys(given_up, "dropped"))
        for trajectory, verdict in verdicts.items():
            owner = owners.setdefault(trajectory, name)
            if owner != name:
                problems.append(f"trajectory {trajectory}: in group {owner} and in group {name}")
            trajectories[trajectory] = verdict
    return AuditReport(groups, trajectories, dict(reasons), course.committed, course.rolled_back, problems)


def judge_file(path: Path, task_of: TaskOf | None = None) -> AuditReport:
    """The verdict on a run's `audit.jsonl`."""
    return judge(read_json_lines(path), task_of)


def _out_of_epoch(course: _Course) -> list[str]:
    """Every task once an epoch. How long an epoch is, the first task that comes again says."""
    tasks = [course.fates[course.indices[index]].task for index in sorted(course.indices)]
    first: dict[str | None, int] = {}
    size = next((place for place, task in enumerate(tasks) if first.setdefault(task, place) != place), len(tasks))
    found, epoch = [], 0
    served: set[str | None] = set()
    for index, task in enumerate(tasks[size:], start=size):
        if index // max(size, 1) != epoch:
            epoch, served = index // size, set()
        if task in served or task not in first or first[task] >= size:
            found.append(f"index {index}: task {task} is out of turn: an epoch has {size} tasks, each once")
        served.add(task)
    return found


def _out_of_row(course: _Course) -> list[str]:
    """Committed steps take the groups in the order of their indices, and leave none out."""
    steps: dict[int, int] = {}
    for index, group in course.indices.items():
        fate = course.fates[group]
        settled = [step for step, _ in (*fate.trained, *fate.dropped) if step <= course.committed]
        if settled:
            steps[index] = settled[0]
    found, latest = [], 0
    for index in range(max(steps, default=-1) + 1):
        if index in steps:
            if steps[index] < latest:
                found.append(f"index {index}: settled in step {steps[index]}, after a group of step {latest}")
            latest = max(latest, steps[index])
        elif index in course.indices:
            found.append(
                f"group {course.indices[index]}: passed over: neither trained nor dropped, and later ones were"
            )
    return found


def _not_asked_for(course: _Course, task_of: TaskOf) -> list[str]:
    served = {index: course.fates[group].task for index, group in sorted(course.indices.items())}
    return [
        f"index {index}: task {task} was served, {task_of(index)} was due"
        for index, task in served.items()
        if task != task_of(index)
    ]


def _given_up(fate: _Fate) -> dict[str, str]:
    """Siblings that others replaced, with the reason. A group issued again makes its attempts under the same ids."""
    used = set(fate.trained[0][1]) if fate.trained else set()
    found = {name: reason for name, (_, reason) in fate.attempts.items() if name not in used}
    if fate.trained:
        for issue, names in fate.queued:
            if issue < fate.trained_issue:
                found |= {name: "played again" for name in names if name not in used | found.keys()}
    return found


def _contradictions(name: str, fate: _Fate) -> list[str]:
    found = []
    if any(not reason.strip() for reason in [text for _, text in (*fate.dropped, *fate.attempts.values())]):
        found.append(f"group {name}: dropped without a reason")
    if not fate.trained:
        return found
    step, used = fate.trained[0][0], set(fate.trained[0][1])
    if len(fate.trained) > 1:
        steps = ", ".join(str(one) for one, _ in fate.trained)
        found.append(f"group {name}: trained {len(fate.trained)} times, in steps {steps}")
    if fate.dropped:
        found.append(f"group {name}: trained in step {step}, and dropped: {fate.dropped[0][1]}")
    if not fate.issues:
        found.append(f"group {name}: trained in step {step} without having been issued")
    if fate.queued and not any(used == set(names) for _, names in fate.queued):
        found.append(f"group {name}: trained with siblings that were never queued together: {sorted(used)}")
    for trajectory, (issue, reason) in fate.attempts.items():
        if trajectory in used and issue == fate.trained_issue:
            found.append(f"trajectory {trajectory}: trained in step {step}, and dropped: {reason}")
    for trajectory in sorted({one for issue, names in fate.queued if issue == fate.trained_issue for one in names}):
        if trajectory not in used and trajectory not in fate.attempts:
            found.append(f"trajectory {trajectory}: queued, but its group was trained without it")
    return found
