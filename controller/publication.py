"""New weights on every inference server, under their version: which way they travel, and that they arrived.

Owns: the newest weights and their version, the route, the comparison of what arrived with what was sent, the newest
weights for a server that starts late. Called by `controller.cluster`, and through it by whoever has trained. Must not
know: how weights are made, when they are, how a server is replaced.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from controller.causes import cause_of
from controller.deadline import bounded
from controller.weight_route import Route, WeightChannel, check_arrival, choose_route

if TYPE_CHECKING:
    from controller.cluster import Cluster

logger = logging.getLogger(__name__)


class Publication:
    """`choose_route` when every part is up, then `publish` again and again."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._newest: tuple[int, Any] | None = None
        self._route: Route = "object_store"
        self._channel: WeightChannel
        self._num_published = 0
        self._ping_timeout_s = cluster.config.supervision.ping_timeout_s
        self._update_timeout_s = cluster.config.inference.update_timeout_s

    async def choose_route(self) -> None:
        """How weights will travel; known only now that every part says which GPU it has."""
        cluster = self._cluster
        calls = {name: actor.status.remote() for name, actor in cluster.inference.items()}
        engines = {
            name: (await bounded(call, self._ping_timeout_s, f"{name}: status"))["gpu"] for name, call in calls.items()
        }
        learner = await cluster.ask_learner(cluster.learner.gpu.remote(), "saying which GPU it has")
        self._route = choose_route(cluster.config.inference.weight_transfer, learner, engines)
        self._channel = WeightChannel(cluster.learner, self._update_timeout_s)
        logger.info("new weights travel by %s", self._route)

    async def publish(self, version: int, weights: Any) -> dict[str, Any]:
        """Makes `weights` (a Ray reference) live under `version` on every inference server.

        Their reports by name; a server that was replaced meanwhile came up with these weights and has none. Every so
        often (`inference.verify_every`) what arrived is compared with what was sent; WeightMismatch ends the run.
        """
        cluster = self._cluster
        every = cluster.config.inference.verify_every
        verify = cluster.trains and bool(every) and self._num_published % every == 0
        self._num_published += 1
        if self._route == "nccl":
            for name in cluster.inference:
                await cluster.replacements.settled(name)
            reports = await self._channel.publish(version, dict(cluster.inference), verify)
            self._newest = (version, weights)  # only now: who is replaced before takes part in the broadcast
        else:
            self._newest = (version, weights)
            names = list(cluster.inference)
            found = await asyncio.gather(*(self._publish_to(name, version, weights, verify) for name in names))
            reports = {name: report for name, report in zip(names, found, strict=True) if report is not None}
        if verify:
            sent = await cluster.ask_learner(cluster.learner.checksums.remote(), f"summing up the weights of {version}")
            check_arrival(version, sent, reports)
        return reports

    async def _publish_to(self, name: str, version: int, weights: Any, verify: bool) -> Any | None:
        cluster = self._cluster
        while True:
            # While it is being replaced its handle is that of a server which still starts; it comes up with `weights`.
            await cluster.replacements.settled(name)
            actor = cluster.inference.get(name)
            if actor is None:  # it left (controller.scaling)
                return None
            try:
                status = await bounded(actor.status.remote(), self._ping_timeout_s, f"{name}: status")
                if status["version"] == version:
                    return None
                call = actor.update_weights.remote(version, weights, verify)
                return await bounded(call, self._update_timeout_s, f"{name}: weight update {version}")
            except Exception as error:  # the boundary that retries: a broken engine is replaced, within its budget
                logger.warning("%s: weight update %d failed: %s", name, version, cause_of(error))
                await cluster.revive_inference(name, actor, cause_of(error))

    async def bring_up_to_date(self, name: str, actor: Any) -> None:
        """The newest weights for a server that has just started; also those that were made meanwhile."""
        loaded = None
        while self._newest is not None and loaded != self._newest[0]:
            loaded, weights = self._newest
            call = actor.update_weights.remote(loaded, weights)
            await bounded(call, self._update_timeout_s, f"{name}: weights of version {loaded}")
