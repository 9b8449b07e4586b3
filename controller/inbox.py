"""The driver's side of the replay queue: pushes from the rollouts, and the groups of the next step in order.

Owns: the threads in which the (synchronous) queue is called, the groups delivered and not yet trained, what the
queue has confirmed and still owes, and which entries may be acknowledged. Called by `controller.train`. Must not
know: Redis, training, checkpoints (it is told when one is committed).

A confirmed group can get lost all the same: its entry was damaged or deleted on the server, or the server came back
without its last writes. So what was confirmed before a pull and did not come with it is asked for by name; what the
queue does not hold any more has to be made again. What a foreign entry says of itself is never asked for anything.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from controller.deadline import DeadlineError
from controller.generation import index_of
from controller.replay_queue import Entry, ReplayQueue
from controller.step_groups import StepGroups
from envs.records import TrajectoryGroup

logger = logging.getLogger(__name__)

PULL_WAIT_S = 1.0
"""One wait for new entries; short, so that a stop is noticed."""


class Inbox:
    """Groups by index. `push` may be called by many coroutines, the rest by one."""

    def __init__(self, queue: ReplayQueue, max_pull: int) -> None:
        self._queue = queue
        self._max_pull = max_pull
        self._ready: dict[int, Entry] = {}
        self._owed: dict[int, str] = {}
        """Ids of groups that the queue confirmed and has not delivered yet."""
        self._next = 0
        """Groups below this index were taken."""
        self._latest = -1
        """The highest index that was ever delivered."""
        self._trained: list[str] = []
        self._pushers = ThreadPoolExecutor(2, thread_name_prefix="queue-push")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="queue-read")
        self.repeated = 0
        """Groups that the queue knew already, or that were delivered twice."""

    async def push(self, group: TrajectoryGroup) -> None:
        """Confirmed when it returns. Waits while the queue is full, unless it is full of groups that come later:
        they are trained after this one (a queue that outlived a damaged checkpoint may hold nothing else)."""
        needed = group.index < self._latest
        store = functools.partial(self._queue.push, group, even_if_full=needed)
        fresh = await asyncio.get_running_loop().run_in_executor(self._pushers, store)
        self.repeated += not fresh
        if group.index >= self._next and group.index not in self._ready:  # the delivery may be faster than the answer
            self._owed[group.index] = group.id

    async def recover(self, first_index: int) -> tuple[set[int], int]:
        """After a restart: what the queue holds. -> (indices of groups still to be trained, entries already trained).

        Entries below `first_index` are in the committed checkpoint: the run died between commit and acknowledgement.
        """
        self._next = first_index
        entries = await self._read(self._queue.recover)
        while batch := await self._read(lambda: self._queue.pull(self._max_pull, 0.0)):
            entries += batch
        old = [entry.entry_id for entry in entries if entry.group.index < first_index]
        if old:
            await self._read(lambda: self._queue.acknowledge(old))
        # Groups that are to be trained and whose entries are gone: acknowledged for a newer checkpoint, which was then
        # damaged, or moved aside just now. They are made again, so the queue has to take them again.
        gone = [name for name in await self._read(self._queue.acknowledged) if index_of(name) >= first_index]
        if gone:
            await self._read(lambda: self._queue.forget(gone))
        self._keep(entry for entry in entries if entry.group.index >= first_index)
        return set(self._ready), len(old)

    async def take(
        self, step: StepGroups, timeout_s: float, damaged: Callable[[list[str]], None], come_round: Callable[[], None]
    ) -> list[TrajectoryGroup]:
        """The groups of the next step, in order of index. `damaged` gets the ids of those that must be made again."""
        deadline = time.monotonic() + timeout_s
        while missing := self._missing(step):
            if time.monotonic() > deadline:
                raise DeadlineError(f"groups {missing}: not in the queue within {timeout_s:g} s")
            if lost := await self._pull():
                logger.warning("the queue confirmed %s and does not hold them any more: made again", ", ".join(lost))
                damaged(lost)
            come_round()
        entries = [self._ready.pop(index) for index in step.indices]
        self._trained += [entry.entry_id for entry in entries]
        self._next = step.indices.stop
        return [entry.group for entry in entries]

    def _missing(self, step: StepGroups) -> list[int]:
        """Groups of the step that are not there. Those that are there are judged, which may make the step longer."""
        while new := [index for index in step.indices if index in self._ready and not step.is_judged(index)]:
            for index in new:
                step.judge(self._ready[index].group)
        return [index for index in step.indices if index not in self._ready]

    async def _pull(self) -> list[str]:
        """One wait for entries. -> ids of groups that the queue confirmed and lost."""
        owed = dict(self._owed)  # before the pull: what is confirmed meanwhile may rightly come with the next one
        entries = await self._read(lambda: self._queue.pull(self._max_pull, PULL_WAIT_S))
        self._keep(entries)
        overdue = {index: name for index, name in owed.items() if index in self._owed}
        if not overdue or len(entries) == self._max_pull:
            return []

        def ask() -> list[str]:
            states = self._queue.states(overdue.values())
            lost = [name for name in overdue.values() if states[name] != "queued"]
            self._queue.forget(lost)  # an entry that somebody else deleted counts as acknowledged, and is refused
            return lost

        lost: list[str] = await self._read(ask)
        for name in lost:
            del self._owed[index_of(name)]
        return lost

    async def committed(self) -> int:
        """Everything taken so far is in a committed checkpoint: acknowledge it; how many entries."""
        done, self._trained = self._trained, []
        if done:
            await self._read(lambda: self._queue.acknowledge(done))
        return len(done)

    async def depth(self) -> int:
        """Entries in the queue, those that wait for a checkpoint included."""
        return await self._read(self._queue.depth)

    async def num_foreign(self) -> int:
        """Entries that were ever moved aside in this run because they were none of its groups."""
        counts: dict[str, int] = await self._read(self._queue.foreign_counts)
        return sum(counts.values())

    @property
    def num_trained(self) -> int:
        """Entries whose places in the queue become free with the next commit."""
        return len(self._trained)

    @property
    def num_ready(self) -> int:
        """Groups delivered and not yet trained."""
        return len(self._ready)

    def _keep(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._latest = max(self._latest, entry.group.index)
            index = entry.group.index
            self._owed.pop(index, None)
            if index >= self._next and index not in self._ready:
                self._ready[index] = entry
            else:  # a server that came back without its last writes brings back what was acknowledged
                self.repeated += 1
                self._trained.append(entry.entry_id)

    async def _read(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._reader, function)

    async def discard(self) -> None:
        """Nothing of the run stays in the server. Nobody pushes any more; what is being pushed is waited for."""
        await asyncio.to_thread(self._pushers.shutdown, wait=True, cancel_futures=True)
        await self._read(self._queue.discard)

    def close(self) -> None:
        self._pushers.shutdown(wait=False, cancel_futures=True)
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._queue.close()
