"""Stand-ins for engines, environments and learner ranks: they wait as long as the real ones did, and answer alike.

Owns: these parts, and the cluster that they make up. Called by `bench.simulation.scene`. Must not know: what is
measured. Everything that a stand-in answers follows from seeds; only the order of events does not.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from actors.busy_spans import BusySpans, Span
from actors.env_actor import EnvActor
from actors.home_router import home_router
from actors.inference_actor import MAX_CONCURRENCY
from actors.rollout import TrajectorySpec
from bench.simulation.places import Handle, Place
from bench.simulation.recorded import Recorded, draw
from controller.cluster import Cluster
from controller.config import RunConfig
from controller.learner_ranks import LearnerRanks
from controller.part_actors import PartActors
from controller.part_settings import router_settings
from controller.router_actor import RouterActor
from envs.records import Candidate, SignalRange, Trajectory, Turn, TurnRequest
from envs.seeds import derive_seed

Router = RouterActor.__ray_metadata__.modified_class
"""The class below Ray's shell."""

RANGE = SignalRange(entropy_min=0.0, entropy_max=1.0, confidence_min=0.0, confidence_max=1.0)
TEXT = "<think>the lamp may be on the desk, i should look there first</think><action>go to desk 1</action>"
UNLIMITED = 10**6


def limit_of(actor: Any) -> int:
    """Calls that an actor class takes at once."""
    return int(actor._default_options["max_concurrency"])


def share_of(seed: int, what: int) -> float:
    """A number in [0, 1) that follows from a seed, another one for each `what`."""
    return (seed * 1_103_515_245 + what * 715_827_883) % 2**31 / 2**31


@functools.lru_cache(maxsize=512)
def _arrays(length: int) -> dict[str, Any]:
    return {
        "token_ids": np.arange(length, dtype=np.int32),
        "logprobs": np.full(length, -0.5, dtype=np.float32),
        "forced": np.zeros(length, dtype=np.bool_),
        "entropy": np.full(length, 0.3, dtype=np.float32),
        "uncertainty": np.linspace(0.1, 0.9, length, dtype=np.float32),
    }


class Engine:
    """One inference server."""

    def __init__(self, recorded: Recorded, stretch: float) -> None:
        self._recorded = recorded
        self._stretch = stretch
        self._busy = BusySpans()
        self._in_flight = self._served = self._version = 0

    async def start(self, *settings: Any) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def status(self) -> dict[str, Any]:
        return {
            "state": "ready", "reason": "", "version": self._version, "in_flight": self._in_flight,
            "served": self._served, "pid": 0, "gpu": "",
        }  # fmt: skip

    async def busy_spans(self) -> list[Span]:
        return self._busy.take()

    async def update_weights(self, version: int, weights: Any, verify: bool = False) -> Any:
        await asyncio.sleep(draw(self._recorded.sync_s, share_of(version, 0)) * self._stretch)
        self._version = version
        return SimpleNamespace(version=version, bytes=0, pause_seconds=0.0, checksums=None)

    async def generate(
        self, request_id: str, prompt_ids: Any, seed: int, signal_range: Any, sampling: Any, epsilon: float | None
    ) -> Candidate:
        self._in_flight += 1
        self._busy.switch(True)
        version = self._version
        try:
            await asyncio.sleep(draw(self._recorded.turn_s, share_of(seed, 1)) * self._stretch)
        finally:
            self._in_flight -= 1
            self._busy.switch(self._in_flight > 0)
        self._served += 1
        length = round(draw(self._recorded.reply_tokens, share_of(seed, 2)))
        return Candidate(
            **_arrays(length), text=TEXT, phi=share_of(seed, 3), gamma=float("nan"), kept=True, fired="", fired_at=-1,
            num_think_tokens=length // 2, finish_reason="stop", seed=seed, min_version=version,
            max_version=self._version, range_after=RANGE, think_at=1,
        )  # fmt: skip


class Environments:
    """One environment actor. The environment's own time is in the recorded time of a turn."""

    def __init__(self, recorded: Recorded, routers: Sequence[Any], most_turns: int) -> None:
        self._recorded = recorded
        self._routers = routers
        self._most_turns = most_turns
        self._live = self.steps = 0

    async def status(self) -> dict[str, Any]:
        return {"live": self._live, "idle_envs": 0, "steps": self.steps, "failures": 0, "memory_mb": 0.0, "notes": ""}

    async def busy_spans(self) -> list[Span]:
        return []

    async def run(self, spec: TrajectorySpec, replay: tuple[Turn, ...] = ()) -> Trajectory:
        self._live += 1
        seed = derive_seed(spec.task.id, spec.visit, spec.sibling)
        turns: list[Turn] = list(replay)
        length = min(round(draw(self._recorded.turns, share_of(seed, 0))), self._most_turns)
        unseen = tuple(turns)
        while len(turns) < length:
            turns.append(await self._turn(spec, turns, unseen, seed, is_last=len(turns) == length - 1))
            unseen = tuple(turns[-1:])
        self._live -= 1
        won = share_of(seed, 4) < 0.5
        return Trajectory(
            id=spec.trajectory_id, group_id=spec.group_id, task=spec.task, sibling=spec.sibling, attempt=spec.attempt,
            turns=tuple(turns), won=won, duration_s=0.0, score=float(won),
        )  # fmt: skip

    async def _turn(
        self, spec: TrajectorySpec, turns: list[Turn], unseen: tuple[Turn, ...], seed: int, *, is_last: bool
    ) -> Turn:
        number = len(turns)
        chars = round(draw(self._recorded.observation_chars, share_of(seed, 100 + number)))
        tokens = round(draw(self._recorded.prompt_tokens, share_of(seed, 200 + number)))
        prompt_ids = np.arange(tokens, dtype=np.int32)
        last = turns[-1].accepted if turns else None
        request = TurnRequest(
            trajectory_id=spec.trajectory_id,
            group_id=spec.group_id,
            turn=number,
            prompt_ids=prompt_ids,
            signal_range=last.range_after if last else SignalRange(),
            previous_phi=last.phi if last else float("nan"),
            seed_key=spec.seed_key(number),
        )
        router = self._routers[home_router(spec.group_id, len(self._routers))]
        reply = await router.request_turn.remote(request, spec.sampling, unseen)
        self.steps += 1
        return Turn(
            prompt_ids=prompt_ids, accepted=reply.accepted, rejected=reply.rejected,
            observation=f"{number:3}" * (chars // 3), action="go to desk 1", format_valid=True, valid=True, reward=0.0,
            done=is_last, next_observation=f"{number + 1:3}" * (chars // 3),
        )  # fmt: skip


class Rank:
    """One learner rank: it trains its part of the samples."""

    def __init__(self, recorded: Recorded, stretch: float, rank: int, num_ranks: int) -> None:
        self._recorded = recorded
        self._stretch = stretch
        self._rank = rank
        self._num_ranks = num_ranks

    async def host(self) -> str:
        return "127.0.0.1"

    async def open_rendezvous(self, address: str) -> int:
        return 1

    async def start(self, address: str, port: int) -> None:
        return None

    async def gpu(self) -> str:
        return ""

    async def status(self) -> dict[str, Any]:
        return {"doing": "", "since": 0.0, "pid": 0}

    async def ready(self) -> None:
        return None

    async def weights(self) -> None:
        return None

    async def train_step(self, samples: int, version: int) -> dict[str, float]:
        seconds = draw(self._recorded.train_s, share_of(version, 5)) * samples / self._num_ranks * self._stretch
        await asyncio.sleep(seconds)
        return {"updates": 1.0, "samples": float(samples), "train_s": seconds}

    async def save(self, folder: str) -> None:
        if self._rank == 0:
            Path(folder).mkdir()

    export = save


class StandIns(PartActors):
    """The parts of one run. `world`: where everything lives that is neither controller nor router."""

    def __init__(
        self,
        config: RunConfig,
        recorded: Recorded,
        stretch: float,
        most_turns: int,
        world: Place,
        at_routers: Sequence[Place],
    ) -> None:
        self._config = config
        self._recorded = recorded
        self._stretch = stretch
        self._most_turns = most_turns
        self._world = world
        self._at_routers = at_routers
        self.environments: list[Environments] = []
        self.env_handles: list[Handle] = []
        self.router_handles: list[Handle] = []

    def check_places(self, with_learner: bool) -> None:
        return None

    def inference(self) -> Handle:
        return Handle(self._world, Engine(self._recorded, self._stretch), MAX_CONCURRENCY)

    def router(self, index: int) -> Handle:
        part = Router(router_settings(self._config, index))
        self.router_handles.append(Handle(self._at_routers[index], part, limit_of(RouterActor)))
        return self.router_handles[-1]

    def env(self, routers: tuple[Any, ...]) -> Handle:
        part = Environments(self._recorded, routers, self._most_turns)
        self.environments.append(part)
        self.env_handles.append(Handle(self._world, part, limit_of(EnvActor)))
        return self.env_handles[-1]

    def learner(self) -> LearnerRanks:
        count = self._config.learner.num_ranks
        ranks = [Rank(self._recorded, self._stretch, rank, count) for rank in range(count)]
        return LearnerRanks([Handle(self._world, one, UNLIMITED) for one in ranks], put=_put, kill=self.kill)

    def sampling(self) -> dict[str, Any]:
        return {"train": None, "eval": None}

    def kill(self, actor: Any) -> None:
        return None


def _put(groups: Any) -> int:
    """What the object store is given is pickled in the controller; the ranks need to know no more than its size."""
    import pickle

    pickle.dumps(groups, protocol=5)
    return sum(len(trajectory.turns) for group in groups for trajectory in group.trajectories)


class NoSession:
    """No Ray."""

    def start(self) -> None:
        return None

    def stop(self) -> None:
        return None

    def metrics_addresses(self) -> list[str]:
        return []

    def problem(self, patience_s: float) -> str:
        return ""

    def end_children_of(self, pid: int) -> None:
        return None


class SimulatedCluster(Cluster):
    """The real one, of stand-ins."""

    stand_ins: StandIns

    def __init__(self, config: RunConfig, policy: Path, *, stand_ins: StandIns, **options: Any) -> None:
        super().__init__(config, policy, **options, actors=stand_ins)
        self._session = NoSession()  # type: ignore[assignment]
