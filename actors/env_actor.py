"""The Ray shell around `EnvPool`: one process, many trajectories at once.

Owns: how the pool reaches the routers (handles passed in, calls with deadlines, retries while a router
restarts). Called by `controller.cluster` and `controller.generation`. Must not know: the router's class,
how many environment actors there are, or what becomes of a Trajectory.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.busy_spans import Span
from actors.env_pool import EnvPool, load_tokenizer
from actors.home_router import home_router
from actors.rollout import PlaySettings, TrajectorySpec
from envs.records import Trajectory, Turn, TurnReply, TurnRequest

ROUTER_RETRY_S = 0.5
"""Pause before a router that died is asked again; Ray restarts it meanwhile."""


class RouterLost(RuntimeError):
    """The router did not answer before the turn's deadline."""


@ray.remote(num_cpus=0, max_restarts=0, max_concurrency=4096)
class EnvActor:
    """Environments of one process. `run` is called once a trajectory; thousands may be in flight."""

    def __init__(
        self, settings: PlaySettings, tokenizer_path: str, routers: Sequence[Any], turn_timeout_s: float
    ) -> None:
        from envs.text_env import make_env

        self._routers = routers
        self._turn_timeout_s = turn_timeout_s
        self._pool = EnvPool(settings, load_tokenizer(tokenizer_path), lambda: make_env(settings.env), self._ask)

    async def run(self, spec: TrajectorySpec, replay: tuple[Turn, ...] = ()) -> Trajectory:
        return await self._pool.run(spec, replay)

    async def status(self) -> dict[str, Any]:
        return {**self._pool.status(), "pid": os.getpid()}

    async def busy_spans(self) -> list[Span]:
        """When at least one environment was at work, since this was last asked."""
        return self._pool.busy.take()

    async def _ask(
        self, request: TurnRequest, sampling: Literal["train", "eval"], unseen: tuple[Turn, ...]
    ) -> TurnReply:
        router = self._routers[home_router(request.group_id, len(self._routers))]
        deadline = time.monotonic() + self._turn_timeout_s
        while True:
            left = deadline - time.monotonic()
            try:
                async with asyncio.timeout(max(left, 0.001)):
                    reply: TurnReply = await router.request_turn.remote(request, sampling, unseen)
                    return reply
            except RayTaskError:
                raise  # the router answered: with a failure of its own that names its cause
            except TimeoutError as error:
                raise RouterLost(
                    f"{request.trajectory_id}, turn {request.turn}: no answer from the router "
                    f"within {self._turn_timeout_s:g} s"
                ) from error
            except RayActorError:
                await asyncio.sleep(min(ROUTER_RETRY_S, max(left, 0.0)))
