"""Where a run's actors go in a cluster that it joined: to raylets of their role, evenly.

Owns: Ray's options for placement, which node the next actor gets, the check before anything starts. Called by
`controller.part_actors`. Must not know: what an actor does. In a private Ray it does nothing.

Ray itself packs actors of one role onto one raylet while it has room ("SPREAD" did so too, measured): its death would
take all of them along. So the emptiest raylet is named; should it have no room, Ray takes another.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Mapping
from typing import Any

from controller import placement
from controller.config import RunConfig

ANSWER_TIMEOUT_S = 2.0


class ActorPlaces:
    """`options` for an actor of a role, `note` where it was sent, `forget` it when it is ended."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._joined = bool(config.cluster.address)
        self._totals: list[Mapping[str, float]] | None = None
        self._sent: dict[str, str] = {}
        """Actor -> the node that it was sent to, by their ids."""

    def check(self, counts: Mapping[str, int]) -> None:
        """Whether so many more actors, by role, find a place; PlacementError names every role that does not."""
        if not self._joined:
            return
        from ray._private.state import available_resources_per_node

        free = list(available_resources_per_node().values())
        needs = [(role, count, self.asked(role)) for role, count in counts.items()]
        placement.check_places(needs, free, f"the cluster {self._config.cluster.address}")

    def asked(self, role: str) -> dict[str, float]:
        """What an actor of the role asks the joined cluster for: nothing in a private Ray."""
        if not self._joined:
            return {}
        nodes = self._first_nodes()
        gpus = placement.gpus_of_role(role, nodes)
        if role == "inference":
            return placement.asked_by(role, nodes, 1 if gpus >= self._config.inference.num_servers else 0)
        if role == "learner":
            from learner.learner_actor import gpus_a_rank

            return placement.asked_by(role, nodes, gpus_a_rank(self._config.learner, gpus))
        return placement.asked_by(role, nodes)

    def _first_nodes(self) -> list[Mapping[str, float]]:
        """Of the raylets that lived when this was first asked: with all raylets of a role dead its actors still ask
        for one, and wait for it."""
        if self._totals is None:
            self._totals = [node["Resources"] for node in _nodes()]
        return self._totals

    def options(self, role: str) -> dict[str, Any]:
        """Ray's options for the next actor of the role."""
        asked = self.asked(role)
        if not asked:
            return {}
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        num_gpus = asked.pop(placement.GPU, 0)
        options: dict[str, Any] = {"resources": asked, **({"num_gpus": num_gpus} if num_gpus else {})}
        if node := placement.emptiest(asked, _answering_nodes(), Counter(self._sent.values())):
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)
        return options

    def note(self, actor: Any, options: Mapping[str, Any]) -> Any:
        """The actor, which was made with these options."""
        strategy = options.get("scheduling_strategy")
        if strategy is not None:
            self._sent[actor._actor_id.hex()] = strategy.node_id
        return actor

    def forget(self, actor: Any) -> None:
        if self._sent:
            self._sent.pop(actor._actor_id.hex(), None)


def _nodes() -> list[dict[str, Any]]:
    """Ray's account of every raylet that lives."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _answering_nodes() -> dict[str, Mapping[str, float]]:
    """The total resources of every raylet that answers now, by its id. Ray counts a killed one as alive for some time,
    and what is sent there is lost."""
    found = {}
    for node in _nodes():
        with contextlib.suppress(OSError):
            socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), ANSWER_TIMEOUT_S).close()
            found[node["NodeID"]] = node["Resources"]
    return found
