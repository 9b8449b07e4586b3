"""Work with something beside it: the two end together, and a failure of either is the failure of both.

Owns: `beside`, and the beat that shows that the event loop is alive. Called by `controller.train` and
`controller.cluster`. Must not know: what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")

EVERY_S = 1.0


async def beside(work: Awaitable[Result], companion: Awaitable[object]) -> Result:
    """The result of `work`; `companion` runs until then. It ends only by a failure, which ends the work."""
    working = asyncio.ensure_future(work)
    accompanying = asyncio.ensure_future(companion)
    try:
        await asyncio.wait({working, accompanying}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await accompanying  # raises
        return working.result()
    finally:
        for task in (working, accompanying):
            task.cancel()
        await asyncio.gather(working, accompanying, return_exceptions=True)


async def beating(work: Awaitable[Result], beat: Callable[[], None]) -> Result:
    """The result of `work`, with `beat` called every EVERY_S seconds until then. What `beat` raises ends the work."""
    return await beside(work, _beat_for_ever(beat))


async def _beat_for_ever(beat: Callable[[], None]) -> None:
    while True:
        beat()
        await asyncio.sleep(EVERY_S)
