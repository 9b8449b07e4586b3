"""Actors join and leave while the others work: nothing new for who leaves, newest weights for who joins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controller import scaling as module
from controller.run_size import ScaleError, Size
from controller.scaling import Scaling, check_memory
from tests.unit.fake_actors import Handle
from tests.unit.test_cluster_replacement import NAME, OfflineCluster


class Env:
    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def status(self) -> dict[str, Any]:
        if self.fails:
            raise MemoryError("no room")
        return {"pid": 0}


class Busy:
    """The player: how many trajectories each environment actor has."""

    def __init__(self) -> None:
        self.on: dict[str, int] = {}

    def num_on(self, name: str) -> int:
        return self.on.get(name, 0)


class Scene:
    def __init__(self, folder: Path, env_fails: bool = False) -> None:
        self.cluster = OfflineCluster(folder)
        self.cluster.fake.let.set()
        self.cluster.env = {"env-0": Handle(Env())}
        self.cluster.fake.env = lambda routers: Handle(Env(env_fails))  # type: ignore[method-assign]
        self.cluster._session.end_children_of = lambda pid: None  # type: ignore[method-assign]
        self.player = Busy()
        self.said: list[tuple[str, str]] = []
        self.scaling = Scaling(self.cluster, self.player, lambda *said: self.said.append(said))  # type: ignore[arg-type]


def on(folder: Path, work: Callable[[Scene], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        await work(Scene(folder, **options))

    asyncio.run(run())


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.3)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)


def test_scaling_joins_servers_with_the_newest_weights(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        cluster = scene.cluster
        await cluster.publication.publish(3, "weights")
        assert await scene.scaling.to(Size(inference=3)) == "inference-1 joined, inference-2 joined"
        assert [actor.part.version for actor in cluster.inference.values()] == [3, 3, 3]
        assert all(one.part.servers.keys() >= {"inference-1", "inference-2"} for one in cluster.routers)

    on(tmp_path, work)


def test_scaling_server_that_joins_during_an_update_has_it_too(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        cluster = scene.cluster
        await cluster.publication.publish(1, "weights")
        cluster.fake.let.clear()
        joining = asyncio.create_task(scene.scaling.to(Size(inference=2)))
        await asyncio.sleep(0.02)
        await cluster.publication.publish(2, "weights")
        cluster.fake.let.set()
        await joining
        assert cluster.inference["inference-1"].part.version == 2

    on(tmp_path, work)


def test_scaling_server_leaves_when_its_requests_are_done(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        cluster = scene.cluster
        await scene.scaling.to(Size(inference=2))
        leaver, in_flight = cluster.inference["inference-1"], [2]
        leaver.part.status = lambda: {"in_flight": in_flight[0], "pid": 0}
        stopped: list[int] = []
        leaver.part.stop = lambda: stopped.append(in_flight[0])
        leaving = asyncio.create_task(scene.scaling.to(Size(inference=1)))
        await asyncio.sleep(0.05)
        assert [one.part.servers["inference-1"] for one in cluster.routers] == [None, None], "it is given nothing new"
        assert not stopped and not leaver.killed
        assert (await cluster.publication.publish(1, "weights")).keys() == {NAME}
        in_flight[0] = 0
        assert await leaving == "inference-1 left"
        assert stopped == [0] and leaver.killed

    on(tmp_path, work)


def test_scaling_server_that_does_not_finish_is_ended_at_the_deadline(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        await scene.scaling.to(Size(inference=2))
        leaver = scene.cluster.inference["inference-1"]
        leaver.part.status = lambda: {"in_flight": 1, "pid": 0}
        await scene.scaling.to(Size(inference=1))
        assert leaver.killed

    on(tmp_path, work)


def test_scaling_environment_actor_leaves_when_its_trajectories_are_done(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        cluster = scene.cluster
        assert await scene.scaling.to(Size(envs=3)) == "env-1 joined, env-2 joined"
        leaver = cluster.env["env-2"]
        scene.player.on = {"env-2": 1}
        leaving = asyncio.create_task(scene.scaling.to(Size(envs=2)))
        await asyncio.sleep(0.05)
        assert cluster.leaving == {"env-2"} and not leaver.killed
        scene.player.on = {}
        assert await leaving == "env-2 left"
        assert leaver.killed and list(cluster.env) == ["env-0", "env-1"] and not cluster.leaving

    on(tmp_path, work)


def test_scaling_part_that_does_not_start_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        with pytest.raises(ScaleError, match=r"env-1: .*no room.*there are 1 of env now"):
            await scene.scaling.to(Size(envs=2))
        assert list(scene.cluster.env) == ["env-0"]
        assert len(scene.cluster.fake.killed) == 1, "what did not start is ended"
        assert await scene.scaling.to(Size(envs=1)) == "nothing to do"

    on(tmp_path, work, env_fails=True)


@pytest.mark.parametrize("bad", [{"envs": 0}, {"inference": -1}, {"learners": 0}])
def test_scaling_to_nothing_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ScaleError, match="at least 1 is needed"):
        Size(**bad)


def test_scaling_beyond_the_memory_is_refused_with_the_numbers() -> None:
    import os

    status = {"env-0": {"pid": os.getpid()}}
    with pytest.raises(ScaleError, match=r"1000000 more envs .* need \d+\.\d GB .* GB are free"):
        check_memory(1_000_000, 0, status)
    check_memory(0, 0, status)
