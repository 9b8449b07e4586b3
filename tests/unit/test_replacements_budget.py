"""Replacing a part: by one caller at a time, again after a failure, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from controller.replacements import MAX_RESTARTS, PartLost, Replacements


def failing(times: int) -> tuple[Callable[[], Awaitable[None]], list[int]]:
    """A start that fails so often before it succeeds, and the list of its tries."""
    tries: list[int] = []

    async def start() -> None:
        tries.append(len(tries))
        await asyncio.sleep(0)
        if len(tries) <= times:
            raise OSError(f"no memory at try {len(tries)}")

    return start, tries


def test_replacements_failed_start_is_tried_again() -> None:
    replacements = Replacements(retry_pause_s=0)
    start, tries = failing(2)
    asyncio.run(replacements.replace("engine", lambda: True, start, "it died"))
    assert len(tries) == 3
    assert replacements.restarts["engine"] == 3


def test_replacements_spent_budget_ends_with_the_last_cause() -> None:
    replacements = Replacements(retry_pause_s=0)
    start, tries = failing(99)
    with pytest.raises(PartLost, match=rf"engine .* budget is {MAX_RESTARTS}; last: .*no memory at try {MAX_RESTARTS}"):
        asyncio.run(replacements.replace("engine", lambda: True, start, "it died"))
    assert len(tries) == MAX_RESTARTS


def test_replacements_second_caller_finds_the_part_alive() -> None:
    replacements = Replacements(retry_pause_s=0)
    start, tries = failing(0)

    async def both() -> None:
        calls = [replacements.replace("engine", lambda: not tries, start, "it died") for _ in range(2)]
        await asyncio.gather(*calls)

    asyncio.run(both())
    assert len(tries) == 1


def test_replacements_settled_waits_for_the_one_under_way() -> None:
    async def run() -> None:
        replacements = Replacements(retry_pause_s=0)
        up = asyncio.Event()

        async def start() -> None:
            await up.wait()

        replacing = asyncio.create_task(replacements.replace("engine", lambda: True, start, "it died"))
        await asyncio.sleep(0)
        assert replacements.under_way("engine")
        assert not replacements.under_way("environment"), "each part by itself"
        waiting = asyncio.create_task(replacements.settled("engine"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        up.set()
        await asyncio.gather(replacing, waiting)
        assert not replacements.under_way("engine")

    asyncio.run(run())
