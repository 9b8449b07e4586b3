"""Fetching the statistics of finished requests out of an engine's process, many with one call.

Owns: `ReplyStatistics`. Called by `actors.engine_replies`. Must not know: what the statistics say, sampling, weights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Fetch = Callable[[list[tuple[str, list[int]]], list[str]], Awaitable[list[dict[str, Any] | None]]]
"""(finished requests with the tokens of their replies, dropped requests) -> statistics of the finished ones."""


class FetchError(RuntimeError):
    """The engine did not hand the statistics of a request out."""


class ReplyStatistics:
    """One call at a time is under way; requests that finish meanwhile share the next one."""

    def __init__(self, fetch: Fetch, timeout_s: float) -> None:
        self._fetch, self._timeout_s = fetch, timeout_s
        self._finished: list[tuple[str, list[int], asyncio.Future[dict[str, Any] | None]]] = []
        self._dropped: list[str] = []
        self._worker: asyncio.Task[None] | None = None

    async def of(self, name: str, tokens: Sequence[int]) -> dict[str, Any] | None:
        """Statistics of a finished request, None if the engine knows nothing of it; the engine forgets it."""
        done: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._finished.append((name, list(tokens), done))
        self._work()
        return await done

    def drop(self, name: str) -> None:
        """The request will not be asked for: the engine forgets it, soon."""
        self._dropped.append(name)
        self._work()

    def stop(self) -> None:
        """The engine is gone; nothing is asked of it any more."""
        if self._worker is not None:
            self._worker.cancel()

    def _work(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._fetch_all())

    async def _fetch_all(self) -> None:
        while self._finished or self._dropped:
            await asyncio.sleep(0)  # requests that finished in the same engine step come together
            finished, self._finished = self._finished, []
            dropped, self._dropped = self._dropped, []
            try:
                named = [(name, tokens) for name, tokens, _ in finished]
                replies = await asyncio.wait_for(self._fetch(named, dropped), self._timeout_s)
                for (_, _, done), statistics in zip(finished, replies, strict=True):
                    if not done.done():
                        done.set_result(statistics)
            except Exception as error:
                for name, _, done in finished:
                    if not done.done():
                        done.set_exception(FetchError(f"request {name}: no statistics from the engine: {error!r}"))
