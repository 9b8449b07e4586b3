"""Replacing a part: by one caller at a time, again after a failure, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from controller.replacements import PartLost, Replacements
from controller.restart_budget import RestartBudget
from controller.supervision_settings import SupervisionSettings

AT_ONCE = SupervisionSettings(restart_pause_s=0)


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
    replacements = Replacements(AT_ONCE)
    start, tries = failing(2)
    asyncio.run(replacements.replace("engine", lambda: True, start, "it died"))
    assert len(tries) == 3
    assert replacements.restarts["engine"] == 3


def test_replacements_spent_budget_ends_with_the_last_cause() -> None:
    replacements = Replacements(AT_ONCE)
    start, tries = failing(99)
    with pytest.raises(
        PartLost, match=r"engine .* budget is supervision.max_restarts = 5 .* last: .*no memory at try 5"
    ):
        asyncio.run(replacements.replace("engine", lambda: True, start, "it died"))
    assert len(tries) == AT_ONCE.max_restarts == 5


def test_replacements_second_caller_finds_the_part_alive() -> None:
    replacements = Replacements(AT_ONCE)
    start, tries = failing(0)

    async def both() -> None:
        calls = [replacements.replace("engine", lambda: not tries, start, "it died") for _ in range(2)]
        await asyncio.gather(*calls)

    asyncio.run(both())
    assert len(tries) == 1


def test_replacements_settled_waits_for_the_one_under_way() -> None:
    async def run() -> None:
        replacements = Replacements(AT_ONCE)
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


def test_restart_budget_forgets_what_lies_behind_the_window_and_pauses_longer_each_time() -> None:
    now = [0.0]
    settings = SupervisionSettings(max_restarts=4, restart_window_s=100.0, restart_pause_s=2.0, longest_pause_s=5.0)
    budget = RestartBudget(settings, lambda: now[0])
    pauses = []
    for moment in (0.0, 10.0, 20.0, 30.0, 40.0):
        now[0] = moment
        pauses.append(budget.spend())
    assert pauses == [0.0, 2.0, 4.0, 5.0, None]
    now[0] = 115.0  # the first two are forgotten
    assert budget.spend() == 4.0
    now[0] = 1000.0
    assert budget.spend() == 0.0


def test_restart_budget_of_restarts_in_vain_is_spent_however_long_each_of_them_takes() -> None:
    now = [0.0]
    budget = RestartBudget(SupervisionSettings(max_restarts=3, restart_window_s=10.0), lambda: now[0])
    answers = []
    for _ in range(4):
        answers.append(budget.spend(in_vain=bool(answers)))
        now[0] += 100.0
    assert answers[0] == 0.0 and None not in answers[:3] and answers[3] is None


def test_restart_budget_of_none_allows_none() -> None:
    assert RestartBudget(SupervisionSettings(max_restarts=0)).spend() is None
