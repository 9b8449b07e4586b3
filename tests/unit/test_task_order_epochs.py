"""The order of a run's tasks: every task once an epoch, the same for the same seed, random access."""

from __future__ import annotations

import pytest

from controller.task_order import EmptyPanelError, TaskOrder
from tests.fakes import make_task

TASKS = [make_task(index) for index in range(7)]


def test_task_order_serves_every_task_once_an_epoch() -> None:
    order = TaskOrder(TASKS, seed=3)
    for epoch in range(3):
        served = [order.task(epoch * 7 + place) for place in range(7)]
        assert sorted(task.index for task, _ in served) == list(range(7))
        assert {visit for _, visit in served} == {epoch}


def test_task_order_depends_on_seed_and_epoch_only() -> None:
    first = [TaskOrder(TASKS, seed=3).task(index) for index in range(21)]
    order = TaskOrder(TASKS, seed=3)
    backwards = [order.task(index) for index in reversed(range(21))]
    assert first == backwards[::-1]
    assert first[:7] != [TaskOrder(TASKS, seed=4).task(index) for index in range(7)]
    assert [task for task, _ in first[:7]] != [task for task, _ in first[7:14]]


def test_task_order_needs_tasks() -> None:
    with pytest.raises(EmptyPanelError, match=r"env\.train_panel"):
        TaskOrder([], seed=0)
