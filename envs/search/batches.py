"""Requests that arrive together are searched for together.

Owns: `Batches`: the queue, the gathering, the threads that search. Called by `server`. Must not know: HTTP, what is
searched. An index may use the whole batch at once, and the event loop stays free while it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from envs.search.corpus import Passage

SearchMany = Callable[[Sequence[str], int], list[list[Passage]]]


class TooBusy(RuntimeError):
    """More queries are waiting than allowed."""


@dataclass(slots=True)
class _Waiting:
    queries: Sequence[str]
    k: int
    found: asyncio.Future[list[list[Passage]]]


class Batches:
    """Gathers what arrives within `window_s` of the first request, or while all `threads` are busy, up to `largest`
    queries a batch (a single request may be larger). `on_batch` is told the number of queries of each."""

    def __init__(
        self,
        search_many: SearchMany,
        *,
        window_s: float,
        largest: int,
        most_waiting: int,
        threads: int,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._search_many = search_many
        self._window_s = window_s
        self._largest = largest
        self._most_waiting = most_waiting
        self._on_batch = on_batch
        self._arrived: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._free = asyncio.Semaphore(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._running: set[asyncio.Task[None]] = set()
        self._gathering = asyncio.create_task(self._gather())
        self.num_waiting = 0
        """Queries that have arrived and are not answered yet."""

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """One list a query. Raises TooBusy, and what the search raises."""
        if self.num_waiting + len(queries) > self._most_waiting:
            raise TooBusy(f"{self.num_waiting} queries are waiting, {self._most_waiting} may")
        waiting = _Waiting(queries, k, asyncio.get_running_loop().create_future())
        self.num_waiting += len(queries)
        try:
            self._arrived.put_nowait(waiting)
            return await waiting.found
        finally:
            self.num_waiting -= len(queries)

    async def close(self) -> None:
        """Stop gathering; the batches under way are finished."""
        self._gathering.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _gather(self) -> None:
        while True:
            batch = [await self._arrived.get()]
            await asyncio.sleep(self._window_s)
            await self._free.acquire()
            size = len(batch[0].queries)
            while not self._arrived.empty() and size < self._largest:
                batch.append(self._arrived.get_nowait())
                size += len(batch[-1].queries)
            task = asyncio.create_task(self._answer(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, batch: list[_Waiting]) -> None:
        try:
            wanted = [waiting for waiting in batch if not waiting.found.done()]  # who has left is not searched for
            if not wanted:
                return
            queries = [query for waiting in wanted for query in waiting.queries]
            self._on_batch(len(queries))
            most = max(waiting.k for waiting in wanted)
            loop = asyncio.get_running_loop()
            try:
                answers = await loop.run_in_executor(self._pool, self._search_many, queries, most)
            except Exception as error:
                for waiting in wanted:
                    if not waiting.found.done():
                        waiting.found.set_exception(error)
                return
            place = 0
            for waiting in wanted:
                mine = answers[place : place + len(waiting.queries)]
                place += len(waiting.queries)
                if not waiting.found.done():
                    waiting.found.set_result([found[: waiting.k] for found in mine])
        finally:
            self._free.release()
