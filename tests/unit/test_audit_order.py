"""The audit on order: every task once an epoch, groups settled in their row, none passed over, the panel's order."""

from __future__ import annotations

from typing import Any

from controller.audit import judge
from controller.task_order import TaskOrder
from tests.fakes import make_task
from tests.unit.test_audit_verdicts import committed, dropped, issued, problems, queued, resumed, trained

ORDER = TaskOrder([make_task(index) for index in range(4)], seed=7)


def task_of(index: int) -> str:
    return ORDER.task(index)[0].id


def served(tasks: list[str]) -> list[dict[str, Any]]:
    return [{**issued(index), "task": task} for index, task in enumerate(tasks)]


def test_audit_order_of_the_panel_is_clean_over_several_epochs() -> None:
    log = served([task_of(index) for index in range(10)])
    assert judge(log, task_of).problems == []


def test_audit_order_finds_a_task_that_was_not_due() -> None:
    tasks = [task_of(index) for index in range(8)]
    tasks[5], tasks[6] = tasks[6], tasks[5]
    assert judge(served(tasks)).problems == [], "still every task once an epoch: the log alone cannot tell"
    found = judge(served(tasks), task_of).problems
    assert found == [
        f"index 5: task {tasks[5]} was served, {tasks[6]} was due",
        f"index 6: task {tasks[6]} was served, {tasks[5]} was due",
    ]


def test_audit_order_finds_a_task_served_twice_in_an_epoch_without_the_panel() -> None:
    assert "index 4: task b is out of turn: an epoch has 3 tasks" in problems(*served(["a", "b", "c", "b", "b", "c"]))
    assert "index 3: task d is out of turn" in problems(*served(["a", "b", "a", "d"]))
    assert problems(*served(["a", "b", "c", "b", "c", "a", "c"])) == ""


def test_audit_order_finds_a_group_that_was_passed_over() -> None:
    log = [issued(0), issued(1), issued(2), queued(1), trained(0, 1), trained(2, 1), committed(1)]
    assert "group g1: passed over" in problems(*log)
    assert problems(*log[:-1]) == "", "no checkpoint holds the step yet: it may be taken back"
    assert problems(*log[:-1], dropped(1, 1), committed(1)) == ""
    assert problems(*log[:-1], resumed(0), trained(0, 1), trained(1, 1), committed(1)) == ""


def test_audit_order_finds_groups_that_were_trained_out_of_their_row() -> None:
    log = [issued(0), issued(1), trained(1, 1), committed(1), trained(0, 2), committed(2)]
    assert "index 1: settled in step 1, after a group of step 2" in problems(*log)
