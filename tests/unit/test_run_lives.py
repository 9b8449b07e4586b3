"""A run that goes on otherwise: after a rollback, with other learner ranks, paused; every remote part a stand-in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.rollout import TrajectorySpec
from controller import train
from controller.adjustments import adjustments_of
from controller.audit import judge_file
from controller.checkpoint import CheckpointStore
from controller.collapse.finding import Level
from controller.collapse.observatory import Health, Observatory
from controller.config import RunConfig
from controller.learner_ranks import LearnerLost
from controller.replacements import PartLost
from controller.run_care import MARGIN, Care, RunCare
from controller.run_folder import RunFolder
from controller.training_run import TrainingRun
from envs.records import Trajectory, Turn
from tests.fakes import make_candidate, make_turn
from tests.unit.test_train_loop import Scene, call, cluster_of

BASE_LR = 1e-2
SMALL = {"groups_per_step": 2, "group_size": 2, "num_env_actors": 1}


class Lives(Scene):
    """Every life that the run asks for. `prepare` sees each before it begins."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(tmp_path, monkeypatch)
        self.prepare: Callable[[TrainingRun], None] = lambda run: None
        self.configs: list[RunConfig] = []
        monkeypatch.setattr(train, "TrainingRun", self._make)
        monkeypatch.setattr(train, "prepare_policy", lambda config, policy, note: policy)
        monkeypatch.setattr(train, "log_to", lambda path: None)

    def _make(self, config: RunConfig, *rest: Any, **options: Any) -> TrainingRun:
        run = TrainingRun(config, *rest, **options)
        self.queue = self.queue.reopened()
        self.queue.max_groups = config.queue.max_groups
        run._open_queue = lambda server: self.queue  # type: ignore[method-assign,assignment,return-value]
        self.configs.append(config)
        self.prepare(run)
        return run

    def train(self, **sections: Any) -> int:
        with RunFolder.create(self.config(**sections), "test") as folder:
            self.folder = folder.path
            folder.policy.mkdir()
            (folder.policy / "config.json").write_text("{}")
            return train._conduct(folder.config(), folder, resumed=False)

    def resume(self) -> int:
        with RunFolder.open(self.folder) as folder:
            return train._conduct(folder.config(), folder, resumed=True)

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


@pytest.fixture
def lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lives:
    return Lives(tmp_path, monkeypatch)


def collapses_at_its_learning_rate(run: TrainingRun, healthy_steps: int = 9) -> None:
    """Wins half of its trajectories; at the learning rate that the run began with none after some steps."""
    cluster = cluster_of(run)
    play = cluster._play

    async def lose(spec: TrajectorySpec, replay: tuple[Turn, ...]) -> Trajectory:
        is_ill = run.config.learner.lr >= BASE_LR and run.done >= healthy_steps
        trajectory = await play(spec, replay)
        won = trajectory.won and not is_ill
        fresh = make_candidate(min_version=run.done, max_version=run.done)
        return replace(trajectory, won=won, turns=(make_turn(reward=float(won), accepted=fresh),))

    cluster.env["env-0"].run = call(lose)


def test_lives_collapse_is_rolled_back_to_the_last_healthy_checkpoint_with_a_lower_learning_rate(lives: Lives) -> None:
    lives.prepare = collapses_at_its_learning_rate
    status = lives.train(
        steps=24, learner={"lr": BASE_LR}, collapse={"on_collapse": ["notify", "rollback"]},
        checkpoint={"every_steps": 3, "keep_last": 1},
    )  # fmt: skip
    assert status == 0
    assert [config.learner.lr for config in lives.configs] == [BASE_LR, BASE_LR / 2]
    rows = lives.rows()
    assert [row["step"] for row in rows] == list(range(1, 25))
    assert rows[-1]["actions_rollback"] == 1
    assert judge_file(lives.folder / "audit.jsonl").problems == []
    (adjustment,) = adjustments_of(lives.folder)
    assert adjustment.changes == {"learner.lr": BASE_LR / 2} and "success" in adjustment.cause
    given_up = lives.lines("metrics.before-rollback-1.jsonl")
    warned = next(row["step"] for row in given_up if row["health"])
    back_to = lives.events("resumed")[-1]["step"]
    assert back_to == max(step for step in range(0, 25, 3) if step <= warned - 1 - MARGIN)
    assert given_up[-1]["success"] == 0.0
    assert all(row["success"] == 0.5 and row["staleness_max"] <= 1 for row in rows[back_to:])
    actions = [row["action"] for row in lives.lines("events.jsonl") if row["event"] == "action"]
    assert actions.count("rollback") == 1
    assert CheckpointStore(lives.folder / "checkpoints", 1).steps() == [21, 24], "the newest that a rollback may go to"


def test_lives_rollback_ends_when_its_budget_is_spent(lives: Lives) -> None:
    lives.prepare = collapses_at_its_learning_rate
    status = lives.train(
        steps=20, learner={"lr": BASE_LR},
        collapse={"on_collapse": ["rollback"], "max_rollbacks": 2, "rollback_lr_factor": 1.0},
    )  # fmt: skip
    assert status == 0
    assert len(lives.configs) == 3
    assert lives.rows()[-1]["success"] == 0.0 and lives.rows()[-1]["actions_rollback"] == 2


def test_lives_pause_saves_and_says_how_to_go_on(lives: Lives) -> None:
    lives.prepare = collapses_at_its_learning_rate
    status = lives.train(
        steps=20, learner={"lr": BASE_LR}, collapse={"on_collapse": ["pause"]}, checkpoint={"every_steps": 20}
    )
    assert status == train.PAUSED
    last = lives.rows()[-1]["step"]
    assert last < 20
    assert CheckpointStore(lives.folder / "checkpoints", 2).steps() == [last]
    assert lives.resume() == 0
    assert lives.rows()[-1]["step"] == 20


def test_lives_actions_that_change_knobs_save_and_begin_anew(lives: Lives) -> None:
    lives.prepare = collapses_at_its_learning_rate
    status = lives.train(
        steps=20, learner={"lr": BASE_LR}, collapse={"on_collapse": ["raise_eta", "raise_kl"], "kl_coef_step": 0.02},
        tds={"eta": 0.01},
    )  # fmt: skip
    assert status == 0
    first, second = lives.configs[:2]
    assert (first.tds.eta, first.loss.kl_coef) == (0.01, 0.0)
    assert (second.tds.eta, second.loss.kl_coef) == (pytest.approx(0.015), 0.02)
    assert [row["step"] for row in lives.rows()] == list(range(1, 21)), "nothing was done twice"


def test_lives_other_number_of_learner_ranks_from_the_step_under_way(lives: Lives) -> None:
    def ask_once(run: TrainingRun) -> None:
        if len(lives.configs) == 1:
            real = run.cluster.learner.train_step.remote

            async def ask(groups: list[Any], version: int) -> dict[str, float]:
                if version == 1:
                    run._change_learners(2)
                return dict(await real(groups, version))

            run.cluster.learner.train_step = call(ask)

    lives.prepare = ask_once
    assert lives.train(checkpoint={"every_steps": 4}) == 0
    assert [config.learner.num_ranks for config in lives.configs] == [1, 2]
    lives.check_complete()
    assert lives.events("resumed")[-1]["step"] == 2
    assert lives.resume() == 0
    assert lives.configs[-1].learner.num_ranks == 2, "a later life has it too"


def test_lives_run_that_stands_still_is_told_of_while_it_does(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def ill(self: Observatory, waited_s: float) -> Health:
        asked.append(waited_s)
        level = Level.WARNING if self.health.step == 6 else Level.HEALTHY
        return replace(self.health, level=level, causes=("no step for long",), detectors=(("stalled", level),))

    monkeypatch.setattr(Observatory, "waiting", ill)
    lives.prepare = lambda run: setattr(cluster_of(run), "train_s", 0.05)
    assert lives.train(steps=8) == 0
    assert asked and all(0 <= waited < 30 for waited in asked)
    told = [row for row in lives.lines("events.jsonl") if row["text"] == "no step for long"]
    assert [(row["event"], row["step"], row["level"]) for row in told] == [("health", 6, 1)], "once, not every second"


def test_lives_learner_ranks_asked_for_are_not_forgotten_when_something_else_is_due(lives: Lives) -> None:
    """A rollback, and a raised knob, come after the same step as the request."""

    def ask(run: TrainingRun) -> None:
        collapses_at_its_learning_rate(run)
        if len(lives.configs) == 1:
            care = RunCare.care

            async def with_request(self: RunCare) -> Care:
                found = await care(self)
                if found.changes:
                    run._change_learners(2)
                return found

            lives.monkeypatch.setattr(RunCare, "care", with_request)

    lives.prepare = ask
    status = lives.train(steps=24, learner={"lr": BASE_LR}, collapse={"on_collapse": ["rollback", "raise_kl"]})
    assert status == 0
    (adjustment,) = adjustments_of(lives.folder)
    assert adjustment.changes.keys() == {"learner.num_ranks", "learner.lr", "loss.kl_coef"}
    assert "2 learner ranks" in adjustment.cause and "success" in adjustment.cause
    assert [(one.learner.num_ranks, one.learner.lr) for one in lives.configs] == [(1, BASE_LR), (2, BASE_LR / 2)]
    assert len(lives.lines("metrics.before-rollback-1.jsonl")) > lives.events("resumed")[-1]["step"]


def loses_its_learner(run: TrainingRun, *versions: int) -> None:
    """The learner dies when it is to train these."""
    real = run.cluster.learner.train_step.remote

    async def train_step(groups: list[Any], version: int) -> dict[str, float]:
        if version in versions:
            raise LearnerLost(f"learner failed while training step {version + 1}: ActorDiedError: killed")
        return dict(await real(groups, version))

    run.cluster.learner.train_step = call(train_step)


def test_lives_learner_that_is_lost_comes_back_from_the_last_checkpoint(lives: Lives) -> None:
    def lose_once(run: TrainingRun) -> None:
        if len(lives.configs) == 1:
            loses_its_learner(run, 3)
            run.player.failures["EnvTimeout"] += 2

    lives.prepare = lose_once
    assert lives.train(checkpoint={"every_steps": 2}) == 0
    lives.check_complete()
    assert [event["step"] for event in lives.events("resumed")] == [2]
    assert [row["restarts_learner"] for row in lives.rows()] == [0.0, 0.0, 1.0, 1.0]
    assert lives.rows()[-1]["failed_attempts_EnvTimeout"] == 2.0, "what went wrong before is not forgotten"


def test_lives_learner_that_is_lost_again_and_again_ends_the_run_with_its_cause(lives: Lives) -> None:
    """Also shows that supervision.max_restarts and restart_pause_s act: 2, of none, which is not slept."""
    lives.prepare = lambda run: loses_its_learner(run, 3)
    with pytest.raises(PartLost, match=r"the learner is not started again.*max_restarts = 2.*training step 4"):
        lives.train(checkpoint={"every_steps": 2}, supervision={"max_restarts": 2, "restart_pause_s": 0.0})
    assert len(lives.configs) == 3
    assert CheckpointStore(lives.folder / "checkpoints", 2).steps() == [2]
    lives.prepare = lambda run: None
    assert lives.resume() == 0
    lives.check_complete()
    assert lives.rows()[-1]["restarts_learner"] == 2.0, "nor by another process that goes on"


def test_lives_steps_that_are_done_are_saved_when_another_part_is_lost(lives: Lives) -> None:
    """Between two steps the learner still stands where the last one left it."""

    def lose_an_actor(run: TrainingRun) -> None:
        cluster = cluster_of(run)

        async def watch() -> None:
            while run.done < 3 or run.waiting_since is None:
                await asyncio.sleep(0.001)
            raise PartLost("env-0 is not started again")

        async def play(spec: TrajectorySpec, replay: tuple[Turn, ...]) -> Trajectory:
            if run.done >= 3:
                await asyncio.sleep(3600)
            return await real(spec, replay)

        real = cluster._play
        cluster.env["env-0"].run = call(play)
        cluster.watch = watch  # type: ignore[method-assign]

    lives.prepare = lose_an_actor
    with pytest.raises(PartLost, match="env-0 is not started again"):
        lives.train(checkpoint={"every_steps": 4}, rollout={**SMALL, "max_staleness": 0})
    assert CheckpointStore(lives.folder / "checkpoints", 2).steps() == [3]
    lives.prepare = lambda run: None
    assert lives.resume() == 0
    lives.check_complete()
