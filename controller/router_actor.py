"""The Ray shell around `Router`: an actor, asked by every environment actor for the groups that have their home there.

Owns: how inference actors are called. Called by `controller.cluster` (which hands their handles to the
environment actors) and `controller.generation`. Must not know: how turns are decided.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any, Literal

import ray

from controller.router import Router, RouterSettings
from envs.records import Candidate, Int32, SignalRange, Turn, TurnReply, TurnRequest


class RayServer:
    """An inference actor as a `Server`. A request that is given up is cancelled in the actor too."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self._actor = actor

    async def generate(
        self,
        request_id: str,
        prompt_ids: Int32,
        seed: int,
        signal_range: SignalRange,
        sampling: Any,
        epsilon: float | None,
    ) -> Candidate:
        call = self._actor.generate.remote(request_id, prompt_ids, seed, signal_range, sampling, epsilon)
        try:
            return await call
        except asyncio.CancelledError:
            ray.cancel(call)
            raise


MAX_CONCURRENCY = 65_536
"""A turn is a call that lasts as long as its engine takes: as many as there are live trajectories are in the router at
once. What comes beyond the limit waits in line, pings too, and a router whose pings wait is taken for frozen."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=MAX_CONCURRENCY)
class RouterActor:
    """A restart loses the turns of live trajectories (they go on; only their replay starts afresh), nothing else.

    Servers are introduced after the start: what the constructor gets would be stale after a restart. Turns
    that are asked for before wait within their own deadlines.
    """

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._router = Router([], settings)
        self._introduced = asyncio.Event()

    async def introduce(self, servers: dict[str, Any], sampling: dict[str, Any]) -> None:
        """`sampling`: what servers are given for "train" and "eval"; references, which Ray resolves for them."""
        known = [RayServer(name, actor) for name, actor in servers.items()]
        self._router = Router(known, replace(self._settings, sampling=sampling))
        self._introduced.set()

    async def request_turn(
        self, request: TurnRequest, sampling: Literal["train", "eval"], unseen: tuple[Turn, ...] = ()
    ) -> TurnReply:
        if not self._introduced.is_set():
            await asyncio.wait_for(self._introduced.wait(), self._settings.turn_timeout_s)
        return await self._router.request_turn(request, sampling, unseen)

    async def replace_server(self, name: str, actor: Any | None) -> None:
        self._router.replace_server(name, None if actor is None else RayServer(name, actor))

    async def live(self, trajectory_id: str) -> tuple[Turn, ...]:
        return self._router.live(trajectory_id)

    async def live_many(self, trajectory_ids: list[str]) -> dict[str, tuple[Turn, ...]]:
        return {name: self._router.live(name) for name in trajectory_ids}

    async def forget(self, trajectory_ids: list[str]) -> None:
        for trajectory_id in trajectory_ids:
            self._router.forget(trajectory_id)

    async def status(self) -> dict[str, Any]:
        return {**self._router.status(), "pid": os.getpid()}
