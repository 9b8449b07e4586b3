"""Playing trajectories: hands specs to environment actors and sees each one through to its end.

Owns: the choice of the environment actor, attempts, replay after a death, the counts of what failed and
why. Called by `controller.generation` and `controller.evaluate`. Must not know: groups, the queue, training.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from actors.home_router import home_router
from actors.rollout import EnvTimeout, ReplayMismatch, TrajectorySpec
from controller.causes import cause_of
from controller.cluster import Cluster
from controller.deadline import DeadlineError, bounded
from envs.records import Trajectory, Turn

logger = logging.getLogger(__name__)

ROUTER_TIMEOUT_S = 60.0
"""Longest wait for the router's memory of a trajectory; without it replay starts afresh."""

Attempting = Callable[[TrajectorySpec, TrajectorySpec, str], None]
"""(the attempt given up, the next one, the reason)."""


class TrajectoryFailed(RuntimeError):
    """Every attempt at a trajectory failed; the message names task and last cause."""


class Player:
    """`play(spec)` gives the Trajectory or raises TrajectoryFailed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._rollout = cluster.config.rollout
        self._in_flight: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        """Failed attempts by reason."""
        self.replayed_turns = 0

    @property
    def server(self) -> Any:
        """One of the inference servers, for what is asked of it directly."""
        return next(iter(self._cluster.inference.values()))

    @property
    def live(self) -> int:
        """Trajectories under way."""
        return sum(self._in_flight.values())

    def num_on(self, name: str) -> int:
        """Trajectories under way on this environment actor."""
        return self._in_flight[name]

    def _choose(self) -> tuple[str, Any]:
        """The environment actor with the least to do; one that is leaving only if there is no other."""
        cluster = self._cluster
        # `min` gives the first among equals: the one that has been there longest.
        name = min(cluster.env, key=lambda one: (one in cluster.leaving, self._in_flight[one]))
        return name, cluster.env[name]

    async def play(
        self,
        spec: TrajectorySpec,
        replay: tuple[Turn, ...] = (),
        attempting: Attempting = lambda given_up, spec, reason: None,
    ) -> Trajectory:
        """`replay`: turns from which it can go on. `attempting` is told of every further attempt.

        Attempts share seeds, so a repeated one samples the same; turns that were accepted are not sampled again.

        The death of an environment actor is not the trajectory's fault: it costs a restart, not an attempt.
        """
        failed = 0
        while True:
            name, actor = self._choose()
            self._in_flight[name] += 1
            call = actor.run.remote(spec, replay)
            try:
                return await bounded(call, self._rollout.trajectory_timeout_s, f"trajectory {spec.trajectory_id}")
            except RayTaskError as error:
                failure: Exception = error.cause if isinstance(error.cause, Exception) else error
                failed += 1
            except RayActorError as error:
                failure = error
                await self._cluster.revive_env(name, actor, cause_of(error))
            except DeadlineError as error:
                failure = error
                failed += 1
                _cancel(call)
            finally:
                self._in_flight[name] -= 1
            reason = type(failure).__name__
            self.failures[reason] += 1
            logger.warning("%s: attempt %d ended: %s", spec.trajectory_id, spec.attempt, cause_of(failure))
            if failed >= self._rollout.max_attempts:
                raise TrajectoryFailed(
                    f"task {spec.task.id}: {failed} attempts at {spec.trajectory_id} failed; last: {reason}: {failure}"
                ) from failure
            if isinstance(failure, EnvTimeout):
                await self._cluster.revive_env(name, actor, str(failure))
            replay = () if isinstance(failure, ReplayMismatch) else await self._accepted(spec)
            self.replayed_turns += len(replay)
            self._router(spec.group_id).forget.remote([spec.trajectory_id])
            given_up, spec = spec, replace(spec, attempt=spec.attempt + 1)
            attempting(given_up, spec, reason)

    def _router(self, group_id: str) -> Any:
        routers = self._cluster.routers
        return routers[home_router(group_id, len(routers))]

    async def _accepted(self, spec: TrajectorySpec) -> tuple[Turn, ...]:
        """What the router remembers; nothing when it does not answer (it is being restarted: play starts afresh)."""
        try:
            call = self._router(spec.group_id).live.remote(spec.trajectory_id)
            return await bounded(call, ROUTER_TIMEOUT_S, f"router: turns of {spec.trajectory_id}")
        except (RayActorError, DeadlineError) as error:
            self.failures[f"replay lost: {type(error).__name__}"] += 1
            return ()

    def forget(self, trajectories: tuple[Trajectory, ...]) -> None:
        """The router need not remember these any more. Not waited for: a router that died has forgotten them."""
        for group_id in {trajectory.group_id for trajectory in trajectories}:
            self._router(group_id).forget.remote([one.id for one in trajectories if one.group_id == group_id])


def _cancel(call: Any) -> None:
    import ray

    ray.cancel(call)
