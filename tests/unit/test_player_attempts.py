"""Seeing a trajectory through: attempts, replay after a death, budgets, and what is told about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from actors.home_router import home_router
from actors.rollout import EnvFailure, EnvTimeout, ReplayMismatch, TrajectorySpec
from actors.settings import RolloutSettings
from controller.player import Player, TrajectoryFailed
from envs.records import Trajectory, Turn
from tests.fakes import make_task, make_turn

SPEC = TrajectorySpec(
    run_id="r", group_id="r-g0", group_index=0, task=make_task(), sibling=0, attempt=0, sampling="train"
)


def remote_error(cause: Exception) -> RayTaskError:
    """What awaiting a call raises when the actor's method raised `cause`."""
    return RayTaskError("run", "traceback", cause)


class Method:
    """`method.remote(...)` of an actor handle: a coroutine for each call."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.answer = answer
        self.calls: list[tuple[Any, ...]] = []

    def remote(self, *arguments: Any) -> Any:
        self.calls.append(arguments)

        async def reply() -> Any:
            return self.answer(len(self.calls) - 1, *arguments)

        return reply()


class FakeCluster:
    """One environment actor that follows a script: an exception is raised, None gives a Trajectory."""

    def __init__(self, *script: Exception | None, known: tuple[Turn, ...] = (), max_attempts: int = 3) -> None:
        self.script = script
        self.config = SimpleNamespace(rollout=RolloutSettings(max_attempts=max_attempts, trajectory_timeout_s=5))
        self.run = Method(self._run)
        self.env = {"env-0": SimpleNamespace(run=self.run)}
        self.leaving: set[str] = set()
        self.forgotten: list[str] = []
        home = SimpleNamespace(
            live=Method(lambda number, name: known), forget=SimpleNamespace(remote=self.forgotten.extend)
        )
        self.routers: list[Any] = [None, None, None]  # only the group's is asked
        self.routers[home_router(SPEC.group_id, 3)] = home
        self.revived: list[str] = []

    def _run(self, number: int, spec: TrajectorySpec, replay: tuple[Turn, ...]) -> Trajectory:
        outcome = self.script[number]
        if outcome is not None:
            raise outcome
        return Trajectory(
            id=spec.trajectory_id, group_id=spec.group_id, task=spec.task, sibling=spec.sibling, attempt=spec.attempt,
            turns=(make_turn(),), won=True, duration_s=0.0,
        )  # fmt: skip

    async def revive_env(self, name: str, dead: Any, cause: str) -> None:
        self.revived.append(cause)


def play(cluster: FakeCluster, **options: Any) -> Trajectory:
    return asyncio.run(Player(cluster).play(SPEC, **options))  # type: ignore[arg-type]


def test_player_first_attempt_succeeds() -> None:
    cluster = FakeCluster(None)
    assert play(cluster).id == "r-g0/0/0"
    assert cluster.revived == []


def test_player_dead_environment_actor_costs_no_attempt_and_play_goes_on_from_the_accepted_turns() -> None:
    known = (make_turn(0), make_turn(1))
    died = ActorDiedError()
    cluster = FakeCluster(died, died, died, None, known=known, max_attempts=1)
    told: list[tuple[str, str, str]] = []
    trajectory = play(
        cluster, attempting=lambda old, new, reason: told.append((old.trajectory_id, new.trajectory_id, reason))
    )
    assert trajectory.id == "r-g0/0/3"
    assert len(cluster.revived) == 3
    assert [replay for _, replay in cluster.run.calls] == [(), known, known, known]
    assert told[0] == ("r-g0/0/0", "r-g0/0/1", "ActorDiedError")
    assert cluster.forgotten == ["r-g0/0/0", "r-g0/0/1", "r-g0/0/2"]


def test_player_failing_environment_ends_after_its_attempts_with_the_cause() -> None:
    failure = remote_error(EnvFailure("task corridor-0, turn 3: the environment raised KeyError: 'table'"))
    cluster = FakeCluster(failure, failure, failure)
    with pytest.raises(TrajectoryFailed, match=r"task corridor-0: 3 attempts .* KeyError: 'table'"):
        play(cluster)
    assert cluster.revived == [], "an environment that raised leaves its process usable"


def test_player_hanging_environment_costs_the_process_too() -> None:
    cluster = FakeCluster(remote_error(EnvTimeout("no answer within 30 s")), None)
    assert play(cluster).attempt == 1
    assert cluster.revived == ["no answer within 30 s"]


def test_player_replay_that_does_not_fit_is_not_tried_again() -> None:
    cluster = FakeCluster(remote_error(ReplayMismatch("turn 1")), None, known=(make_turn(),))
    play(cluster, replay=(make_turn(),))
    assert [len(replay) for _, replay in cluster.run.calls] == [1, 0]


def test_player_trajectory_that_takes_too_long_meets_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[Any] = []
    monkeypatch.setattr("controller.player._cancel", cancelled.append)
    cluster = FakeCluster(None, max_attempts=1)
    cluster.config.rollout = RolloutSettings(max_attempts=1, trajectory_timeout_s=0.1)

    class Never(Method):
        def remote(self, *arguments: Any) -> Any:
            return asyncio.sleep(60)

    cluster.env = {"env-0": SimpleNamespace(run=Never(lambda: None))}
    with pytest.raises(TrajectoryFailed, match=r"trajectory r-g0/0/0: not done within 0\.1 s"):
        play(cluster)
    assert len(cancelled) == 1


def test_player_counts_failures_by_reason() -> None:
    cluster = FakeCluster(remote_error(EnvFailure("x")), ActorDiedError(), None)
    player = Player(cluster)  # type: ignore[arg-type]
    asyncio.run(player.play(SPEC))
    assert dict(player.failures) == {"EnvFailure": 1, "ActorDiedError": 1}
    assert player.live == 0


def test_player_tells_each_groups_router_of_finished_trajectories() -> None:
    told: list[list[str]] = [[], []]
    routers = [SimpleNamespace(forget=SimpleNamespace(remote=names.extend)) for names in told]
    config = SimpleNamespace(rollout=RolloutSettings())
    player = Player(SimpleNamespace(config=config, routers=routers))  # type: ignore[arg-type]
    made = [
        Trajectory(
            id=f"r-g{group}/{sibling}/0", group_id=f"r-g{group}", task=make_task(), sibling=sibling, attempt=0,
            turns=(make_turn(),), won=True, duration_s=0.0,
        )
        for group in range(20) for sibling in range(2)
    ]  # fmt: skip
    player.forget(tuple(made))
    assert sorted(told[0] + told[1]) == sorted(one.id for one in made)
    for index, names in enumerate(told):
        assert names and all(home_router(name.split("/")[0], 2) == index for name in names)
