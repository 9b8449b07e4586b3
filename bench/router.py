"""What a turn costs real routers in a real Ray: CPU time of their processes, by their number.

    python -m bench.router [--routers 1 2 4] [--live 1000] [--turns-per-s 300] [--most-turns 8]

Real: Ray, `RouterActor`, every call's way through it. Engines and environments are the simulation's stand-ins, as Ray
actors. A row for each number of routers, in one process each, one after the other; docs/scale.md says what was found.

Owns: the rows. Must not know: the training loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import psutil

from actors.rollout import TrajectorySpec
from bench.simulation.__main__ import head, line, stretch_for
from bench.simulation.recorded import read_recorded
from bench.simulation.scene import made_panel
from controller.config import RunConfig, validate
from controller.part_settings import router_settings
from controller.ray_session import RaySession

NUM_ENGINES = 2
GROUP_SIZE = 8
COLUMNS = (
    "routers", "turns", "turns/s", "CPU of all, µs a turn", "of the busiest", "its busiest thread",
    "its share of a core",
)  # fmt: skip
TIMEOUT_S = 1200.0


def cpu_s(pid: int) -> tuple[float, float]:
    """Of the process, and of its busiest thread, which is the loop."""
    process = psutil.Process(pid)
    times = process.cpu_times()
    return times.user + times.system, max(one.user_time + one.system_time for one in process.threads())


async def measure(config: RunConfig, live: int, stretch: float, most_turns: int) -> dict[str, float]:
    import ray

    from bench.simulation.stand_ins import Engine, Environments, limit_of
    from controller.router_actor import RouterActor

    recorded = read_recorded()
    stand_in = {"num_cpus": 0, "max_concurrency": limit_of(RouterActor)}
    engines = {
        f"inference-{index}": ray.remote(**stand_in)(Engine).remote(recorded, stretch) for index in range(NUM_ENGINES)
    }
    count = config.rollout.num_routers
    routers = [RouterActor.remote(router_settings(config, index)) for index in range(count)]
    for router in routers:
        await router.introduce.remote(engines, {"train": None, "eval": None})
    environments = ray.remote(**stand_in)(Environments).remote(recorded, routers, most_turns)
    pids = [(await router.status.remote())["pid"] for router in routers]
    tasks = made_panel("alfworld", "train").tasks
    specs = [
        TrajectorySpec(
            run_id="bench", group_id=f"bench-g{index // GROUP_SIZE:06d}", group_index=index // GROUP_SIZE,
            task=tasks[index % len(tasks)], sibling=index % GROUP_SIZE, attempt=0, sampling="train",
        )
        for index in range(live)
    ]  # fmt: skip
    await environments.status.remote()
    before, began = [cpu_s(pid) for pid in pids], time.perf_counter()
    async with asyncio.timeout(TIMEOUT_S):
        made = await asyncio.gather(*(environments.run.remote(spec) for spec in specs))
    seconds = time.perf_counter() - began
    after = [cpu_s(pid) for pid in pids]
    turns = sum(len(one.turns) for one in made)
    spent = [(end[0] - start[0], end[1] - start[1]) for start, end in zip(before, after, strict=True)]
    busiest = max(spent)
    return {
        "routers": count, "turns": turns, "turns_per_s": turns / seconds,
        "all_us": sum(one[0] for one in spent) / turns * 1e6, "busiest_us": busiest[0] / turns * 1e6,
        "loop_us": busiest[1] / turns * 1e6, "share": busiest[0] / seconds,
    }  # fmt: skip


def row(found: dict[str, Any]) -> str:
    return line([
        f"{found['routers']}", f"{found['turns']}", f"{found['turns_per_s']:.0f}", f"{found['all_us']:.0f}",
        f"{found['busiest_us']:.0f}", f"{found['loop_us']:.0f}", f"{found['share']:.2f}",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--live", type=int, default=1000, help="trajectories under way")
    parser.add_argument("--turns-per-s", type=float, default=300.0, help="recorded latencies are stretched to this")
    parser.add_argument("--most-turns", type=int, default=8, help="trajectories are cut there")
    asked = parser.parse_args()
    done = []
    print(head(COLUMNS), flush=True)
    for routers in asked.routers:
        config = validate({"rollout": {"num_routers": routers}, "inference": {"request_timeout_s": TIMEOUT_S}}, "bench")
        session = RaySession(None, object_store_bytes=512 * 2**20)
        session.start()
        try:
            stretch = stretch_for(asked.live, asked.turns_per_s)
            done.append(asyncio.run(measure(config, asked.live, stretch, asked.most_turns)))
        finally:
            session.stop()
        print(row(done[-1]), flush=True)
    print(json.dumps(done))


if __name__ == "__main__":
    main()
