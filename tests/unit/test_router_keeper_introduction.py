"""The router's restarts: each counted once, and each followed by an introduction."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.replacements import PartLost, Replacements
from controller.router_keeper import RouterKeeper
from tests.unit.fake_actors import Handle


class Router:
    """`restart()` gives it another pid and no servers, as Ray does."""

    def __init__(self) -> None:
        self.pid = 1
        self.servers: dict[str, Any] = {}
        self.introductions = 0
        self.dies_at_introduction = False

    def restart(self) -> None:
        self.pid += 1
        self.servers = {}

    def status(self) -> dict[str, Any]:
        return {"pid": self.pid}

    def introduce(self, servers: dict[str, Any], sampling: dict[str, Any]) -> None:
        if self.dies_at_introduction:
            self.dies_at_introduction = False
            self.restart()
            raise ConnectionError("the actor died")
        self.introductions += 1
        self.servers = servers

    def replace_server(self, name: str, actor: Any) -> None:
        self.servers[name] = actor


def keeper_of(
    router: Handle, patience_s: float = 5.0, answer_timeout_s: float = 60.0
) -> tuple[RouterKeeper, Replacements]:
    replacements = Replacements()
    keeper = RouterKeeper("router-1", router, {"inference-0": "actor"}, {}, replacements, patience_s, answer_timeout_s)
    return keeper, replacements


def test_router_keeper_counts_a_restart_once_and_introduces_again() -> None:
    async def run() -> None:
        router = Handle(Router())
        keeper, replacements = keeper_of(router)
        await keeper.introduce()
        router.killed = True
        assert await keeper.check() is None
        assert await keeper.check() is None
        router.part.restart()
        router.killed = False
        for _ in range(3):
            assert await keeper.check() == {"pid": 2}
        assert replacements.restarts["router-1"] == 1
        assert router.part.servers == {"inference-0": "actor"}
        assert router.part.introductions == 2

    asyncio.run(run())


def test_router_keeper_death_during_the_introduction_is_survived() -> None:
    async def run() -> None:
        router = Handle(Router())
        keeper, replacements = keeper_of(router)
        await keeper.introduce()
        router.part.restart()
        router.part.dies_at_introduction = True
        assert await keeper.check() is None
        assert await keeper.check() == {"pid": 3}
        assert router.part.servers == {"inference-0": "actor"}
        assert replacements.restarts["router-1"] == 2

    asyncio.run(run())


def test_router_keeper_router_that_dies_again_and_again_ends_the_run() -> None:
    async def run() -> None:
        router = Handle(Router())
        keeper, _ = keeper_of(router)
        await keeper.introduce()
        with pytest.raises(PartLost, match=r"router-1 .* budget is supervision.max_restarts = 5"):
            for _ in range(6):
                router.part.restart()
                await keeper.check()

    asyncio.run(run())


def test_router_keeper_router_that_does_not_come_back_ends_the_run_with_its_cause() -> None:
    async def run() -> None:
        router = Handle(Router())
        keeper, _ = keeper_of(router, patience_s=0.05)
        router.killed = True
        assert await keeper.check() is None, "it gets its time"
        await asyncio.sleep(0.1)
        with pytest.raises(PartLost, match=r"router-1: no answer for .*ConnectionError: the actor died"):
            await keeper.check()

    asyncio.run(run())


def test_router_keeper_frozen_router_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []

    async def run() -> None:
        router = Handle(Router())
        keeper, _ = keeper_of(router, answer_timeout_s=0.05)
        router.part.status = lambda: asyncio.sleep(60)
        monkeypatch.setattr("ray.kill", lambda actor, no_restart: killed.append(actor))
        assert await keeper.check() is None
        assert killed == [router]

    asyncio.run(run())
