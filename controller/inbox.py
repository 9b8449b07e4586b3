"""The driver's side of the replay queue: pushes from the rollouts, and the groups of the next step in order.

Owns: the threads in which the (synchronous) queue is called, the groups delivered and not yet trained, and
which entries may be acknowledged. Called by `controller.train`. Must not know: Redis, training, checkpoints
(it is told when one is committed).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from controller.deadline import DeadlineError
from controller.generation import index_of
from controller.replay_queue import Entry, ReplayQueue
from envs.records import TrajectoryGroup

PULL_WAIT_S = 1.0
"""One wait for new entries; short, so that a stop is noticed."""


class Inbox:
    """Groups by index. `push` may be called by many coroutines, the rest by one."""

    def __init__(self, queue: ReplayQueue, max_pull: int) -> None:
        self._queue = queue
        self._max_pull = max_pull
        self._ready: dict[int, Entry] = {}
        self._trained: list[str] = []
        self._pushers = ThreadPoolExecutor(2, thread_name_prefix="queue-push")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="queue-read")
        self.repeated = 0
        """Groups that the queue knew already, or that were delivered twice."""

    async def push(self, group: TrajectoryGroup) -> None:
        """Confirmed when it returns. Waits while the queue is full."""
        fresh = await asyncio.get_running_loop().run_in_executor(self._pushers, self._queue.push, group)
        self.repeated += not fresh

    async def recover(self, first_index: int) -> tuple[set[int], int]:
        """After a restart: what the queue holds. -> (indices of groups still to be trained, entries already trained).

        Entries below `first_index` are in the committed checkpoint: the run died between commit and acknowledgement.
        """
        gone = [name for name in await self._read(self._queue.acknowledged) if index_of(name) >= first_index]
        if gone:  # the newest checkpoint was damaged: groups of steps after the one before it are made again
            await self._read(lambda: self._queue.forget(gone))
        entries = await self._read(self._queue.recover)
        while batch := await self._read(lambda: self._queue.pull(self._max_pull, 0.0)):
            entries += batch
        old = [entry.entry_id for entry in entries if entry.group.index < first_index]
        if old:
            await self._read(lambda: self._queue.acknowledge(old))
        self._keep(entry for entry in entries if entry.group.index >= first_index)
        return set(self._ready), len(old)

    async def take(
        self, indices: list[int], timeout_s: float, damaged: Callable[[list[str]], None], come_round: Callable[[], None]
    ) -> list[TrajectoryGroup]:
        """The groups of one step, in order of index. `damaged` gets the ids of entries that could not be read."""
        deadline = time.monotonic() + timeout_s
        while missing := [index for index in indices if index not in self._ready]:
            if time.monotonic() > deadline:
                raise DeadlineError(f"groups {missing}: not in the queue within {timeout_s:g} s")
            self._keep(await self._read(lambda: self._queue.pull(self._max_pull, PULL_WAIT_S)))
            if lost := [foreign.group_id for foreign in self._queue.take_foreign() if foreign.group_id]:
                damaged(lost)
            come_round()
        entries = [self._ready.pop(index) for index in indices]
        self._trained += [entry.entry_id for entry in entries]
        return [entry.group for entry in entries]

    async def committed(self) -> int:
        """Everything taken so far is in a committed checkpoint: acknowledge it; how many entries."""
        done, self._trained = self._trained, []
        if done:
            await self._read(lambda: self._queue.acknowledge(done))
        return len(done)

    async def depth(self) -> int:
        """Entries in the queue, those that wait for a checkpoint included."""
        return await self._read(self._queue.depth)

    @property
    def trained_entries(self) -> list[str]:
        """Entries that were taken and are in no committed checkpoint yet."""
        return list(self._trained)

    @property
    def num_ready(self) -> int:
        """Groups delivered and not yet trained."""
        return len(self._ready)

    def _keep(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.group.index in self._ready:
                self.repeated += 1
            else:
                self._ready[entry.group.index] = entry

    async def _read(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._reader, function)

    async def discard(self) -> None:
        """The run is over: nothing of it stays in the server."""
        await self._read(self._queue.discard)

    def close(self) -> None:
        self._pushers.shutdown(wait=False, cancel_futures=True)
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._queue.close()
