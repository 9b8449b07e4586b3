"""Shares of time: unions of overlapping spans, open spans, other processes' spans, and what is left over."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from actors.busy_spans import BusySpans
from actors.env_pool import EnvPool
from actors.inference import InferenceServer
from actors.rollout import PlaySettings, TrajectorySpec
from controller.busy import BusyMeter
from controller.live_view import BUSY
from controller.metric_definitions import METRICS
from controller.update import PARTS
from envs.records import SignalRange, Turn, TurnReply, TurnRequest
from envs.settings import EnvSettings
from tests.fakes import Corridor, WordTokenizer, make_candidate, make_task


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_busy_shares_of_overlapping_parts() -> None:
    clock = Clock()
    meter = BusyMeter(clock)
    with meter.span("generation"):
        clock.now += 4
        with meter.span("learner"):
            clock.now += 2
    with meter.span("learner"), meter.span("learner"):
        clock.now += 1
    clock.now += 3
    shares, seconds = meter.shares(["generation", "learner"])
    assert seconds == 10
    assert shares == pytest.approx({"generation": 0.6, "learner": 0.3, "idle": 0.3})


def test_busy_open_spans_are_cut_at_the_period() -> None:
    clock = Clock()
    meter = BusyMeter(clock)
    span = meter.span("generation")
    span.__enter__()
    clock.now += 2
    assert meter.shares(["generation"])[0] == pytest.approx({"generation": 1.0, "idle": 0.0})
    clock.now += 1
    span.__exit__(None, None, None)
    clock.now += 3
    assert meter.shares(["generation"])[0] == pytest.approx({"generation": 0.25, "idle": 0.75})


def test_busy_spans_of_two_engines_and_the_learner_are_laid_over_each_other() -> None:
    clock = Clock()
    meter = BusyMeter(clock)
    clock.now += 10
    meter.add("generation", [(100, 104)])
    meter.add("generation", [(103, 105), (90, 101)])
    meter.add("environments", [(104, 106)])
    shares, _ = meter.shares(["generation", "environments"])
    assert shares == pytest.approx({"generation": 0.5, "environments": 0.2, "idle": 0.4})


def test_busy_spans_after_the_end_of_a_step_count_in_the_next_one() -> None:
    """The actors are asked after the end was noted, and their answers take their time."""
    clock = Clock()
    meter = BusyMeter(clock)
    clock.now += 4
    until = meter.now()
    clock.now += 2
    meter.add("generation", [(103, 106)])
    assert meter.shares(["generation"], until) == (pytest.approx({"generation": 0.25, "idle": 0.75}), 4)
    assert meter.shares(["generation"]) == (pytest.approx({"generation": 1.0, "idle": 0.0}), 2)


def test_busy_spans_are_taken_once() -> None:
    clock = Clock()
    busy = BusySpans(clock)
    busy.switch(True)
    busy.switch(True)
    clock.now += 1
    assert busy.take() == [(100, 101)]
    clock.now += 1
    busy.switch(False)
    busy.switch(False)
    clock.now += 1
    assert busy.take() == [(101, 102)]
    assert busy.take() == []


def test_busy_engine_is_one_that_answers_and_not_one_that_stands_still() -> None:
    """Requests in flight while new weights go in are not served; what is in flight no more is not either."""
    answer = asyncio.Event()
    server, clock = InferenceServer(), Clock()
    server._busy = BusySpans(clock)

    async def reply(*arguments: Any) -> Any:
        await answer.wait()

    async def run() -> list[tuple[float, float]]:
        server._reply = reply  # type: ignore[method-assign]
        server._enter("ready")
        clock.now = 101
        sampling: Any = None
        requests = [
            asyncio.create_task(server.generate(str(number), [1], 0, SignalRange(), sampling)) for number in range(2)
        ]
        await asyncio.sleep(0)
        clock.now = 103
        server._enter("updating")
        clock.now = 106
        server._enter("ready")
        clock.now = 107
        answer.set()
        await asyncio.gather(*requests)
        await asyncio.sleep(0)
        clock.now = 110
        return await server.busy_spans()

    assert asyncio.run(run()) == [(101, 103), (106, 107)]


class SlowCorridor(Corridor):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        time.sleep(0.03)
        return super().step(action)


def test_busy_environments_are_those_that_step_and_not_those_that_wait_for_a_turn() -> None:
    async def ask(request: TurnRequest, sampling: str, unseen: tuple[Turn, ...]) -> TurnReply:
        await asyncio.sleep(0.1)
        return TurnReply(accepted=make_candidate(), rejected=())

    settings = PlaySettings(env=EnvSettings(max_turns=6), prompt_tokens=1000, env_step_timeout_s=5.0)
    spec = TrajectorySpec(
        run_id="r", group_id="r-g0", group_index=0, task=make_task(), sibling=0, attempt=0, sampling="train"
    )

    async def run() -> tuple[float, float]:
        pool = EnvPool(settings, WordTokenizer(), SlowCorridor, ask)
        trajectory = await pool.run(spec)
        assert len(trajectory.turns) == 3
        return sum(end - start for start, end in pool.busy.take()), trajectory.duration_s

    stepping_s, whole_s = asyncio.run(run())
    assert 3 * 0.03 <= stepping_s <= whole_s - 3 * 0.1 + 0.01


def test_busy_parts_are_the_ones_defined_and_shown() -> None:
    assert [*PARTS, "idle"] == list(BUSY)
    assert [f"busy_{part}" for part in BUSY] == [name for name in METRICS if name.startswith("busy_")]
