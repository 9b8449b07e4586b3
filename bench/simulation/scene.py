"""One simulated run, measured: the real training loop among stand-ins.

Owns: `Size`, `Measured`, how a run is set up and what is read off it. Called by `bench.simulation.__main__` and tests.
Must not know: tables.

Real: TrainingRun with all that it is made of (Generation, Player, Inbox, replay queue on a Valkey of its own, slots,
Update, checkpoints, audit, metrics, supervision), Router, LearnerRanks. Engines, environments, ranks: stand-ins.
"""

from __future__ import annotations

import asyncio
import cProfile
import functools
import io
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import ray
from rich.console import Console

from bench.simulation.places import Place, Reply, thread_cpu_s
from bench.simulation.recorded import Recorded, read_recorded
from bench.simulation.stand_ins import SimulatedCluster, StandIns
from controller import cluster, training_run
from controller.config import RunConfig, validate
from controller.live_view import LiveView
from controller.metrics import read_metrics
from controller.run_folder import RunFolder
from controller.training_run import TrainingRun
from envs.panel import Panel, make_panel

PANEL_TASKS = 2560
LIVE_PER_ENV_ACTOR = 640
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """`live`: trajectories under way; `stretch`: how many times the recorded latencies everything takes; `most_turns`:
    trajectories are cut there."""

    live: int
    servers: int
    ranks: int = 64
    routers: int = 1
    staleness: int = 1
    steps: int = 2
    group_size: int = 8
    stretch: float = 1.0
    most_turns: int = 1000

    @property
    def groups_per_step(self) -> int:
        return max(1, self.live // (self.group_size * (self.staleness + 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Counters of a moment. CPU in seconds; `pool_s` is that of the controller's other threads."""

    at: float
    turns: int
    loop_s: float
    pool_s: float
    router_s: tuple[float, ...]
    world_s: float
    valkey_s: float
    rss_mb: float
    valkey_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Of the steps of one run. CPU in µs a turn by process, `router_us` that of all routers; memory in KiB a live
    trajectory, of all but the queue's server; `most_in_router`: calls in one or in line at once; `stall_s`: longest
    time in which the loop did not turn."""

    size: Size
    turns: int
    trajectories: int
    controller_us: float
    controller_pool_us: float
    router_us: float
    busiest_router_us: float
    world_us: float
    valkey_us: float
    rss_mb: float
    kib_a_trajectory: float
    valkey_mb: float
    most_live: int
    most_in_router: int
    stall_s: float
    t_generate_s: float
    t_train_s: float
    t_sync_s: float
    t_step_s: float
    overlap_share: float


def configure(size: Size, folder: Path) -> RunConfig:
    """No deadline is near: what is measured is what the work costs, not what a loaded machine makes of it."""
    size_of_step = size.groups_per_step
    return validate(
        {
            "name": f"live{size.live}-servers{size.servers}-staleness{size.staleness}",
            "runs_dir": str(folder),
            "steps": size.steps,
            "rollout": {
                "groups_per_step": size_of_step, "group_size": size.group_size, "max_staleness": size.staleness,
                "num_env_actors": -(-size.live // LIVE_PER_ENV_ACTOR), "trajectory_timeout_s": DAY_S,
                "num_routers": size.routers,
            },
            "inference": {
                "num_servers": size.servers, "request_timeout_s": DAY_S, "verify_every": 0,
                "weight_transfer": "object_store",
            },
            "learner": {"num_ranks": size.ranks, "step_timeout_s": DAY_S},
            "queue": {"max_groups": (size.staleness + 3) * size_of_step, "timeout_s": 600.0},
            "tds": {"eta": 0.1, "max_candidates": 2},
            "eval": {"before": False, "num_tasks": 1},
            "checkpoint": {"every_steps": size.steps},
            "metrics": {"port": 0},
            "supervision": {"ping_timeout_s": DAY_S},
        },
        source="simulation",
    )  # fmt: skip


class Scene:
    """Sets a run up in `folder`, conducts it, and reads its counters after the start and after every step."""

    def __init__(
        self,
        size: Size,
        folder: Path,
        *,
        recorded: Recorded | None = None,
        profile_router: cProfile.Profile | None = None,
    ) -> None:
        self.size = size
        self.readings: list[Reading] = []
        self.most_live = 0
        self.stall_s = 0.0
        self._world = Place("world")
        profiles = [profile_router] + [None] * (size.routers - 1)
        self._at_routers = [Place(f"router-{index}", profile) for index, profile in enumerate(profiles)]
        self._config = configure(size, folder)
        self._stand_ins = StandIns(
            self._config, recorded or read_recorded(), size.stretch, size.most_turns, self._world, self._at_routers
        )
        self._run_folder = RunFolder.create(self._config, "simulation")
        self.path = self._run_folder.path
        policy = self._run_folder.policy
        policy.mkdir()
        (policy / "config.json").write_text("{}", encoding="utf-8")
        self.run = self._training_run(policy)

    def _training_run(self, policy: Path) -> TrainingRun:
        view = _View(self)
        made = functools.partial(SimulatedCluster, stand_ins=self._stand_ins)
        with patch.object(training_run, "Cluster", made), patch.object(training_run, "load_panel", made_panel):
            return TrainingRun(self._config, self._run_folder, policy, view, resumed=False)

    def conduct(self) -> Measured:
        try:
            asyncio.run(self._conduct())
        finally:
            self._run_folder.close()
            for place in (*self._at_routers, self._world):
                place.stop()
        return self._measured()

    async def _conduct(self) -> None:
        watching = asyncio.create_task(self._watch())
        try:
            # Ray would start one of its own to cancel a call in; and what is asked in vain counts as not busy.
            with patch.object(ray, "cancel", Reply.cancel), patch.object(cluster, "BUSY_TIMEOUT_S", DAY_S):
                await self.run.conduct()
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        every_s = 0.1
        while True:
            began = time.monotonic()
            await asyncio.sleep(every_s)
            if self.readings and len(self.readings) <= self.size.steps:
                self.stall_s = max(self.stall_s, time.monotonic() - began - every_s)
            self.most_live = max(self.most_live, self.run.player.live)

    def read(self) -> None:
        process = psutil.Process()
        server = next((one for one in process.children() if "valkey" in one.name()), process)
        router_s, world_s = tuple(place.cpu_s for place in self._at_routers), self._world.cpu_s
        loop_s = thread_cpu_s(threading.main_thread())
        times = server.cpu_times()
        self.readings.append(
            Reading(
                at=time.monotonic(),
                turns=sum(one.steps for one in self._stand_ins.environments),
                loop_s=loop_s,
                pool_s=time.process_time() - loop_s - sum(router_s) - world_s,
                router_s=router_s,
                world_s=world_s,
                valkey_s=times.user + times.system,
                rss_mb=process.memory_info().rss / 1e6,
                valkey_mb=server.memory_info().rss / 1e6,
            )
        )

    def _measured(self) -> Measured:
        first, last = self.readings[0], self.readings[-1]
        turns = max(last.turns - first.turns, 1)
        rows = [step.values for step in read_metrics(self._run_folder.metrics)]
        # The first step waits for the first trajectories, the last ones have nothing to generate beside them.
        steady = rows[1 : len(rows) - self.size.staleness] or rows

        def a_turn(part: str) -> float:
            return (getattr(last, part) - getattr(first, part)) / turns * 1e6

        both = zip(first.router_s, last.router_s, strict=True)
        routers_us = [(after - before) / turns * 1e6 for before, after in both]

        def typical(name: str) -> float:
            return statistics.fmean(row[name] for row in steady)

        most = max(self.readings, key=lambda one: one.rss_mb)
        return Measured(
            size=self.size,
            turns=turns,
            trajectories=int(sum(row["trajectories"] for row in rows)),
            controller_us=a_turn("loop_s"),
            controller_pool_us=a_turn("pool_s"),
            router_us=sum(routers_us),
            busiest_router_us=max(routers_us),
            world_us=a_turn("world_s"),
            valkey_us=a_turn("valkey_s"),
            rss_mb=most.rss_mb,
            kib_a_trajectory=(most.rss_mb - first.rss_mb) * 1e6 / 1024 / max(self.most_live, 1),
            valkey_mb=max(one.valkey_mb for one in self.readings),
            most_live=self.most_live,
            most_in_router=max(handle.most for handle in self._stand_ins.router_handles),
            stall_s=self.stall_s,
            t_generate_s=typical("t_generate_s"),
            t_train_s=typical("t_train_s"),
            t_sync_s=typical("t_sync_s"),
            t_step_s=typical("step_s"),
            overlap_share=typical("overlap_share"),
        )


class _View(LiveView):
    """The live view without a terminal; it is told when the parts are up and when a step is done."""

    def __init__(self, scene: Scene) -> None:
        super().__init__("simulation", scene.size.steps, Console(file=io.StringIO()))
        self._scene = scene

    def note(self, text: str) -> None:
        super().note(text)
        if text.startswith("everything is up"):
            self._scene.read()

    def step(self, step: int, values: Any) -> None:
        super().step(step, values)
        self._scene.read()


def made_panel(env: str, name: str) -> Panel:
    """Tasks by name only: no environment plays them."""
    return make_panel(env, name, [(f"{name}-{index}", "made", f"{name}{index}") for index in range(PANEL_TASKS)])
