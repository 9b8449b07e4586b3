"""Which way new weights take from the learner to the engines, the channel on that way, and whether they arrived whole.

Owns: the choice between NCCL and the object store, opening the NCCL channel and sending over it, the comparison of
checksums. Called by `controller.cluster`. Must not know: steps, metrics, how an actor is replaced.

A broadcast needs everybody: when one engine or the learner fails in it, the others hang until their deadline, and the
run ends with the cause. Between broadcasts an engine may die as ever: its successor takes the newest weights from the
object store, and the channel is opened anew before the next broadcast.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from controller.causes import cause_of
from controller.deadline import bounded
from controller.replacements import PartLost
from controller.valkey_process import free_port
from envs.weight_checksum import difference

Route = Literal["object_store", "nccl"]

ADDRESS = "127.0.0.1"
"""All parts of a run are on one machine."""


class WeightMismatch(PartLost):
    """An engine holds other weights than the learner sent: whatever it generates is of no known policy."""


class WeightRouteError(ValueError):
    """The way that was asked for is not there; names the part and the remedy."""


def choose_route(wanted: str, learner_gpu: str, engine_gpus: Mapping[str, str]) -> Route:
    """`*_gpu`: unique id of the GPU of a part, empty without one. NCCL needs a GPU of its own for every rank."""
    gpus = {"learner": learner_gpu, **engine_gpus}
    without = [name for name, gpu in gpus.items() if not gpu]
    shared = [name for name, gpu in gpus.items() if gpu and list(gpus.values()).count(gpu) > 1]
    if wanted == "nccl" and (without or shared):
        who = f"{', '.join(without)} has no GPU" if without else f"{', '.join(shared)} share a GPU"
        raise WeightRouteError(
            f'inference.weight_transfer = "nccl": {who}, and NCCL needs one for each; use "auto" or "object_store"'
        )
    return "object_store" if wanted == "object_store" or without or shared else "nccl"


def check_arrival(version: int, sent: Mapping[str, int], reports: Mapping[str, Any]) -> None:
    """Raises WeightMismatch unless every engine that reports checksums holds what was sent."""
    for name, report in reports.items():
        if report.checksums is not None and (what := difference(sent, report.checksums)):
            raise WeightMismatch(
                f"{name} does not hold the weights of version {version} that the learner sent: {what}; resume the run: "
                "it goes on from its last checkpoint"
            )


class WeightChannel:
    """The NCCL channel: the learner is rank 0, the engines follow in the order of their names."""

    def __init__(self, learner: Any, timeout_s: float) -> None:
        self._learner = learner
        self._timeout_s = timeout_s
        self._members: dict[str, Any] = {}

    async def publish(self, version: int, servers: Mapping[str, Any], verify: bool) -> dict[str, Any]:
        """The weights that the learner handed out last go live on all `servers`; their reports by name."""
        what = f"weights of version {version} over NCCL"
        try:
            await self._open(servers)
            names, dtypes, shapes = await bounded(self._learner.weight_shapes.remote(), self._timeout_s, what)
            sending = self._learner.send_weights.remote()
            receiving = [
                actor.receive_weights.remote(version, names, dtypes, shapes, verify) for actor in servers.values()
            ]
            _, *reports = await asyncio.gather(
                *(bounded(call, self._timeout_s, what) for call in (sending, *receiving))
            )
        except Exception as error:  # the boundary that stops: a broken broadcast leaves every rank unusable
            raise PartLost(f"{what}: {cause_of(error)}; resume the run") from error
        return dict(zip(servers, reports, strict=True))

    async def _open(self, servers: Mapping[str, Any]) -> None:
        """Every rank joins at the same time. Nothing to do while the members are the same."""
        if dict(servers) == self._members:
            return
        self._members = {}
        port, num_ranks = free_port(), 1 + len(servers)
        joins = [self._learner.open_channel.remote(ADDRESS, port, num_ranks)]
        joins += [
            actor.open_channel.remote(ADDRESS, port, rank, num_ranks) for rank, actor in enumerate(servers.values(), 1)
        ]
        await asyncio.gather(*(bounded(call, self._timeout_s, "opening the weight channel") for call in joins))
        self._members = dict(servers)
