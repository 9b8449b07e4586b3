"""Replacing parts that died: one replacement of a part at a time, again until it works or the budget is spent.

Owns: who may replace a part now, how many restarts there were. Called by `controller.cluster`. Must not know: what a
part is or how it is started.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from controller.causes import cause_of
from controller.restart_budget import RestartBudget
from controller.supervision_settings import SupervisionSettings

logger = logging.getLogger(__name__)


class PartLost(RuntimeError):
    """A part of the run died and cannot be replaced; the message names part and cause."""


class Replacements:
    """Of all parts of a run. `restarts`: how many there were, by part, those of earlier lives of the run included."""

    def __init__(self, settings: SupervisionSettings | None = None) -> None:
        self.restarts: Counter[str] = Counter()
        self._settings = settings or SupervisionSettings()
        self._budgets: dict[str, RestartBudget] = {}
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
            in_vain = False
            while True:
                pause_s = self.count(name, cause, in_vain=in_vain)
                number = self._budgets[name].num_spent
                logger.warning("%s is replaced (%d of %s): %s", name, number, self._budgets[name], cause)
                # What a replacement that failed needs (memory, the router) may be on its way.
                await asyncio.sleep(pause_s)
                try:
                    return await start()
                except Exception as error:  # the boundary that restarts: the next try is within the same budget
                    cause = f"its replacement failed: {cause_of(error)}"
                    logger.warning("%s: %s", name, cause)
                    in_vain = True

    def count(self, name: str, cause: str, *, in_vain: bool = False) -> float:
        """One more restart of `name`: seconds to wait before it. Raises PartLost when it is one too many."""
        budget = self._budgets.setdefault(name, RestartBudget(self._settings))
        pause_s = budget.spend(in_vain=in_vain)
        if pause_s is None:
            raise PartLost(f"{name} is not started again, the budget is {budget}; last: {cause}")
        self.restarts[name] += 1
        return pause_s

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())
