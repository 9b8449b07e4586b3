"""The learner's ranks as one: started together, asked together, ended together.

Owns: the handles of the ranks, their rendezvous, what becomes of all when one fails. Called by `controller.cluster`,
and through it wherever the learner is asked (`cluster.learner`). Must not know: what the ranks compute.

Its methods are called as an actor's are: `ranks.save.remote(folder)`. The ranks work in step, so when one fails the
others would wait for it: they are killed, and the failure that came first is the cause. Nothing here waits without
end: the callers bound every call (`controller.deadline`), and end the ranks when it runs out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from controller.causes import cause_of
from controller.deadline import bounded
from controller.replacements import PartLost

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
GRACE_S = 3.0
"""A rank's death and what it does to the others are reported in any order: so long the others are listened to."""


class LearnerLost(PartLost):
    """The learner died or froze, which says nothing against starting it again from the last checkpoint."""


class LearnerRankError(RuntimeError):
    """A rank failed or died; the message names it and the cause. `lost`: no failure of its own was behind it."""

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


class _Call:
    """`remote(...)`: the method on every rank, rank 0's answer when all have answered."""

    def __init__(self, ranks: LearnerRanks, method: str) -> None:
        self._ranks = ranks
        self._method = method

    def remote(self, *arguments: Any) -> Any:
        return self._ranks.together(self._method, *arguments)


class _TrainStep(_Call):
    """`remote(groups, version)`: the groups are put into the object store once for all ranks."""

    async def remote(self, groups: Sequence[Any], version: int) -> Any:
        # Beside the loop: pickling thousands of trajectories takes seconds, in which every part waits for its answer.
        stored = await asyncio.to_thread(self._ranks.put, groups)
        return await super().remote(stored, version)


class LearnerRanks:
    """The handles of all ranks, rank 0 first."""

    def __init__(self, ranks: Sequence[Any], *, put: Callable[[Any], Any], kill: Callable[[Any], None]) -> None:
        """`put(value)`: a reference to it that every rank can be given. `kill(handle)` ends a rank."""
        self._ranks = list(ranks)
        self.put = put
        self._kill = kill
        self.ready = _Call(self, "ready")
        self.save = _Call(self, "save")
        self.load = _Call(self, "load")
        self.export = _Call(self, "export")
        self.train_step = _TrainStep(self, "train_step")
        self.weights = _Weights(self)
        # What rank 0 alone knows or does: it has the weights that were handed out.
        first = self._ranks[0]
        self.gpu, self.checksums = first.gpu, first.checksums
        self.open_channel, self.weight_shapes, self.send_weights = (
            first.open_channel, first.weight_shapes, first.send_weights,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._ranks)

    async def start(self, timeout_s: float) -> None:
        """Returns when every rank has its model. LearnerRankError or DeadlineError says which part failed."""
        address, port = LOOPBACK, 0
        if len(self._ranks) > 1:
            hosts = await bounded(self._all("host"), timeout_s, "learner: its ranks' processes")
            address = LOOPBACK if len(set(hosts)) == 1 else hosts[0]
            opened = self._ranks[0].open_rendezvous.remote(address)
            port = await bounded(opened, timeout_s, "learner rank 0: opening the rendezvous")
        what = f"learner: {len(self._ranks)} ranks meeting at {address}:{port} and loading the model"
        await bounded(self._all("start", address, port), timeout_s, what)

    async def together(self, method: str, *arguments: Any) -> Any:
        """Rank 0's answer, when all have answered."""
        return (await self._all(method, *arguments))[0]

    def references(self, method: str, *arguments: Any) -> list[Any]:
        return [getattr(rank, method).remote(*arguments) for rank in self._ranks]

    async def _all(self, method: str, *arguments: Any) -> list[Any]:
        async def one(reference: Any) -> Any:
            return await reference

        tasks = [asyncio.create_task(one(reference)) for reference in self.references(method, *arguments)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if any(task.done() and task.exception() for task in tasks):
                await asyncio.wait(tasks, timeout=GRACE_S)
                raise self._failure(tasks, method)
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _failure(self, tasks: Sequence[asyncio.Task[Any]], method: str) -> LearnerRankError:
        """Ends all ranks. A rank that died comes before one that lost its partner."""
        self.end()
        failed = [(rank, task.exception()) for rank, task in enumerate(tasks) if task.done() and task.exception()]
        rank, error = min(failed, key=lambda one: (not _is_death(one[1]), _is_lost_partner(one[1])))
        assert error is not None
        for other, consequence in failed:
            if other != rank and consequence is not None:
                logger.info("learner rank %d: %s", other, cause_of(consequence))
        lost = _is_death(error) or _is_lost_partner(error)
        return LearnerRankError(f"rank {rank} of {len(tasks)}, {method}: {cause_of(error)}", lost=lost)

    def end(self) -> None:
        """Kills every rank: a learner that lost one is no learner."""
        for rank in self._ranks:
            try:
                self._kill(rank)
            except Exception as error:  # the boundary that stops: it may be dead already
                logger.info("%s", cause_of(error))


class _Weights:
    """`remote()`: a reference to rank 0's weights at once; all ranks take part in gathering them."""

    def __init__(self, ranks: LearnerRanks) -> None:
        self._ranks = ranks

    def remote(self) -> Any:
        return self._ranks.references("weights")[0]


def is_lost(error: BaseException) -> bool:
    """Whether a call of the learner failed because a rank is gone, and not by what it did."""
    return error.lost if isinstance(error, LearnerRankError) else _is_death(error)


def _is_death(error: BaseException | None) -> bool:
    return type(error).__name__ in ("ActorDiedError", "RayActorError", "ActorUnavailableError", "ConnectionError")


def _is_lost_partner(error: BaseException | None) -> bool:
    """What torch's collectives say when another rank is gone."""
    text = str(error)
    return any(mark in text for mark in ("Connection closed by peer", "Connection reset", "gloo", "NCCL", "recvBytes"))
