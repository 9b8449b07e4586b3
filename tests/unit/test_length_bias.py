"""Retries do not change how long the trained trajectories are: the real Player and the real turn loop, with failures.

Seeds follow from names, so the same trajectories must come out: equality, no statistics. A failure that no attempt can
get past ends the run, it drops nothing.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from actors.rollout import EnvFailure, PlaySettings, TrajectorySpec, run_trajectory
from actors.settings import RolloutSettings, TDSSettings
from controller.audit import AuditReport, judge
from controller.length_bias import LengthBias, length_bias, lengths_of, main
from controller.player import Player, TrajectoryFailed
from controller.router import Router, RouterSettings
from controller.run_folder import RunFolderError
from envs.records import Trajectory, Turn, TurnReply, TurnRequest
from envs.seeds import derive_seed
from envs.settings import EnvSettings
from tests.fakes import Corridor, FakeServer, WordTokenizer, make_candidate, make_task
from tests.unit.fake_actors import Handle

SIZE = 60
STEPS = {False: "<think>hm</think><action>left</action>", True: "<think>go</think><action>right</action>"}
PLAY = PlaySettings(env=EnvSettings(name="alfworld", max_turns=40, memory=2), prompt_tokens=200, env_step_timeout_s=5.0)


def spec_of(number: int) -> TrajectorySpec:
    return TrajectorySpec(
        run_id="r", group_id=f"r-g{number // 4}", group_index=number // 4, task=make_task(number // 4),
        sibling=number % 4, attempt=0, sampling="train",
    )  # fmt: skip


class Scene:
    """Environment actors that fail by chance, before or after a turn; router, player, turn loop are the real ones."""

    def __init__(self, failure_rate: float, turn_s: float = 0.0, **rollout: Any) -> None:
        self.chance = random.Random(3)
        self.failure_rate = failure_rate
        knobs = RouterSettings(
            run_seed=0, tds=TDSSettings(eta=0.2, max_candidates=2), sampling={"train": None, "eval": None},
            tds_in_eval=False, request_timeout_s=5, turn_timeout_s=5,
        )  # fmt: skip
        # What a reply says follows from its seed alone, as in an engine with the same weights.
        server = FakeServer(
            "inference-0", lambda _, seed: replace(make_candidate(STEPS[seed % 3 > 0], seed / 2**31), seed=seed), turn_s
        )
        self.router = Router([server], knobs)
        self.config = SimpleNamespace(rollout=RolloutSettings(**{"max_attempts": 1000, **rollout}))
        self.env = {f"env-{index}": Handle(self) for index in range(3)}
        self.leaving: set[str] = set()
        self.router_handle = SimpleNamespace(
            live=SimpleNamespace(remote=self._live),
            forget=SimpleNamespace(remote=lambda names: [self.router.forget(name) for name in names]),
        )
        self.given_up: list[str] = []
        self.player = Player(SimpleNamespace(
            config=self.config, env=self.env, leaving=self.leaving, routers=[self.router_handle],
            revive_env=self._revive,
        ))  # type: ignore[arg-type]  # fmt: skip

    async def _live(self, name: str) -> tuple[Turn, ...]:
        return self.router.live(name)

    async def _revive(self, name: str, dead: Any, cause: str) -> None:
        return None

    async def run(self, spec: TrajectorySpec, replay: tuple[Turn, ...]) -> Trajectory:
        unseen: list[Turn] = []

        async def request_turn(request: TurnRequest) -> TurnReply:
            self._fail()
            turns = tuple(unseen)
            reply = await self.router.request_turn(request, spec.sampling, turns)
            del unseen[: len(turns)]
            self._fail()  # the router knows the reply's predecessors, not the reply
            return reply

        length = 2 + derive_seed(spec.task.id, spec.sibling) % 9
        return await run_trajectory(
            Corridor(length), spec, WordTokenizer(), PLAY, request_turn, replay, on_turn=unseen.append
        )

    def _fail(self) -> None:
        if self.chance.random() < self.failure_rate:
            raise self.chance.choice([ActorDiedError(), RayTaskError("run", "", EnvFailure("the lamp broke"))])

    async def play(self, number: int) -> Trajectory:
        return await self.player.play(
            spec_of(number), attempting=lambda old, new, reason: self.given_up.append(old.trajectory_id)
        )

    def play_all(self) -> list[Trajectory]:
        async def run() -> list[Trajectory]:
            return await asyncio.gather(*(self.play(number) for number in range(SIZE)))

        return asyncio.run(run())


def content(trajectory: Trajectory) -> list[Any]:
    """Everything but the number of the attempt."""
    return [
        (turn.action, turn.observation, turn.accepted.seed, len(turn.rejected), np.asarray(turn.prompt_ids).shape)
        for turn in trajectory.turns
    ]


def test_length_bias_is_none_with_failures_by_chance() -> None:
    """One turn in five ends in a failure, so the longest trajectories fail most, and some ten times."""
    calm, disturbed = Scene(0.0), Scene(0.1)
    expected, found = calm.play_all(), disturbed.play_all()
    assert len(disturbed.given_up) > SIZE and calm.given_up == []
    assert [content(one) for one in found] == [content(one) for one in expected]
    lengths = [len(one.turns) for one in found]
    assert lengths == [len(one.turns) for one in expected]
    assert len(set(lengths)) > 8, "they are of many lengths"


def test_length_bias_long_trajectories_are_retried_more_often_and_none_is_lost() -> None:
    scene = Scene(0.03)
    found = scene.play_all()
    report = report_of(found, scene.given_up)
    bias = length_bias(report, {one.id: len(one.turns) for one in found})
    assert bias.num_lost == 0
    assert (bias.num_retried > 5) and bias.num_undisturbed + bias.num_retried == SIZE
    assert bias.longer > 0.5, "who plays longer meets more faults"


def test_length_bias_a_deadline_costs_attempts_and_no_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accepted turns are kept, so every attempt comes further than the one before."""
    monkeypatch.setattr("controller.player._cancel", lambda call: None)
    expected = Scene(0.0).play_all()[:4]
    scene = Scene(0.0, turn_s=0.02, trajectory_timeout_s=0.15)

    async def run() -> list[Trajectory]:
        return await asyncio.gather(*(scene.play(number) for number in range(4)))

    found = asyncio.run(run())
    assert scene.given_up, "some are longer than the deadline allows"
    assert [content(one) for one in found] == [content(one) for one in expected]


def test_length_bias_a_budget_that_is_spent_ends_the_run_and_drops_nothing() -> None:
    scene = Scene(0.9, max_attempts=2)
    with pytest.raises(TrajectoryFailed, match="2 attempts"):
        for number in range(SIZE):
            asyncio.run(scene.play(number))


def report_of(trained: list[Trajectory], given_up: list[str]) -> AuditReport:
    """What the audit of such a run says: groups of four."""
    groups = sorted({one.group_id for one in trained}, key=lambda name: int(name[3:]))
    log: list[dict[str, Any]] = [
        {"event": "issued", "group": name, "index": index, "task": name} for index, name in enumerate(groups)
    ]
    log += [
        {"event": "dropped", "group": name.split("/")[0], "trajectories": [name], "reason": "EnvFailure", "step": 1}
        for name in given_up
    ]
    for event in ("queued", "trained"):
        log += [
            {"event": event, "group": name, "step": 1, "trajectories": [t.id for t in trained if t.group_id == name]}
            for name in groups
        ]
    report = judge([*log, {"event": "committed", "step": 1}])
    assert report.problems == []
    return report


def bias(verdicts: dict[str, Any], lengths: dict[str, int]) -> LengthBias:
    return length_bias(AuditReport({"g0": "trained", "g1": "dropped"}, verdicts, {}, 1, 0, []), lengths)


def test_length_bias_counts_means_and_ranks() -> None:
    verdicts = {
        "g0/0/0": "dropped", "g0/0/1": "trained", "g0/1/0": "trained", "g0/2/0": "trained", "g1/0/0": "dropped",
    }  # fmt: skip
    found = bias(verdicts, {"g0/0/1": 8, "g0/1/0": 4, "g0/2/0": 8, "g1/0/0": 99})
    assert found == LengthBias(2, 1, 0, 6.0, 8.0, 0.75)
    assert "no length bias" in found.line()


def test_length_bias_names_siblings_that_were_given_up_for_good() -> None:
    found = bias({"g0/0/0": "dropped", "g0/1/0": "trained"}, {"g0/1/0": 4})
    assert (found.num_lost, found.num_retried) == (1, 0)
    assert "1 given up for good: their lengths are missing" in found.line()


def test_length_bias_reads_the_files_of_a_run(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "step-00000001.jsonl.gz", "wt") as file:
        file.write(json.dumps({"id": "g0/0/0", "turns": [{}, {}]}) + "\n")
    assert lengths_of(tmp_path) == {"g0/0/0": 2}
    (tmp_path / "step-00000002.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(RunFolderError, match=r"step-00000002.jsonl.gz: not a file of trajectories .*; move it away"):
        lengths_of(tmp_path)


def test_length_bias_of_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
