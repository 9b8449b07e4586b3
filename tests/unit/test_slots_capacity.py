"""Slots: the version lag at consumption never exceeds max_staleness, whatever is dropped and in whatever order."""

from __future__ import annotations

import random

import pytest

from controller.slots import GroupSlots, SlotError

MANY = 10**6


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
@pytest.mark.parametrize(("size", "most"), [(1, 1), (4, 4), (4, 6), (4, 16), (1, 3)])
@pytest.mark.parametrize("drop_rate", [0.0, 0.4, 0.95])
def test_slots_lag_never_exceeds_max_staleness(max_staleness: int, size: int, most: int, drop_rate: float) -> None:
    rng = random.Random(7)
    slots = GroupSlots(max_staleness, size, MANY, most_per_step=most)
    finished: set[int] = set()
    under_way: list[int] = []
    judged: dict[int, bool] = {}
    worst, step, first = 0, 0, 0
    for _ in range(40_000):
        event = rng.choice(["issue", "finish", "train", "issue"])
        if event == "issue" and slots.free:
            under_way.append(slots.take())
        elif event == "finish" and under_way:
            finished.add(under_way.pop(rng.randrange(len(under_way))))
        elif event == "train":
            length = min(size + list(judged.values()).count(False), most)
            for index in sorted(finished & set(range(first, first + length)) - judged.keys()):
                judged[index] = rng.random() >= drop_rate
                if not judged[index]:
                    slots.drop()
            if judged.keys() == set(range(first, first + min(size + list(judged.values()).count(False), most))):
                first = max(judged) + 1
                worst = max(worst, slots.consume(first, step))
                judged.clear()
                step += 1
                slots.publish(step)
    assert step > 100
    assert worst <= max_staleness
    assert drop_rate or worst == max_staleness, "generation never ran ahead: the capacity is not used"


def test_slots_free_only_after_consumption_and_newer_weights() -> None:
    slots = GroupSlots(0, 2, MANY)
    assert [slots.take(), slots.take()] == [0, 1]
    assert slots.free == 0
    slots.consume(2, step=0)
    assert slots.free == 0, "the weights of step 0 are not live yet"
    slots.publish(1)
    assert slots.free == 2
    assert slots.take() == 2


def test_slots_dropped_group_makes_room_at_once_up_to_the_limit() -> None:
    slots = GroupSlots(0, 2, MANY, most_per_step=3)
    assert [slots.take(), slots.take(), slots.free] == [0, 1, 0]
    slots.drop()
    assert [slots.take(), slots.free] == [2, 0]
    slots.drop()
    assert slots.free == 0, "the step takes three at most; a fourth would be of the next step and a version too old"
    assert (slots.step_of(2), slots.step_of(5)) == (0, 0 + 3 // 2)
    slots.consume(3, 0)
    slots.publish(1)
    assert (slots.free, slots.first_index, slots.step_of(3), slots.step_of(5)) == (2, 3, 1, 2)


def test_slots_issue_nothing_beyond_the_last_step() -> None:
    slots = GroupSlots(3, 2, 2)
    assert [slots.take() for _ in range(slots.free)] == [0, 1, 2, 3]
    slots.consume(2, 0)
    slots.publish(1)
    assert slots.free == 0
    slots.consume(4, 1)
    slots.publish(2)
    assert slots.free == 0


@pytest.mark.parametrize("max_staleness", [0, 1, 2, 4])
@pytest.mark.parametrize("spare", [0, 1, 5, 23])
@pytest.mark.parametrize("most", [4, 10])
def test_slots_commits_in_time_keep_the_queue_from_filling(max_staleness: int, spare: int, most: int) -> None:
    """Committed only when the bound says so, at most one step late while saving: no push ever finds the queue full."""
    size = 4
    max_groups = (max_staleness + 1) * size + most + spare
    rng = random.Random(spare)
    slots = GroupSlots(max_staleness, size, MANY, most_per_step=most)
    queued: set[int] = set()
    trained: list[int] = []
    largest = commits = 0

    def generate(eagerness: float) -> None:
        """Fast rollouts finish all that they may before anybody trains, slow ones only some of it."""
        nonlocal largest
        while slots.free and rng.random() < eagerness:
            queued.add(slots.take())
        largest = max(largest, len(queued) + len(trained))

    for step in range(300):
        generate(rng.choice([0.3, 0.9, 1.0]))
        end = slots.first_index + size
        for _ in range(rng.randint(0, most - size) if step % 2 else most - size):
            slots.drop()
            end += 1
        wanted = range(slots.first_index, end)
        while not queued.issuperset(wanted):
            generate(1.0)
        slots.consume(end, step)
        queued.difference_update(wanted)
        trained += wanted
        slots.publish(step + 1)
        if len(trained) + slots.most_through_next_step > max_groups:
            generate(1.0)  # while it is being saved
            trained.clear()
            commits += 1
    assert largest <= max_groups
    assert largest > max_groups - most, "committed earlier than needed"


def test_slots_after_resume_hold_more_groups_than_capacity() -> None:
    slots = GroupSlots(0, 2, MANY, next_index=4, version=2)
    for index in range(4, 9):
        slots.adopt(index)
    assert slots.free == 0
    assert slots.most_through_next_step == 5
    for step in (2, 3):
        slots.consume(2 * step + 2, step)
        slots.publish(step + 1)
    assert (slots.held, slots.free) == (1, 1)
    assert slots.take() == 9


def test_slots_refuse_what_the_loop_must_never_do() -> None:
    slots = GroupSlots(0, 1, MANY)
    slots.take()
    with pytest.raises(SlotError, match="no free slot"):
        slots.take()
    with pytest.raises(SlotError, match="group 1 holds no slot"):
        slots.consume(2, 0)
    slots.publish(1)
    with pytest.raises(SlotError, match="older than the live version"):
        slots.publish(0)
    with pytest.raises(SlotError, match="cannot be adopted"):
        slots.adopt(0)
