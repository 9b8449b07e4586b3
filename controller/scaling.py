"""How many environment actors and inference servers there are, changed while they work.

Owns: who joins, who leaves, and what happens to what they were doing. Called by `controller.train` for `t2po scale` and
for the autoscaling policy. Must not know: who asked, files, groups, the learner.

Who joins is used when it is up: an environment actor at once, an inference server when it has the newest weights. Who
leaves is given nothing new, gets some time to finish, and is ended. What it has not finished by then goes on elsewhere:
a trajectory from its last accepted turn, a request from its seed. So nothing is lost, and nothing is sampled otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from controller.causes import cause_of
from controller.cluster import Cluster
from controller.deadline import bounded
from controller.player import Player
from controller.run_size import ScaleError, Size

logger = logging.getLogger(__name__)

DRAIN_S = 30.0
"""So long who leaves may go on with what it has."""
LOOK_EVERY_S = 0.2
ASK_TIMEOUT_S = 10.0
SPARE_MEMORY = 0.9
"""New actors may take so much of the machine's free memory."""


class Scaling:
    """Of one cluster. One change at a time; the second waits."""

    def __init__(self, cluster: Cluster, player: Player, say: Callable[[str, str], None]) -> None:
        """`say(part, doing)`: the live view."""
        self._cluster = cluster
        self._player = player
        self._say = say
        self._lock = asyncio.Lock()

    async def to(self, size: Size) -> str:
        """Makes it so; what was done, in words. ScaleError before anything was changed, or for what did not start."""
        async with self._lock:
            cluster = self._cluster
            more_envs = (size.envs or len(cluster.env)) - len(cluster.env)
            more_inference = (size.inference or len(cluster.inference)) - len(cluster.inference)
            await asyncio.to_thread(self._check_room, max(more_envs, 0), max(more_inference, 0))
            done = [
                *await self._change(more_envs, cluster.env, "env", self._join_env, self._leave_env),
                *await self._change(
                    more_inference, cluster.inference, "inference", self._join_inference, self._leave_inference
                ),
            ]
            return ", ".join(done) or "nothing to do"

    def _check_room(self, num_envs: int, num_inference: int) -> None:
        """ScaleError or PlacementError when so many more find no place."""
        address = self._cluster.config.cluster.address
        if address:
            self._cluster.actors.check_more({"env": num_envs, "inference": num_inference})
        if address in ("", "local"):  # elsewhere the processes are other machines'
            check_memory(num_envs, num_inference, self._cluster.status)

    async def _change(
        self, more: int, members: dict[str, Any], kind: str, join: Callable[..., Any], leave: Callable[..., Any]
    ) -> list[str]:
        if more > 0:
            free = (f"{kind}-{index}" for index in range(len(members) + more + 1))
            names = [name for name in free if name not in members][:more]
            found = await asyncio.gather(*(join(name) for name in names), return_exceptions=True)
            failed = [f"{name}: {cause_of(error)}" for name, error in zip(names, found, strict=True) if _failed(error)]
            if failed:
                raise ScaleError(f"did not start: {'; '.join(failed)}; there are {len(members)} of {kind} now")
            return [f"{name} joined" for name in names]
        names = list(members)[len(members) + more :] if more else []
        await asyncio.gather(*(leave(name) for name in names))
        return [f"{name} left" for name in names]

    async def _join_env(self, name: str) -> None:
        cluster = self._cluster
        actor = cluster.new_env()
        try:
            await cluster.start_env(name, actor)
        except BaseException:
            cluster.actors.kill(actor)
            raise
        cluster.env[name] = actor

    async def _leave_env(self, name: str) -> None:
        cluster = self._cluster
        cluster.leaving.add(name)
        self._say(name, "leaving: finishing its trajectories")
        await _until(lambda: self._player.num_on(name) == 0)
        actor = cluster.env.pop(name)
        cluster.leaving.discard(name)
        await self._end(name, actor)

    async def _join_inference(self, name: str) -> None:
        cluster = self._cluster
        actor = cluster.actors.inference()
        try:
            await cluster.start_inference(name, actor)
            await cluster.publication.bring_up_to_date(name, actor)
        except BaseException:
            await cluster.end(name, actor)
            raise
        cluster.inference[name] = actor  # from here on every new version is sent to it too
        await cluster.tell_routers(name, actor)
        await cluster.note_targets()

    async def _leave_inference(self, name: str) -> None:
        cluster = self._cluster
        await cluster.replacements.settled(name)
        actor = cluster.inference.pop(name)
        self._say(name, "leaving: finishing its requests")
        await cluster.tell_routers(name, None)
        deadline = time.monotonic() + DRAIN_S
        try:
            while time.monotonic() < deadline:
                status = await bounded(actor.status.remote(), ASK_TIMEOUT_S, f"{name}: status")
                if not status["in_flight"]:
                    break
                await asyncio.sleep(LOOK_EVERY_S)
            await bounded(actor.stop.remote(), ASK_TIMEOUT_S, f"{name}: stopping")
        except Exception as error:  # the boundary that stops: it is ended in any case
            logger.info("%s", cause_of(error))
        await self._end(name, actor)

    async def _end(self, name: str, actor: Any) -> None:
        await self._cluster.end(name, actor)
        self._cluster.status.pop(name, None)
        await self._cluster.note_targets()
        self._say(name, "left")


async def _until(happened: Callable[[], bool]) -> None:
    """Returns at the latest after DRAIN_S."""
    deadline = time.monotonic() + DRAIN_S
    while not happened() and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_EVERY_S)


def _failed(outcome: Any) -> bool:
    return isinstance(outcome, BaseException)


def check_memory(num_envs: int, num_inference: int, status: Mapping[str, Mapping[str, Any]]) -> None:
    """Whether so many more fit beside what runs on this machine, by what those there take; ScaleError."""
    needed = 0.0
    for kind, count in (("env", num_envs), ("inference", num_inference)):
        sizes = [_memory_of(one["pid"]) for name, one in status.items() if name.startswith(f"{kind}-") and "pid" in one]
        needed += count * max(sizes, default=0.0)
    free = psutil.virtual_memory().available
    if needed > SPARE_MEMORY * free:
        raise ScaleError(
            f"{num_envs} more envs and {num_inference} more inference need {needed / 1e9:.1f} GB by what those there "
            f"take, and {free / 1e9:.1f} GB are free: ask for fewer, or end what else runs on the machine"
        )


def _memory_of(pid: int) -> float:
    """Bytes that a process and its children have for themselves; 0 when it is gone."""
    try:
        process = psutil.Process(pid)
        return float(sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]))
    except psutil.Error:
        return 0.0
