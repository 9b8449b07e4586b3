"""Something that is done every second beside the work: whoever watches sees that the event loop is alive.

Owns: the rhythm, and that work and beat end together. Called by `controller.train`. Must not know: what either does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")

EVERY_S = 1.0


async def beating(work: Awaitable[Result], beat: Callable[[], None]) -> Result:
    """The result of `work`, with `beat` called every second until then. What `beat` raises ends the work."""
    working = asyncio.ensure_future(work)
    rhythm = asyncio.ensure_future(_beat_for_ever(beat))
    try:
        await asyncio.wait({working, rhythm}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await rhythm  # raises: it ends only by a failure
        return working.result()
    finally:
        for task in (working, rhythm):
            task.cancel()
        await asyncio.gather(working, rhythm, return_exceptions=True)


async def _beat_for_ever(beat: Callable[[], None]) -> None:
    while True:
        beat()
        await asyncio.sleep(EVERY_S)
