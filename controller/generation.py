"""Generation: takes a slot, plays the siblings of the next task, pushes the finished group.

Owns: which group is issued when, and the groups under way. Called by `controller.train`; runs beside
`controller.update` until it is cancelled. Must not know: training, weights, checkpoints.

Each group is a coroutine of its own; nothing waits for a batch. A group whose push was confirmed is safe:
whoever resumes the run finds it in the queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.rollout import TrajectorySpec
from controller.player import Player
from controller.slots import GroupSlots
from controller.task_order import TaskOrder
from envs.records import Thresholds, TrajectoryGroup, Turn

Push = Callable[[TrajectoryGroup], Awaitable[None]]


class Note(Protocol):
    """Writes an event of the audit (`controller.audit` says which there are)."""

    def __call__(self, event: str, **fields: Any) -> None: ...


def group_name(run_id: str, index: int) -> str:
    """Deterministic: the same group of the same run has the same id in every life of the run."""
    return f"{run_id}-g{index:06d}"


def index_of(name: str) -> int:
    """The index in a group's id."""
    return int(name.rsplit("-g", 1)[1])


@dataclass(slots=True)
class GroupUnderWay:
    """`trajectories`: the id of each sibling's attempt that is going on now."""

    id: str
    index: int
    task_id: str
    trajectories: list[str] = field(default_factory=list)


class Generation:
    """Runs until cancelled; a group that cannot be made ends it with the cause."""

    def __init__(
        self,
        run_id: str,
        group_size: int,
        player: Player,
        slots: GroupSlots,
        order: TaskOrder,
        push: Push,
        note: Note,
        thresholds: Callable[[int, int], Thresholds | None] = lambda index, sibling: None,
    ) -> None:
        """`thresholds`: by group index and sibling."""
        self._run_id = run_id
        self._group_size = group_size
        self._player = player
        self._slots = slots
        self._order = order
        self._push = push
        self._note = note
        self._thresholds = thresholds
        self._again: deque[int] = deque()
        self._known: dict[str, tuple[Turn, ...]] = {}
        self._freed = asyncio.Event()
        self._under_way: dict[int, GroupUnderWay] = {}

    def again(self, indices: Iterable[int], live: Mapping[int, Mapping[str, tuple[Turn, ...]]] | None = None) -> None:
        """Groups that hold a slot already and have to be made (again): lost in a kill, or by the queue.

        One that waits or is under way is not begun twice: its trajectories would share their ids.
        `live`: by index and `group id/sibling`, the accepted turns from which a trajectory can go on.
        """
        for index in indices:
            if index in self._under_way or index in self._again:
                continue
            self._again.append(index)
            self._known.update((live or {}).get(index, {}))
        self._freed.set()

    def wake(self) -> None:
        """Slots were freed."""
        self._freed.set()

    def outstanding(self) -> list[GroupUnderWay]:
        """The groups that were issued and not yet pushed, oldest first."""
        waiting = [self._group(index) for index in self._again]
        return sorted([*self._under_way.values(), *waiting], key=lambda group: group.index)

    @property
    def num_under_way(self) -> int:
        return len(self._under_way)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as groups:
            while True:
                while (index := self._next()) is not None:
                    group = self._under_way[index] = self._group(index)  # now: the task begins only later
                    groups.create_task(self._make(group), name=group.id)
                # No deadline of its own: `controller.update` watches over the progress of the whole.
                self._freed.clear()
                await self._freed.wait()

    def _next(self) -> int | None:
        if (index := next((one for one in self._again if one < self._slots.bound), None)) is not None:
            self._again.remove(index)
            return index
        if self._slots.free:
            return self._slots.take()
        return None

    def _group(self, index: int) -> GroupUnderWay:
        task, _ = self._order.task(index)
        return GroupUnderWay(id=group_name(self._run_id, index), index=index, task_id=task.id)

    async def _make(self, group: GroupUnderWay) -> None:
        index = group.index
        task, visit = self._order.task(index)
        self._note("issued", group=group.id, index=index, task=task.id)
        specs = [
            TrajectorySpec(
                run_id=self._run_id,
                group_id=group.id,
                group_index=index,
                task=task,
                sibling=sibling,
                attempt=0,
                sampling="train",
                visit=visit,
                thresholds=self._thresholds(index, sibling),
            )
            for sibling in range(self._group_size)
        ]
        group.trajectories = [spec.trajectory_id for spec in specs]

        def attempting(given_up: TrajectorySpec, spec: TrajectorySpec, reason: str) -> None:
            group.trajectories[spec.sibling] = spec.trajectory_id
            self._note("dropped", group=group.id, trajectories=[given_up.trajectory_id], reason=reason)

        plays = [
            self._player.play(spec, self._known.pop(f"{group.id}/{spec.sibling}", ()), attempting) for spec in specs
        ]
        trajectories = tuple(await asyncio.gather(*plays))
        finished = TrajectoryGroup(id=group.id, index=index, task=task, trajectories=trajectories)
        await self._push(finished)
        self._player.forget(trajectories)
        del self._under_way[index]
        self._note("queued", group=group.id, trajectories=[trajectory.id for trajectory in trajectories])
