"""What the controller and the router cost, by trajectories under way and by inference servers.

    python -m bench.simulation [--live 100 1000 10000] [--servers 4 32 256] [--ranks 64] [--profile loop|router] ...

Each pair is a run in a process of its own, forked after the imports. Prints one row a run and a JSON line;
docs/scale.md says what the columns mean. `--overlap` compares staleness 0 and 1 instead, at the first size. `--profile`
prints where a part's CPU time goes. CPU time is that of threads, so a machine that does other things too makes a run
longer, not the numbers larger (but for its caches).

Owns: the rows. tests/unit/test_simulation_bookkeeping.py runs a small one.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import multiprocessing
import pstats
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.simulation.recorded import draw, read_recorded
from bench.simulation.scene import Measured, Scene, Size

COST = (
    "live", "servers", "routers there are", "turns", "controller loop", "its threads", "routers", "busiest router",
    "queue server", "stand-ins",
    "KiB a live one", "most live", "most in router", "longest stall, s",
)  # fmt: skip
OVERLAP = (
    "live", "servers", "staleness", "T_generate, s", "T_train, s", "T_sync, s", "T_step, s", "share of the bound",
    "speed-up",
)  # fmt: skip
TIMEOUT_S = 7200.0


def cost_row(one: Measured) -> list[str]:
    cpu = (
        one.controller_us, one.controller_pool_us, one.router_us, one.busiest_router_us, one.valkey_us, one.world_us,
    )  # fmt: skip
    return [
        str(one.size.live), str(one.size.servers), str(one.size.routers), str(one.turns),
        *(f"{value:.0f}" for value in cpu),
        f"{one.kib_a_trajectory:.0f}", str(one.most_live), str(one.most_in_router), f"{one.stall_s:.2f}",
    ]  # fmt: skip


def overlap_row(one: Measured, lock_step: Measured) -> list[str]:
    seconds = (one.t_generate_s, one.t_train_s, one.t_sync_s, one.t_step_s)
    return [
        str(one.size.live), str(one.size.servers), str(one.size.staleness), *(f"{value:.2f}" for value in seconds),
        f"{one.overlap_share:.2f}", f"{lock_step.t_step_s / one.t_step_s:.2f}",
    ]  # fmt: skip


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def head(names: Sequence[str]) -> str:
    return f"{line(names)}\n{line(['---:'] * len(names))}"


def stretch_for(live: int, turns_per_s: float) -> float:
    """How many times slower than recorded, so that so many turns end in a second."""
    typical_s = draw(read_recorded().turn_s, 0.5)
    return live / (typical_s * turns_per_s)


def conduct(size: Size, profile: str) -> Measured:
    """In a process of its own: its memory is its own too."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_conduct, args=(size, profile, theirs))
    child.start()
    theirs.close()
    try:
        if not ours.poll(TIMEOUT_S):
            raise TimeoutError(f"{size}: not done within {TIMEOUT_S:g} s")
        return Measured(**ours.recv())
    except EOFError as error:
        raise RuntimeError(f"{size}: the run failed; its cause is above") from error
    finally:
        child.kill()
        child.join()


def _conduct(size: Size, profile: str, answer: Connection) -> None:
    watched = cProfile.Profile()
    with tempfile.TemporaryDirectory(prefix="t2po-simulation-") as folder:
        scene = Scene(size, Path(folder), profile_router=watched if profile == "router" else None)
        if profile == "loop":
            watched.enable()
        measured = scene.conduct()
        watched.disable()
    if profile:
        pstats.Stats(watched).sort_stats("tottime").print_stats(30)
    fields: dict[str, Any] = {name: getattr(measured, name) for name in Measured.__slots__}
    answer.send(fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=int, nargs="+", default=[100, 1000, 10_000], help="trajectories under way")
    parser.add_argument("--servers", type=int, nargs="+", default=[4, 32, 256], help="inference servers")
    parser.add_argument("--ranks", type=int, default=64, help="learner ranks")
    parser.add_argument("--routers", type=int, nargs="+", default=[1], help="routers")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of a run; 4 at least for --overlap")
    parser.add_argument("--staleness", type=int, default=1)
    parser.add_argument("--turns-per-s", type=float, default=300.0, help="recorded latencies are stretched to this")
    parser.add_argument("--most-turns", type=int, default=1000, help="trajectories are cut there")
    parser.add_argument("--overlap", action="store_true", help="the overlap at staleness 0 and 1")
    parser.add_argument("--profile", choices=("loop", "router"), default="", help="print where its CPU time goes")
    asked = parser.parse_args()

    def size(live: int, servers: int, routers: int, staleness: int) -> Size:
        stretch = stretch_for(live, asked.turns_per_s)
        return Size(
            live=live, servers=servers, ranks=asked.ranks, staleness=staleness, steps=asked.steps, stretch=stretch,
            most_turns=asked.most_turns, routers=routers,
        )  # fmt: skip

    done: list[Measured] = []
    if asked.overlap:
        live, servers = asked.live[0], asked.servers[0]
        print(head(OVERLAP), flush=True)
        # As many groups a step, so half as many trajectories under way.
        for under_way, staleness in ((live // 2, 0), (live, 1)):
            one = size(live, servers, asked.routers[0], staleness)
            done.append(conduct(_with_live(one, under_way), ""))
            print(line(overlap_row(done[-1], done[0])), flush=True)
    else:
        print(head(COST), flush=True)
        for live, servers, routers in itertools.product(asked.live, asked.servers, asked.routers):
            done.append(conduct(size(live, servers, routers, asked.staleness), asked.profile))
            print(line(cost_row(done[-1])), flush=True)
    print(json.dumps([asdict(one) for one in done]))


def _with_live(size: Size, live: int) -> Size:
    return Size(**{**asdict(size), "live": live})


if __name__ == "__main__":
    main()
