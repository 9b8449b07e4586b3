"""Collecting the policy's trajectories: each is asked for once in all lives, and comes back in the order asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.rollout import TrajectorySpec
from controller import attempt_collection
from controller.attempt_collection import collect_attempts
from controller.attempts import Attempt
from controller.config import RunConfig, load_config
from controller.task_order import TaskOrder
from envs.panel import load_panel
from envs.records import Trajectory
from tests.unit.test_attempts_selection import trajectory

CONFIG: RunConfig = load_config(
    "alfworld",
    ["coldstart.source=policy", "coldstart.num_trajectories=10", "coldstart.samples_per_task=4",
     "inference.max_num_seqs=2"],
)  # fmt: skip


class Killed(Exception):
    pass


class SlowestFirst:
    """In the place of `controller.player.Player`: trajectories end in another order than they begin."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[TrajectorySpec] = []
        self.live = self.live_most = 0

    async def play(self, spec: TrajectorySpec) -> Trajectory:
        if len(self.asked) == self.most:
            raise Killed
        self.asked.append(spec)
        self.live += 1
        self.live_most = max(self.live_most, self.live)
        for _ in range(5 if spec.sibling % 2 == 0 else 1):
            await asyncio.sleep(0)
        self.live -= 1
        return replace(trajectory(1.0 if spec.sibling % 2 == 0 else 0.5), task=spec.task, sibling=spec.sibling)

    def forget(self, trajectories: tuple[Trajectory, ...]) -> None:
        pass


def collect(player: SlowestFirst, file: Path, monkeypatch: pytest.MonkeyPatch) -> list[Attempt]:
    def session(config: RunConfig, policy: Path, work: Any, say: Any, folder: Path | None = None) -> None:
        try:
            asyncio.run(work(player))
        except ExceptionGroup as error:
            raise error.exceptions[0] from None

    monkeypatch.setattr(attempt_collection, "play_session", session)
    return collect_attempts(CONFIG, file.parent, file, lambda line: None)


def test_all_are_played_in_the_run_s_order_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = SlowestFirst(100)
    found = collect(player, tmp_path / "attempts.jsonl", monkeypatch)
    assert [one.number for one in found] == list(range(10))
    order = TaskOrder(load_panel("alfworld", CONFIG.env.train_panel).tasks, CONFIG.seed)
    expected = [order.task(number // 4)[0].id for number in range(10)]
    assert [one.task_id for one in found] == expected
    assert [bool(one.turns) for one in found] == [number % 2 == 0 for number in range(4)] * 2 + [True, False]
    assert {spec.sampling for spec in player.asked} == {"train"}
    assert len({spec.seed_key(0) for spec in player.asked}) == 10, "siblings would reply the same"
    assert player.live_most == 3, "one and a half for each sequence of the engine"


@pytest.mark.parametrize("most", [1, 4, 9])
def test_after_a_kill_only_the_missing_ones_are_played(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "attempts.jsonl"
    whole = collect(SlowestFirst(100), tmp_path / "whole.jsonl", monkeypatch)
    killed = SlowestFirst(most)
    with pytest.raises(Killed):
        collect(killed, file, monkeypatch)
    kept = len(file.read_bytes().splitlines())
    again = SlowestFirst(100)
    found = collect(again, file, monkeypatch)
    assert len(again.asked) == 10 - kept and kept <= most
    assert len(file.read_bytes().splitlines()) == 10
    assert [(one.number, one.task_id, one.score, len(one.turns)) for one in found] == [
        (one.number, one.task_id, one.score, len(one.turns)) for one in whole
    ]
    assert collect(SlowestFirst(0), file, monkeypatch), "nothing is left to be played"
