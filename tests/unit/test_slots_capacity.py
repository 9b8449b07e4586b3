"""Slots: the version lag at consumption never exceeds max_staleness, whatever the order of events."""

from __future__ import annotations

import random

import pytest

from controller.slots import GroupSlots, SlotError


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
@pytest.mark.parametrize("groups_per_step", [1, 4])
def test_slots_lag_never_exceeds_max_staleness(max_staleness: int, groups_per_step: int) -> None:
    rng = random.Random(7)
    slots = GroupSlots(max_staleness, groups_per_step)
    finished: set[int] = set()
    under_way: list[int] = []
    worst, step = 0, 0
    while step < 200:
        event = rng.choice(["issue", "finish", "train", "issue"])
        if event == "issue" and slots.free:
            under_way.append(slots.take())
        elif event == "finish" and under_way:
            finished.add(under_way.pop(rng.randrange(len(under_way))))
        elif event == "train":
            wanted = list(range(step * groups_per_step, (step + 1) * groups_per_step))
            if finished.issuperset(wanted):
                worst = max(worst, slots.consume(wanted, step))
                finished.difference_update(wanted)
                step += 1
                slots.publish(step)
    assert worst <= max_staleness
    assert worst == max_staleness, "generation never ran ahead: the capacity is not used"


def test_slots_free_only_after_consumption_and_newer_weights() -> None:
    slots = GroupSlots(0, 2)
    assert [slots.take(), slots.take()] == [0, 1]
    assert slots.free == 0
    slots.consume([0, 1], step=0)
    assert slots.free == 0, "the weights of step 0 are not live yet"
    assert slots.publish(1) == 2
    assert slots.free == 2
    assert slots.take() == 2


def test_slots_dropping_groups_keeps_the_bound() -> None:
    rng = random.Random(3)
    slots = GroupSlots(1, 2)
    step = worst = 0
    ready: list[int] = []
    waiting: list[int] = []
    while step < 100:
        while slots.free:
            waiting.append(slots.take())
        head = waiting.pop(0)
        if rng.random() < 0.3:
            slots.drop(head)
            continue
        ready.append(head)
        if len(ready) == 2:
            worst = max(worst, slots.consume(ready, step))
            step += 1
            slots.publish(step)
            ready = []
    assert worst <= 1


def test_slots_after_resume_hold_more_groups_than_capacity() -> None:
    slots = GroupSlots(0, 2, next_index=4, version=2)
    for index in range(4, 9):
        slots.adopt(index)
    assert slots.free == 0
    for step in (2, 3):
        slots.consume([2 * step, 2 * step + 1], step)
        slots.publish(step + 1)
    assert (slots.held, slots.free) == (1, 1)
    assert slots.take() == 9


def test_slots_refuse_what_the_loop_must_never_do() -> None:
    slots = GroupSlots(0, 1)
    slots.take()
    with pytest.raises(SlotError, match="no free slot"):
        slots.take()
    with pytest.raises(SlotError, match="group 5 holds no slot"):
        slots.consume([5], 0)
    slots.publish(1)
    with pytest.raises(SlotError, match="older than the live version"):
        slots.publish(0)
    with pytest.raises(SlotError, match="cannot be adopted"):
        slots.adopt(0)
    with pytest.raises(SlotError, match="cannot be dropped"):
        slots.drop(5)
