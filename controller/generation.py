"""Generation: takes a slot, plays the siblings of the next task, pushes the finished group.

Owns: which group is issued when, and the groups under way. Called by `controller.train`; runs beside
`controller.update` until it is cancelled. Must not know: training, weights, checkpoints.

Each group is a coroutine of its own; nothing waits for a batch. A group whose push was confirmed is safe:
whoever resumes the run finds it in the queue.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from actors.rollout import TrajectorySpec
from controller.player import Player
from controller.slots import GroupSlots
from controller.task_order import TaskOrder
from envs.records import TrajectoryGroup

Push = Callable[[TrajectoryGroup], Awaitable[None]]
Note = Callable[[str, TrajectoryGroup | int], None]


def group_id(run_id: str, index: int) -> str:
    """Deterministic: the same group of the same run has the same id in every life of the run."""
    return f"{run_id}-g{index:06d}"


class Generation:
    """Runs until cancelled; a group that cannot be made ends it with the cause."""

    def __init__(
        self,
        run_id: str,
        group_size: int,
        num_groups: int,
        player: Player,
        slots: GroupSlots,
        order: TaskOrder,
        push: Push,
        note: Note,
    ) -> None:
        """`num_groups`: how many groups the whole run trains; none beyond is issued. `note(event, what)`: the audit."""
        self._run_id = run_id
        self._group_size = group_size
        self._num_groups = num_groups
        self._player = player
        self._slots = slots
        self._order = order
        self._push = push
        self._note = note
        self._again: deque[int] = deque()
        self._freed = asyncio.Event()
        self.under_way: set[int] = set()
        self.started_at: dict[int, float] = {}

    def again(self, indices: Iterable[int]) -> None:
        """Groups that hold a slot already and have to be made (again): lost in a kill, or damaged in the queue."""
        self._again.extend(indices)
        self._freed.set()

    def wake(self) -> None:
        """Slots were freed."""
        self._freed.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as groups:
            while True:
                while (index := self._next()) is not None:
                    groups.create_task(self._make(index), name=group_id(self._run_id, index))
                # The deadline of this wait is the optimizer step's: `controller.update` watches over progress.
                self._freed.clear()
                await self._freed.wait()

    def _next(self) -> int | None:
        if self._again:
            return self._again.popleft()
        if self._slots.free and self._slots.next_index < self._num_groups:
            return self._slots.take()
        return None

    async def _make(self, index: int) -> None:
        task, visit = self._order.task(index)
        name = group_id(self._run_id, index)
        self._note("issued", index)
        self.under_way.add(index)
        self.started_at[index] = time.monotonic()
        specs = [
            TrajectorySpec(
                run_id=self._run_id,
                group_id=name,
                group_index=index,
                task=task,
                sibling=sibling,
                attempt=0,
                sampling="train",
                visit=visit,
            )
            for sibling in range(self._group_size)
        ]
        trajectories = tuple(await asyncio.gather(*(self._player.play(spec) for spec in specs)))
        group = TrajectoryGroup(id=name, index=index, task=task, trajectories=trajectories)
        await self._push(group)
        self._player.forget(trajectories)
        self.under_way.discard(index)
        self.started_at.pop(index, None)
        self._note("queued", group)
