"""Watching the parts of a cluster: pinged in a rhythm, replaced when they are found dead.

Owns: the pings, and when a part counts as dead. Called by `controller.cluster` and by whoever runs beside it. Must not
know: how a part is replaced, what it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from functools import partial
from typing import TYPE_CHECKING, Any

from controller.causes import cause_of
from controller.deadline import bounded
from controller.learner_ranks import LearnerLost
from controller.replacements import PartLost

if TYPE_CHECKING:
    from controller.cluster import Cluster
    from controller.router_keeper import RouterKeeper


class Supervision:
    """Writes what the parts say of themselves into the cluster's `status`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._every_s = cluster.config.supervision.ping_every_s
        self._timeout_s = cluster.config.supervision.ping_timeout_s

    async def watch(self) -> None:
        """Pings every part until cancelled; replaces the dead ones.

        Each part in a rhythm of its own: while an engine starts for minutes, the others are watched.
        """
        cluster = self._cluster
        watched: set[str] = set()

        async def again_and_again(name: str, check: Callable[[], Awaitable[None]], members: Container[str]) -> None:
            while name in members:
                await check()
                await asyncio.sleep(self._every_s)
            watched.discard(name)  # it left; another one may come under its name

        async with asyncio.TaskGroup() as group:
            for keeper in cluster.keepers:
                group.create_task(again_and_again(keeper.name, partial(self.check_router, keeper), (keeper.name,)))
            group.create_task(self.watch_ray())
            if cluster.trains:
                group.create_task(again_and_again("learner", self.check_learner, ("learner",)))
            while True:
                for members, check in ((cluster.inference, self.check_inference), (cluster.env, self.check_env)):
                    for name in members.keys() - watched:
                        watched.add(name)
                        group.create_task(again_and_again(name, partial(check, name), members))
                await asyncio.sleep(self._every_s)

    async def check_inference(self, name: str) -> None:
        cluster = self._cluster
        actor = cluster.inference.get(name)
        if actor is None or cluster.replacements.under_way(name):
            return
        try:
            status = await bounded(actor.status.remote(), self._timeout_s, f"{name}: status")
        except Exception as error:  # the boundary that restarts
            await cluster.revive_inference(name, actor, cause_of(error))
            return
        cluster.status[name] = status
        if status["state"] in ("failed", "stopped"):
            await cluster.revive_inference(name, actor, f"{status['state']}: {status['reason']}")

    async def check_env(self, name: str) -> None:
        cluster = self._cluster
        actor = cluster.env.get(name)
        if actor is None or cluster.replacements.under_way(name):
            return
        try:
            cluster.status[name] = await bounded(actor.status.remote(), self._timeout_s, f"{name}: status")
        except Exception as error:  # the boundary that restarts
            await cluster.revive_env(name, actor, cause_of(error))

    async def check_learner(self) -> None:
        """A rank that died while nobody asked it anything, or that froze: LearnerLost."""
        learner = self._cluster.learner
        for rank, call in enumerate(learner.references("status")):
            try:
                await bounded(call, self._timeout_s, f"learner rank {rank}: status")
            except Exception as error:  # the boundary that stops
                learner.end()
                raise LearnerLost(f"learner rank {rank} of {len(learner)}: {cause_of(error)}") from error

    async def watch_ray(self) -> None:
        """Until cancelled. Also while the parts start: no deadline of theirs is as short as Ray's patience."""
        while True:
            await self.check_ray()
            await asyncio.sleep(self._every_s)

    async def check_ray(self) -> None:
        """Nobody starts Ray's own servers again, and Ray would end this process without a word: PartLost."""
        if problem := self._cluster.ray_problem(self._timeout_s):
            raise PartLost(problem)

    async def check_router(self, keeper: RouterKeeper) -> None:
        if status := await keeper.check():
            self._cluster.status[keeper.name] = status


def describe_rollouts(num_trajectories: int, num_groups: int, num_free: int) -> str:
    """What the rollouts do now, for the live view; `num_free`: groups that may be begun."""
    if num_groups or num_free:
        return f"{num_trajectories} trajectories under way, {num_groups} groups"
    return "no free slot: they wait for the next step"


def describe(status: dict[str, Any]) -> str:
    """What a part does now, from its status, for the live view. All but the numbers in it stays while it does the
    same."""
    if "state" in status:
        return (
            f"{status['state']}: version {status['version']}, {status['in_flight']} requests, "
            f"{status['served']} answered"
        )
    if "idle_envs" in status:
        text = f"{status['live']} trajectories, {status['steps']} steps, {status['memory_mb']:.0f} MB"
        return f"{text}; {status['notes']}" if status.get("notes") else text
    return f"{status['live_trajectories']} trajectories, {sum(status['in_flight'].values())} requests"
