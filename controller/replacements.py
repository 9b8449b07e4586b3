"""Replacing parts that died: one replacement of a part at a time, again until it works or the budget is spent.

Owns: the restart budgets, who may replace a part now. Called by `controller.cluster`. Must not know: what a
part is or how it is started.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from controller.causes import cause_of

logger = logging.getLogger(__name__)

MAX_RESTARTS = 5
"""Restarts of one part in a run; one more death, or failed start, ends the run with its cause."""

RETRY_PAUSE_S = 2.0
"""Before a replacement that failed is tried again: what it needs (memory, the router) may be on its way."""


class PartLost(RuntimeError):
    """A part of the run died and cannot be replaced; the message names part and cause."""


class Replacements:
    """Of all parts of a run. `restarts`: how many there were, by part."""

    def __init__(self, retry_pause_s: float = RETRY_PAUSE_S) -> None:
        self.restarts: Counter[str] = Counter()
        self._retry_pause_s = retry_pause_s
        self._locks: dict[str, asyncio.Lock] = {}

    def under_way(self, name: str) -> bool:
        """Whether `name` is being replaced: its handle is that of a part which still starts, and not of a dead one."""
        return self._lock(name).locked()

    async def settled(self, name: str) -> None:
        """Returns when `name` is not being replaced. The wait ends: every step of a replacement has its deadline."""
        async with self._lock(name):
            pass

    async def replace(
        self, name: str, still_dead: Callable[[], bool], start: Callable[[], Awaitable[None]], cause: str
    ) -> None:
        """`start` until it succeeds, within the budget; then PartLost with the last cause.

        Does nothing when somebody else was faster: `still_dead` is asked once it is this caller's turn.
        """
        async with self._lock(name):
            if not still_dead():
                return
            while True:
                self.count(name, cause)
                logger.warning("%s is replaced (%d of %d): %s", name, self.restarts[name], MAX_RESTARTS, cause)
                try:
                    return await start()
                except Exception as error:  # the boundary that restarts: the next try is within the same budget
                    cause = f"its replacement failed: {cause_of(error)}"
                    logger.warning("%s: %s", name, cause)
                await asyncio.sleep(self._retry_pause_s)

    def count(self, name: str, cause: str) -> None:
        """One more restart of `name`. Raises PartLost when it is one too many."""
        self.restarts[name] += 1
        if self.restarts[name] > MAX_RESTARTS:
            raise PartLost(
                f"{name} had to be replaced {self.restarts[name]} times, the budget is {MAX_RESTARTS}; last: {cause}"
            )

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())
