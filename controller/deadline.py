"""Waiting with a deadline and a name: no part of the controller waits without both.

Owns: `bounded` and the error it raises. Called by every coroutine of the controller that waits for
another process. Must not know: what is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


class DeadlineError(RuntimeError):
    """Something did not happen in time; the message says what, and how long it was waited for."""


async def bounded(waiting: Awaitable[Result], timeout_s: float, what: str) -> Result:
    """The result of `waiting` (a coroutine, future or Ray reference), or DeadlineError naming `what`."""
    scope = asyncio.timeout(timeout_s)
    try:
        async with scope:
            return await waiting
    except TimeoutError as error:
        if scope.expired():
            raise DeadlineError(f"{what}: not done within {timeout_s:g} s") from error
        raise
