"""A dead engine is replaced once, by one of those who notice, and its successor is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.causes import innermost
from controller.cluster import Cluster
from controller.config import validate
from controller.learner_ranks import LearnerLost, LearnerRanks
from controller.part_actors import PartActors
from controller.replacements import PartLost, Replacements
from controller.supervision import Supervision
from controller.supervision_settings import SupervisionSettings
from controller.weight_route import WeightMismatch
from tests.unit.fake_actors import Handle

NAME = "inference-0"
AT_ONCE = SupervisionSettings(restart_pause_s=0)


class Engine:
    """An inference server: it starts when it is let, and takes weights only when it is up, as the real one."""

    def __init__(self, let: asyncio.Event, fails: bool = False) -> None:
        self.let = let
        self.fails = fails
        self.state = "new"
        self.version = 0

    async def start(self, *arguments: Any) -> None:
        self.state = "starting"
        await self.let.wait()
        if self.fails:
            raise MemoryError("the engine did not fit")
        self.state = "ready"

    def status(self) -> dict[str, Any]:
        return {"state": self.state, "reason": "", "version": self.version, "in_flight": 0}

    def update_weights(self, version: int, weights: Any, verify: bool = False) -> SimpleNamespace:
        if self.state != "ready":
            raise RuntimeError(f"inference server is {self.state}")
        self.version = version
        return SimpleNamespace(version=version, checksums={"w": hash(weights)} if verify else None)


class Router:
    def __init__(self) -> None:
        self.pid = 1
        self.servers: dict[str, Any] = {}

    def replace_server(self, name: str, actor: Any) -> None:
        self.servers[name] = actor

    def status(self) -> dict[str, Any]:
        return {"pid": self.pid}

    def introduce(self, servers: dict[str, Any], sampling: dict[str, Any]) -> None:
        self.servers = servers


class FakeActors(PartActors):
    """Engines without Ray. `fails(n)`: whether replacement number n does not start."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        self.let = asyncio.Event()
        self.fails = fails
        self.created = 0
        self.killed: list[Any] = []

    def inference(self) -> Handle:
        self.created += 1
        return Handle(Engine(self.let, self.fails(self.created)))

    def kill(self, actor: Handle) -> None:
        actor.killed = True
        self.killed.append(actor)


class OfflineCluster(Cluster):
    """The cluster when it is up: one engine and two routers, no Ray."""

    def __init__(self, folder: Path, fails: Callable[[int], bool] = lambda number: False, **supervision: float) -> None:
        self.fake = FakeActors(fails)
        super().__init__(
            validate({"supervision": supervision}, source="test"),
            folder,
            run_folder=None,
            with_learner=False,
            actors=self.fake,
        )
        self.inference = {NAME: Handle(Engine(self.fake.let))}
        self.inference[NAME].part.state = "ready"
        self.routers = [Handle(Router()), Handle(Router())]
        self.replacements = Replacements(AT_ONCE)
        self.keepers = [self._keeper(index, {}) for index in range(2)]


async def begin_revival(cluster: OfflineCluster) -> tuple[Handle, asyncio.Task[None]]:
    """The engine has died and the supervision is replacing it; the replacement is starting."""
    dead = cluster.inference[NAME]
    dead.killed = True
    checking = asyncio.create_task(Supervision(cluster).check_inference(NAME))
    while cluster.inference[NAME] is dead:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert cluster.inference[NAME].part.state == "starting"
    return dead, checking


def test_cluster_weight_update_leaves_a_starting_replacement_alone(tmp_path: Path) -> None:
    async def run() -> None:
        cluster = OfflineCluster(tmp_path)
        dead, reviving = await begin_revival(cluster)
        publishing = asyncio.create_task(cluster.publication.publish(1, "weights"))
        await asyncio.sleep(0.05)
        cluster.fake.let.set()
        await asyncio.gather(reviving, publishing)
        assert cluster.fake.created == 1, "the replacement was replaced"
        assert cluster.fake.killed == [dead]
        assert cluster.restarts[NAME] == 1
        assert cluster.inference[NAME].part.version == 1
        assert [one.part.servers for one in cluster.routers] == [{NAME: cluster.inference[NAME]}] * 2

    asyncio.run(run())


def test_cluster_supervision_leaves_a_starting_replacement_alone(tmp_path: Path) -> None:
    """A replacement that answers nothing while it imports is not frozen."""

    async def run() -> None:
        cluster = OfflineCluster(tmp_path, ping_timeout_s=0.05)
        dead, reviving = await begin_revival(cluster)
        cluster.inference[NAME].part.status = lambda: asyncio.sleep(60)
        checking = asyncio.create_task(Supervision(cluster).check_inference(NAME))
        await asyncio.sleep(0.15)
        cluster.fake.let.set()
        await asyncio.gather(reviving, checking)
        assert cluster.fake.killed == [dead]

    asyncio.run(run())


def test_cluster_replacement_that_does_not_start_is_tried_again(tmp_path: Path) -> None:
    async def run() -> None:
        cluster = OfflineCluster(tmp_path, fails=lambda number: number <= 2)
        cluster.fake.let.set()
        dead = cluster.inference[NAME]
        await cluster.revive_inference(NAME, dead, "it died")
        assert cluster.fake.created == 3
        assert len(cluster.fake.killed) == 3, "what did not come up is ended before the next try"
        assert cluster.inference[NAME].part.state == "ready"

    asyncio.run(run())


def test_cluster_replacement_that_never_starts_ends_the_run_with_its_cause(tmp_path: Path) -> None:
    async def run() -> None:
        cluster = OfflineCluster(tmp_path, fails=lambda number: True)
        cluster.fake.let.set()
        with pytest.raises(PartLost, match=r"inference-0 .* last: .*the engine did not fit"):
            await cluster.revive_inference(NAME, cluster.inference[NAME], "it died")
        assert cluster.fake.created == AT_ONCE.max_restarts

    asyncio.run(run())


def test_cluster_engine_is_replaced_while_the_router_is_away(tmp_path: Path) -> None:
    """The router restarts at the same time: the new engine is introduced to it afterwards, and counts once."""

    async def run() -> None:
        cluster = OfflineCluster(tmp_path)
        cluster.fake.let.set()
        for keeper in cluster.keepers:
            await keeper.introduce()
        cluster.routers[1].killed = True
        await cluster.revive_inference(NAME, cluster.inference[NAME], "it died")
        assert cluster.restarts[NAME] == 1
        assert cluster.routers[0].part.servers == {NAME: cluster.inference[NAME]}, "the other one knows at once"
        cluster.routers[1].killed = False
        await Supervision(cluster).check_router(cluster.keepers[1])
        assert cluster.routers[1].part.servers == {NAME: cluster.inference[NAME]}

    asyncio.run(run())


def test_cluster_supervision_watches_the_others_while_an_engine_starts(tmp_path: Path) -> None:
    """Also shows that supervision.ping_every_s acts."""

    async def run() -> None:
        cluster = OfflineCluster(tmp_path, ping_every_s=0.01)
        cluster.inference[NAME].killed = True
        watching = asyncio.create_task(cluster.watch())
        await asyncio.sleep(0.05)
        assert cluster.inference[NAME].part.state == "starting"
        cluster.routers[1].part.pid = 2  # it died, and Ray started it again
        await asyncio.sleep(0.1)
        assert (cluster.restarts["router-0"], cluster.restarts["router-1"]) == (0, 1)
        assert cluster.inference[NAME].part.state == "starting"
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(run())


def test_cluster_part_that_is_lost_ends_the_work_beside_it(tmp_path: Path) -> None:
    async def run() -> None:
        cluster = OfflineCluster(tmp_path, fails=lambda number: True)
        cluster.fake.let.set()
        cluster.inference[NAME].killed = True
        with pytest.raises(ExceptionGroup) as caught:
            await cluster.guarded(asyncio.sleep(60))
        assert isinstance(innermost(caught.value), PartLost)

    asyncio.run(run())


class Rank:
    """A learner rank: `frozen` answers nothing, `dead` is gone."""

    def __init__(self) -> None:
        self.frozen = False

    async def status(self) -> dict[str, Any]:
        await asyncio.sleep(60 if self.frozen else 0)
        return {"pid": 1}

    def train_step(self, groups: Any, version: int) -> dict[str, float]:
        raise ValueError("a batch of nothing")

    gpu = checksums = open_channel = weight_shapes = send_weights = None


def learner_of(cluster: OfflineCluster, num_ranks: int = 2) -> list[Handle]:
    """Gives the cluster a learner, whose ranks are returned."""
    ranks = [Handle(Rank()) for _ in range(num_ranks)]
    cluster.trains = True
    cluster.learner = LearnerRanks(ranks, put=lambda value: value, kill=cluster.fake.kill)
    return ranks


@pytest.mark.parametrize("how", ["frozen", "dead"])
def test_cluster_learner_rank_that_is_gone_or_frozen_is_found_between_two_steps(tmp_path: Path, how: str) -> None:
    """Also shows that supervision.ping_timeout_s acts."""

    async def run() -> None:
        cluster = OfflineCluster(tmp_path, ping_timeout_s=0.1, ping_every_s=0.01)
        ranks = learner_of(cluster)
        watching = asyncio.create_task(cluster.watch())
        await asyncio.sleep(0.05)
        assert not watching.done()
        if how == "frozen":
            ranks[1].part.frozen = True
        else:
            ranks[1].killed = True
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(watching, 5)
        found = innermost(caught.value)
        assert isinstance(found, LearnerLost) and "learner rank 1 of 2" in str(found)
        assert set(cluster.fake.killed) == set(ranks), "a learner that lost a rank is no learner"

    asyncio.run(run())


def test_cluster_learner_that_fails_by_itself_is_not_started_again_and_one_that_died_is(tmp_path: Path) -> None:
    async def run() -> None:
        for killed in (False, True):
            cluster = OfflineCluster(tmp_path)
            ranks = learner_of(cluster, 1)
            ranks[0].killed = killed
            with pytest.raises(PartLost) as caught:
                await cluster.ask_learner(cluster.learner.train_step.remote([], 0), "training step 1")
            assert isinstance(caught.value, LearnerLost) is killed
            assert "learner failed while training step 1" in str(caught.value)

    asyncio.run(run())


def test_cluster_compares_checksums_of_every_so_many_updates_and_ends_the_run_when_they_differ(tmp_path: Path) -> None:
    """Also shows that inference.verify_every acts."""

    async def run() -> None:
        cluster = OfflineCluster(tmp_path)
        cluster.config, cluster.trains = validate({"inference": {"verify_every": 2}}, source="test"), True
        sent = {"w": hash("good")}
        cluster.learner = Handle(SimpleNamespace(checksums=lambda: sent))  # type: ignore[assignment]
        reports = [(await cluster.publication.publish(version, "good"))[NAME] for version in (1, 2, 3)]
        assert [report.checksums is not None for report in reports] == [True, False, True]
        await cluster.publication.publish(4, "bad")
        with pytest.raises(WeightMismatch, match=f"{NAME} does not hold the weights of version 5.*such as w"):
            await cluster.publication.publish(5, "bad")

    asyncio.run(run())


def test_cluster_sends_over_nccl_where_that_is_the_route(tmp_path: Path) -> None:
    """inference.weight_transfer decides; a server that is being replaced is waited for."""

    async def run() -> None:
        cluster = OfflineCluster(tmp_path)
        cluster.trains = True
        engine = cluster.inference[NAME].part
        engine.status = lambda: {"version": 0, "gpu": "gpu-1"}
        asked: list[str] = []
        engine.open_channel = lambda *place: asked.append("open")
        engine.receive_weights = lambda *meta: SimpleNamespace(version=meta[0], checksums={"w": 1})
        cluster.learner = Handle(  # type: ignore[assignment]
            SimpleNamespace(
                gpu=lambda: "gpu-0", open_channel=lambda *place: asked.append("open"), checksums=lambda: {"w": 1},
                weight_shapes=lambda: (["w"], ["float32"], [[1]]), send_weights=lambda: asked.append("send"),
            )
        )  # fmt: skip
        await cluster.publication.choose_route()
        reports = await cluster.publication.publish(1, "weights")
        assert asked == ["open", "open", "send"] and reports[NAME].version == 1
        cluster.config = validate({"inference": {"weight_transfer": "object_store"}}, source="test")
        await cluster.publication.choose_route()
        await cluster.publication.publish(2, "weights")
        assert engine.version == 2 and asked.count("send") == 1

    asyncio.run(run())
