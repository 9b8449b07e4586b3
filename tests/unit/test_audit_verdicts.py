"""The audit against a model: random runs with kills, resumes and fall backs, and faults that it must find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.audit import AuditLog, AuditReport, judge, judge_file

Event = dict[str, Any]


def names(index: int) -> list[str]:
    return [f"r-g{index}/{sibling}" for sibling in range(2)]


def issued(index: int) -> Event:
    return {"event": "issued", "group": f"g{index}", "index": index, "task": f"t{index % 3}"}


def queued(index: int) -> Event:
    return {"event": "queued", "group": f"g{index}", "trajectories": names(index)}


def trained(index: int, step: int) -> Event:
    return {"event": "trained", "group": f"g{index}", "trajectories": names(index), "step": step}


def dropped(index: int, step: int, reason: str = "all siblings failed") -> Event:
    return {"event": "dropped", "group": f"g{index}", "reason": reason, "step": step}


def committed(step: int) -> Event:
    return {"event": "committed", "step": step}


def resumed(step: int) -> Event:
    return {"event": "resumed", "step": step}


class Run:
    """A faithful run in miniature: two groups a step, some dropped, killed at any moment, resumed from a checkpoint."""

    def __init__(self) -> None:
        self.log: list[Event] = []
        self.step = 0
        self.fate: dict[int, tuple[str, int]] = {}  # index -> (trained | dropped, step)
        self.checkpoints: list[tuple[int, dict[int, tuple[str, int]]]] = [(0, {})]
        self.next = 0

    def do_step(self, drop_first: bool, ends_after: int) -> None:
        """One step; killed after `ends_after` lines of it were written."""
        step, lines = self.step + 1, []
        settled: dict[int, tuple[str, int]] = {}
        while sum(kind == "trained" for kind, _ in settled.values()) < 2:
            index = self.next
            self.next += 1
            lines += [issued(index), queued(index)]
            if drop_first and not settled:
                lines.append(dropped(index, step))
                settled[index] = ("dropped", step)
            else:
                settled[index] = ("trained", step)
        lines += [trained(index, step) for index, (kind, _) in settled.items() if kind == "trained"]
        self.log += lines[:ends_after]
        if ends_after >= len(lines):
            self.step, self.fate = step, self.fate | settled

    def commit(self, line_is_written: bool) -> None:
        self.checkpoints.append((self.step, dict(self.fate)))
        if line_is_written:
            self.log.append(committed(self.step))

    def resume(self, back: int) -> None:
        """From the newest checkpoint; from one before when that is damaged."""
        del self.checkpoints[max(1, len(self.checkpoints) - back) :]
        self.step, self.fate = self.checkpoints[-1][0], dict(self.checkpoints[-1][1])
        self.next = max(self.fate, default=-1) + 1
        self.log.append(resumed(self.step))


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.booleans(), st.one_of(st.just(99), st.integers(0, 9))),
        st.tuples(st.just("commit"), st.booleans(), st.just(0)),
        st.tuples(st.just("resume"), st.booleans(), st.integers(0, 1)),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(ACTIONS)
def test_faithful_runs_are_clean_and_judged_right(actions: list[tuple[str, bool, int]]) -> None:
    run = Run()
    known_committed = 0
    for action, flag, number in actions:
        if action == "step":
            run.do_step(flag, number)
            if number < 10:  # killed within the step
                run.resume(0)
                known_committed = run.step
        elif action == "commit":
            run.commit(flag)
            known_committed = run.step if flag else known_committed
            if not flag:  # killed between the commit and its line
                run.resume(0)
                known_committed = run.step
        else:
            run.resume(number)
            known_committed = run.step
    report = judge(run.log)
    assert report.problems == []
    assert report.committed_step == known_committed
    for index, (kind, step) in run.fate.items():
        expected = "live" if kind == "trained" and step > known_committed else kind
        assert report.groups[f"g{index}"] == expected
        assert {report.trajectories[name] for name in names(index)} == {expected}
    live = {name for name, verdict in report.groups.items() if verdict == "live"}
    assert {f"g{i}" for i, (kind, s) in run.fate.items() if kind == "trained" and s > known_committed} <= live
    assert sum(report.counts().values()) == len(report.groups)


def problems(*events: Event) -> str:
    return "\n".join(judge(events).problems)


def test_committed_and_live() -> None:
    report = judge([issued(0), issued(1), issued(2), queued(0), trained(0, 1), committed(1), trained(1, 2)])
    assert report.groups == {"g0": "trained", "g1": "live", "g2": "live"} and report.clean
    assert report.trajectories == dict.fromkeys(names(0), "trained") | dict.fromkeys(names(1), "live")
    assert report.counts() == {"trained": 1, "dropped": 0, "live": 2}


def test_trained_again_after_a_resume_is_once() -> None:
    report = judge([issued(0), trained(0, 1), resumed(0), issued(0), trained(0, 1), committed(1)])
    assert report.groups == {"g0": "trained"} and report.clean and report.rolled_back == 1


def test_commit_whose_line_is_missing() -> None:
    """Killed between the rename and the line: the resume proves the commit."""
    report = judge([issued(0), trained(0, 1), resumed(1)])
    assert report.groups == {"g0": "trained"} and report.clean and report.committed_step == 1


def test_fall_back_takes_committed_steps_back() -> None:
    log = [issued(0), issued(1), trained(0, 1), committed(1), trained(1, 2), committed(2), resumed(1)]
    assert judge(log).groups == {"g0": "trained", "g1": "live"}
    report = judge([*log, issued(1), trained(1, 2), committed(2)])
    assert report.groups == {"g0": "trained", "g1": "trained"} and report.clean


def test_drop_is_taken_back_with_its_step() -> None:
    assert judge([issued(0), dropped(0, 2), resumed(1)]).groups == {"g0": "live"}
    assert judge([issued(0), dropped(0, 1), resumed(1)]).groups == {"g0": "dropped"}
    report = judge([issued(0), issued(1), dropped(0, 1, "x"), dropped(1, 1, "x")])
    assert report.drop_reasons == {"x": 2}


def test_attempt_that_was_replaced() -> None:
    lost = {"event": "dropped", "group": "g0", "trajectories": ["r-g0/0/a0"], "reason": "actor died", "step": 1}
    report = judge([issued(0), lost, queued(0), trained(0, 1), committed(1)])
    assert report.trajectories == dict.fromkeys(names(0), "trained") | {"r-g0/0/a0": "dropped"}
    assert report.groups == {"g0": "trained"} and report.clean and report.drop_reasons == {"actor died": 1}


def test_attempt_that_is_made_again_after_a_kill() -> None:
    """Given up in one life, played again under the same id in the next: trained once."""
    given_up = {"event": "dropped", "group": "g0", "trajectories": ["r-g0/0"], "reason": "actor died", "step": 0}
    other = queued(0) | {"trajectories": ["r-g0/0/a1", "r-g0/1"]}
    report = judge([issued(0), given_up, other, resumed(0), issued(0), queued(0), trained(0, 1), committed(1)])
    assert report.clean and report.groups == {"g0": "trained"}
    assert report.trajectories == dict.fromkeys(names(0), "trained") | {"r-g0/0/a1": "dropped"}
    assert report.drop_reasons == {"played again": 1}
    from_queue = judge([issued(0), given_up, other, resumed(0), other | {"event": "trained", "step": 1}, committed(1)])
    assert from_queue.clean and from_queue.drop_reasons == {"actor died": 1}
    assert from_queue.trajectories == {"r-g0/0": "dropped", "r-g0/0/a1": "trained", "r-g0/1": "trained"}


def test_group_that_the_queue_lost_is_made_again_under_the_same_ids() -> None:
    """In the same life of the run: what was given up or queued before the second issue is no contradiction."""
    given_up = {"event": "dropped", "group": "g0", "trajectories": ["r-g0/0"], "reason": "actor died", "step": 1}
    lost = queued(0) | {"trajectories": ["r-g0/0/a1", "r-g0/1"]}
    report = judge([issued(0), given_up, lost, issued(0), queued(0), trained(0, 1), committed(1)])
    assert report.problems == [] and report.groups == {"g0": "trained"}
    assert report.trajectories == dict.fromkeys(names(0), "trained") | {"r-g0/0/a1": "dropped"}
    assert report.drop_reasons == {"played again": 1}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([issued(0), trained(0, 1), trained(0, 2)], "group g0: trained 2 times, in steps 1, 2"),
        ([issued(0), trained(0, 1), trained(0, 1)], "group g0: trained 2 times, in steps 1, 1"),
        ([issued(0), trained(0, 1), committed(1), resumed(1), trained(0, 2)], "group g0: trained 2 times"),
        ([issued(0), committed(3), trained(0, 2)], "group g0: trained in step 2, which was committed before"),
        ([issued(0), trained(0, 1), dropped(0, 1)], "group g0: trained in step 1, and dropped: all siblings failed"),
        ([trained(0, 1)], "group g0: trained in step 1 without having been issued"),
        ([issued(0), dropped(0, 1, " ")], "group g0: dropped without a reason"),
        ([issued(1)], "group g1: index 1 was issued before index 0"),
        ([issued(0), issued(0) | {"task": "t9"}], "group g0: issued for task t0 and for task t9"),
        ([issued(0), issued(0) | {"group": "other"}], "index 0: issued as g0 and as other"),
        (
            [issued(0), queued(0), trained(0, 1) | {"trajectories": ["x"]}],
            "siblings that were never queued together: ['x']",
        ),
        (
            [issued(0), queued(0), queued(0) | {"trajectories": ["r-g0/0", "y"]}, trained(0, 1)],
            "trajectory y: queued, but its group was trained without it",
        ),
        (
            [issued(0), trained(0, 1), dropped(0, 1) | {"trajectories": ["r-g0/0"]}],
            "trajectory r-g0/0: trained in step 1, and dropped: all siblings failed",
        ),
        (
            [issued(0), issued(1), trained(0, 1), trained(1, 1) | {"trajectories": ["r-g0/0"]}],
            "trajectory r-g0/0: in group g0 and in group g1",
        ),
        ([{"event": "melted", "group": "g0"}], "line 1: unknown event 'melted'"),
        ([{"group": "g0"}], "line 1: not an audit event (KeyError: 'event')"),
        ([{"event": "trained", "group": "g0"}], "line 1: not an audit event (KeyError: 'step')"),
        ([{"event": "issued"}], "line 1: not an audit event (KeyError: 'group')"),
        ([{"event": "committed", "step": "soon"}], "line 1: not an audit event (ValueError"),
    ],
)
def test_faults_are_found(events: list[Event], expected: str) -> None:
    assert expected in problems(*events)


def test_log_on_disk_survives_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.write("issued", group="g0")
    log.write("trained", group="g0", trajectories=["a"], step=1)
    log.write("committed", step=1)
    log.write("issued", group="g1")
    log.close()
    path.write_bytes(path.read_bytes()[:-10])
    log = AuditLog(path, resume_step=1)
    log.write("issued", group="g1")
    log.close()
    report: AuditReport = judge_file(path)
    assert report.groups == {"g0": "trained", "g1": "live"} and report.clean
    assert judge_file(tmp_path / "none.jsonl").groups == {}
