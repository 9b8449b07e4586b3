"""Every wait has a deadline and a name."""

from __future__ import annotations

import asyncio

import pytest

from controller.deadline import DeadlineError, bounded


def test_deadline_names_what_was_waited_for_and_cancels_it() -> None:
    async def run() -> None:
        event = asyncio.ensure_future(asyncio.sleep(30))
        with pytest.raises(DeadlineError, match=r"engine: starting: not done within 0\.01 s"):
            await bounded(event, 0.01, "engine: starting")
        assert event.cancelled()

    asyncio.run(run())


def test_deadline_does_not_hide_a_timeout_of_the_work_itself() -> None:
    async def work() -> None:
        raise TimeoutError("socket")

    with pytest.raises(TimeoutError, match="socket"):
        asyncio.run(bounded(work(), 5, "work"))


def test_deadline_returns_the_result() -> None:
    async def work() -> int:
        return 7

    assert asyncio.run(bounded(work(), 5, "work")) == 7
