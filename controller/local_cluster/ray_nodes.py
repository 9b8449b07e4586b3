"""What the cluster's head knows: its nodes with their slots, its actors; and taking a node out of service.

Owns: asking GCS, without becoming a part of the cluster. Called by the other modules of this
package and by `controller.joined_session`. Must not know: processes of this machine, the state file.

Ray is imported inside the functions: it reads its environment at its import.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.causes import cause_of
from controller.cluster_access import probe, use_token
from controller.local_cluster.state import ClusterError
from controller.placement import RESOURCES

ANSWER_TIMEOUT_S = 15.0
DRAIN_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Node:
    """One raylet as the head sees it. `total` and `free`: resources by name, where a slot of a role is free that no
    actor has (Ray's own account of them lags behind). `cause`: why it is gone."""

    id: str
    temp: str
    alive: bool
    total: dict[str, float]
    free: dict[str, float]
    cause: str
    num_actors: int


@dataclass(frozen=True, slots=True)
class Actor:
    """One actor. `node`: the id of its node, empty while it waits for one."""

    name: str
    state: str
    node: str
    pid: int
    job: str


class RayNodes:
    """The head at `address`, asked with the token. ClusterError when it does not answer, or not to us."""

    def __init__(self, address: str, token: Path | None) -> None:
        self.address = address
        self._token = token
        probe(address)
        use_token(token)
        from ray._raylet import GcsClient

        try:
            self._gcs = GcsClient(address=address)
        except Exception as error:  # the boundary that stops: what Ray raises is nobody's class of error
            raise self._error(error) from error

    def nodes(self) -> list[Node]:
        """All raylets that there were in the life of this head."""
        found = self._ask(lambda: self._gcs.get_all_node_info(timeout=ANSWER_TIMEOUT_S))
        free = self._free()
        actors = Counter(actor.node for actor in self.actors())
        nodes = []
        for key, info in found.items():
            alive, name = info.state == 0, key.hex()
            total = dict(info.resources_total)
            slots = {one: value - actors[name] for one, value in total.items() if one in RESOURCES.values()}
            nodes.append(
                Node(
                    id=name,
                    temp=info.temp_dir if hasattr(info, "temp_dir") else "",
                    alive=alive,
                    total=total,
                    free={**free.get(name, {}), **slots} if alive else {},
                    cause="" if alive else info.death_info.reason_message,
                    num_actors=actors[name],
                )
            )
        return nodes

    def actors(self) -> list[Actor]:
        """All that live or wait for a place."""
        import asyncio

        from ray.core.generated import gcs_pb2

        async def ask() -> Any:
            return await self._gcs.async_get_all_actor_info(timeout=ANSWER_TIMEOUT_S)

        found = self._ask(lambda: asyncio.run(ask()))
        names = gcs_pb2.ActorTableData.ActorState
        actors = []
        for info in found.values():
            state = names.Name(info.state)
            if state == "DEAD":
                continue
            node = info.address.node_id.hex() if info.address.node_id else ""
            actors.append(Actor(info.class_name, state, node, info.pid, info.job_id.hex()))
        return actors

    def drain(self, node: str, why: str) -> None:
        """Nothing new is placed on the node. ClusterError when the head refuses."""
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = int((time.time() + DRAIN_TIMEOUT_S) * 1000)
        accepted, refusal = self._ask(lambda: self._gcs.drain_node(node, reason, why, deadline_ms))
        if not accepted:
            raise ClusterError(f"{self.address}: the head does not drain node {node}: {refusal}")

    def _free(self) -> dict[str, dict[str, float]]:
        from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply

        reply = GetClusterResourceStateReply()
        reply.ParseFromString(self._ask(lambda: self._gcs.get_cluster_resource_state(timeout_s=ANSWER_TIMEOUT_S)))
        states = reply.cluster_resource_state.node_states
        return {state.node_id.hex(): dict(state.available_resources) for state in states}

    def _ask(self, question: Any) -> Any:
        try:
            return question()
        except Exception as error:  # the boundary that stops
            raise self._error(error) from error

    def _error(self, error: Exception) -> ClusterError:
        text = cause_of(error)
        if "InvalidAuthToken" in text or "AuthenticationError" in text:
            where = self._token or "RAY_AUTH_TOKEN"
            return ClusterError(f"{self.address}: the token in {where} is not this cluster's; copy the cluster's there")
        return ClusterError(f"{self.address}: the head does not answer: {text}; is it overloaded or gone?")
