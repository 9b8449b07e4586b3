"""Waiting with a deadline and a name: no part of the controller waits without both.

Owns: `bounded`, the error it raises, and the list of the waits that are under way in this process. Called by whoever
waits for another process; the list is read for the live view (`controller.stall_cause`). Must not know: what is waited
for, when a wait is too long.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


class DeadlineError(RuntimeError):
    """Something did not happen in time; the message says what, and how long it was waited for."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait under way: "part: what it is to do", for so many seconds by now, at most `timeout_s` (inf: its parts have
    deadlines of their own)."""

    what: str
    for_s: float
    timeout_s: float = math.inf

    @property
    def part(self) -> str:
        """Who is waited for; empty where the name of the wait names no part."""
        part, colon, _ = self.what.partition(": ")
        return part if colon else ""

    @property
    def task(self) -> str:
        """What it is to do."""
        return self.what.partition(": ")[2] or self.what


_under_way: dict[int, tuple[str, float, float]] = {}
"""(what, since, timeout_s), in the order of their beginnings; of the process, as a person wants to see them all."""
_numbers = itertools.count()


@contextmanager
def noted(what: str, timeout_s: float = math.inf) -> Iterator[None]:
    """While it lasts, the block is one of `waits_under_way`. For waits with deadlines of their own; from any thread."""
    number = next(_numbers)
    _under_way[number] = (what, time.monotonic(), timeout_s)
    try:
        yield
    finally:
        del _under_way[number]


def waits_under_way(now: float | None = None) -> list[Wait]:
    """What this process waits for at `now` (monotonic seconds), the longest first."""
    now = time.monotonic() if now is None else now
    return [Wait(what, max(0.0, now - since), timeout_s) for what, since, timeout_s in list(_under_way.values())]


async def bounded(waiting: Awaitable[Result], timeout_s: float, what: str) -> Result:
    """The result of `waiting` (a coroutine, future or Ray reference), or DeadlineError naming `what`: "part: what it is
    to do"."""
    scope = asyncio.timeout(timeout_s)
    try:
        with noted(what, timeout_s):
            async with scope:
                return await waiting
    except TimeoutError as error:
        if scope.expired():
            raise DeadlineError(f"{what}: not done within {timeout_s:g} s") from error
        raise
