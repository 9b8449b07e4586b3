"""Every wait has a deadline and a name."""

from __future__ import annotations

import asyncio
import time

import pytest

from controller.deadline import DeadlineError, bounded, noted, waits_under_way


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


def test_deadline_wait_is_known_while_it_lasts() -> None:
    async def run() -> None:
        waiting = asyncio.create_task(bounded(asyncio.sleep(30), 60, "inference-1: starting"))
        await asyncio.sleep(0)
        with noted("queue: pull"):
            waits = waits_under_way(now=time.monotonic() + 41.0)
            assert [wait.what for wait in waits] == ["inference-1: starting", "queue: pull"], "the longest first"
            assert waits[0].for_s >= 41.0
            assert (waits[0].part, waits[0].task, waits[0].timeout_s) == ("inference-1", "starting", 60)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waits_under_way() == []

    asyncio.run(run())


def test_deadline_wait_is_forgotten_when_it_fails() -> None:
    async def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(bounded(work(), 5, "work"))
    with pytest.raises(DeadlineError):
        asyncio.run(bounded(asyncio.sleep(30), 0.01, "work"))
    assert waits_under_way() == []
