"""Generation: groups are issued in order as slots become free, made once, and made again when they were lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.rollout import TrajectorySpec
from controller.generation import Generation, group_name, index_of
from controller.slots import GroupSlots
from controller.task_order import TaskOrder
from envs.records import Trajectory, TrajectoryGroup, Turn
from tests.fakes import make_task, make_turn

TASKS = [make_task(index) for index in range(5)]


class FakePlayer:
    def __init__(self, delay_of: dict[int, float] | None = None) -> None:
        self.delay_of = delay_of or {}
        self.replays: dict[str, int] = {}
        self.forgotten: list[str] = []

    async def play(self, spec: TrajectorySpec, replay: tuple[Turn, ...], attempting: Any) -> Trajectory:
        self.replays[spec.trajectory_id] = len(replay)
        await asyncio.sleep(self.delay_of.get(spec.group_index, 0.0))
        if spec.group_index == 99:
            raise RuntimeError("this task cannot be played")
        return Trajectory(
            id=spec.trajectory_id, group_id=spec.group_id, task=spec.task, sibling=spec.sibling, attempt=spec.attempt,
            turns=(make_turn(),), won=False, duration_s=0.0,
        )  # fmt: skip

    def forget(self, trajectories: tuple[Trajectory, ...]) -> None:
        self.forgotten += [trajectory.id for trajectory in trajectories]


class Scene:
    """A generation with its surroundings; the training side is played by the test."""

    def __init__(self, player: FakePlayer, slots: GroupSlots) -> None:
        self.player, self.slots = player, slots
        self.pushed: list[TrajectoryGroup] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.generation = Generation(
            "r", 2, player, slots, TaskOrder(TASKS, 0), self._push,  # type: ignore[arg-type]
            lambda event, **fields: self.events.append((event, fields)),
        )  # fmt: skip

    async def _push(self, group: TrajectoryGroup) -> None:
        await asyncio.sleep(0)
        self.pushed.append(group)

    async def run_until(self, count: int) -> None:
        running = asyncio.create_task(self.generation.run())
        for _ in range(500):
            await asyncio.sleep(0.002)
            if len(self.pushed) >= count or running.done():
                break
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if not running.cancelled():
            running.result()


def test_generation_fills_the_slots_and_no_more() -> None:
    async def run() -> None:
        scene = Scene(FakePlayer(), GroupSlots(1, 2, 100))
        await scene.run_until(4)
        assert sorted(group.index for group in scene.pushed) == [0, 1, 2, 3]
        assert scene.generation.num_under_way == 0
        issued = [fields["index"] for event, fields in scene.events if event == "issued"]
        assert issued == [0, 1, 2, 3]

    asyncio.run(run())


def test_generation_goes_on_when_slots_are_freed_and_stops_at_the_last_group() -> None:
    async def run() -> None:
        scene = Scene(FakePlayer(), GroupSlots(0, 2, 3))
        running = asyncio.create_task(scene.generation.run())
        for step in range(3):
            while len(scene.pushed) < 2 * step + 2:
                await asyncio.sleep(0.001)
            scene.slots.consume(2 * step + 2, step)
            scene.slots.publish(step + 1)
            scene.generation.wake()
        await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [group.index for group in scene.pushed] == list(range(6))

    asyncio.run(run())


def test_generation_groups_advance_on_their_own() -> None:
    async def run() -> None:
        scene = Scene(FakePlayer({0: 0.1}), GroupSlots(0, 3, 100))
        await scene.run_until(3)
        assert [group.index for group in scene.pushed] == [1, 2, 0], "nobody waits for the slowest group"

    asyncio.run(run())


def test_generation_makes_lost_groups_again_from_what_is_known() -> None:
    async def run() -> None:
        slots = GroupSlots(0, 2, 100, next_index=4, version=2)
        for index in (4, 5, 6):
            slots.adopt(index)
        player = FakePlayer()
        scene = Scene(player, slots)
        scene.generation.again([5], {5: {"r-g000005/1": (make_turn(0), make_turn(1))}})
        assert [group.id for group in scene.generation.outstanding()] == ["r-g000005"]
        await scene.run_until(1)
        assert [group.index for group in scene.pushed] == [5]
        assert player.replays == {"r-g000005/0/0": 0, "r-g000005/1/0": 2}

    asyncio.run(run())


def test_generation_group_is_never_made_twice_at_the_same_time() -> None:
    """Asked for while it waits, while its task has not begun, and while it is under way."""

    async def run() -> None:
        slots = GroupSlots(0, 2, 100, next_index=4, version=2)
        slots.adopt(4)
        slots.adopt(5)
        scene = Scene(FakePlayer({4: 0.02}), slots)
        scene.generation.again([4])
        scene.generation.again([4, 5, 5])
        running = asyncio.create_task(scene.generation.run())
        asyncio.get_running_loop().call_soon(scene.generation.again, [4, 5])  # before the groups' tasks begin
        await asyncio.sleep(0.01)
        scene.generation.again([4])
        await asyncio.sleep(0.05)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [group.index for group in scene.pushed] == [5, 4]
        assert [event for event, _ in scene.events].count("issued") == 2

    asyncio.run(run())


def test_generation_tells_what_is_under_way() -> None:
    async def run() -> None:
        scene = Scene(FakePlayer({0: 5.0}), GroupSlots(0, 1, 100))
        running = asyncio.create_task(scene.generation.run())
        await asyncio.sleep(0.02)
        (group,) = scene.generation.outstanding()
        assert (group.id, group.trajectories) == ("r-g000000", ["r-g000000/0/0", "r-g000000/1/0"])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_generation_that_fails_ends_with_the_cause() -> None:
    async def run() -> None:
        scene = Scene(FakePlayer(), GroupSlots(0, 1, 100, next_index=99, version=99))
        with pytest.raises(ExceptionGroup) as caught:
            await scene.run_until(1)
        assert "cannot be played" in str(caught.value.exceptions[0])

    asyncio.run(run())


def test_generation_names_carry_the_index() -> None:
    assert index_of(group_name("a-g1-run", 12)) == 12


def test_generation_begins_lost_groups_only_when_they_will_not_be_too_old() -> None:
    """After a resume the queue may hold groups far ahead, and those before them are missing."""

    async def run() -> None:
        slots = GroupSlots(0, 2, 100, next_index=4, version=2)
        for index in range(4, 12):
            slots.adopt(index)
        scene = Scene(FakePlayer(), slots)
        scene.generation.again([7, 4, 5, 6, 9])
        await scene.run_until(2)
        assert sorted(group.index for group in scene.pushed) == [4, 5]
        slots.consume(6, 2)
        slots.publish(3)
        await scene.run_until(4)
        assert sorted(group.index for group in scene.pushed) == [4, 5, 6, 7]

    asyncio.run(run())
