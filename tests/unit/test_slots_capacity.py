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


@pytest.mark.parametrize("max_staleness", [0, 1, 2, 4])
@pytest.mark.parametrize("spare", [0, 1, 5, 23])
def test_slots_commits_in_time_keep_the_queue_from_filling(max_staleness: int, spare: int) -> None:
    """Committed only when the bound says so, at most one step late while saving: no push ever finds the queue full."""
    size = 4
    max_groups = (max_staleness + 2) * size + spare
    rng = random.Random(spare)
    slots = GroupSlots(max_staleness, size)
    queued: set[int] = set()
    trained: list[int] = []
    most = commits = 0

    def generate(eagerness: float) -> None:
        """Fast rollouts finish all that they may before anybody trains, slow ones only some of it."""
        nonlocal most
        while slots.free and rng.random() < eagerness:
            queued.add(slots.take())
        most = max(most, len(queued) + len(trained))

    for step in range(300):
        eagerness = rng.choice([0.3, 0.9, 1.0])
        generate(eagerness)
        wanted = list(range(step * size, (step + 1) * size))
        while not queued.issuperset(wanted):
            generate(1.0)
        slots.consume(wanted, step)
        queued.difference_update(wanted)
        trained += wanted
        slots.publish(step + 1)
        if len(trained) + slots.most_through_next_step > max_groups:
            generate(1.0)  # while it is being saved
            trained.clear()
            commits += 1
    assert most <= max_groups
    assert most > max_groups - size, "committed earlier than needed"
    assert commits <= 300 // max(1, (max_groups - slots.capacity) // size)


def test_slots_after_resume_hold_more_groups_than_capacity() -> None:
    slots = GroupSlots(0, 2, next_index=4, version=2)
    for index in range(4, 9):
        slots.adopt(index)
    assert slots.free == 0
    assert slots.most_through_next_step == 5
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
