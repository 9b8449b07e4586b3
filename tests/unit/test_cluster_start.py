"""Ray's own servers are watched while the parts start: a frozen raylet would hold these up for minutes, and then Ray
ends the process without a word."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.causes import innermost
from controller.cluster import Cluster
from controller.config import validate
from controller.part_actors import PartActors
from controller.replacements import PartLost
from tests.unit.fake_actors import Handle


class Part:
    """It never answers."""

    def __getattr__(self, name: str) -> Any:
        async def wait(*arguments: Any) -> None:
            await asyncio.sleep(3600)

        return wait


class Actors(PartActors):
    """Parts that do not come up."""

    def check_places(self, trains: bool) -> None:
        pass

    def inference(self) -> Handle:
        return Handle(Part())

    def router(self, index: int) -> Handle:
        return Handle(Part())

    def env(self, routers: tuple[Any, ...]) -> Handle:
        return Handle(Part())

    def sampling(self) -> dict[str, Any]:
        return {}


class Session:
    """A Ray that starts, whose raylet is found frozen when it is asked for the third time."""

    asked = 0

    def start(self) -> None:
        pass

    def problem(self, patience_s: float) -> str:
        self.asked += 1
        return "" if self.asked < 3 else f"Ray's raylet (pid 7) is stopped since {patience_s:.0f} s"


def test_cluster_start_ends_with_the_cause_when_ray_freezes_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        config = validate({"supervision": {"ping_every_s": 0.01, "ping_timeout_s": 5}}, source="test")
        cluster = Cluster(config, tmp_path, run_folder=None, with_learner=False, actors=Actors(config, tmp_path))
        cluster._session = Session()  # type: ignore[assignment]
        with pytest.raises(PartLost) as caught:
            await asyncio.wait_for(cluster.start(), 10)
        assert str(innermost(caught.value)) == "Ray's raylet (pid 7) is stopped since 5 s"

    asyncio.run(run())


def test_cluster_start_names_ray_and_not_the_part_that_died_with_it(tmp_path: Path) -> None:
    """Ray says it sooner than the next look at its servers does."""

    class Dying(Actors):
        def router(self, index: int) -> Handle:
            found = Handle(Part())
            found.killed = True
            return found

    class Dead(Session):
        def problem(self, patience_s: float) -> str:
            self.asked += 1
            return "" if self.asked < 2 else "Ray's raylet (pid 7) died"

    async def run() -> None:
        config = validate({"supervision": {"ping_every_s": 60}}, source="test")
        cluster = Cluster(config, tmp_path, run_folder=None, with_learner=False, actors=Dying(config, tmp_path))
        cluster._session = Dead()  # type: ignore[assignment]
        with pytest.raises(PartLost, match=r"^Ray's raylet \(pid 7\) died$"):
            await asyncio.wait_for(cluster.start(), 10)

    asyncio.run(run())
