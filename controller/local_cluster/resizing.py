"""More or fewer raylets of a role, in a cluster that is up.

Owns: who comes, who goes, and that who goes is drained first. Called by `controller.local_cluster.submission`. Must not
know: runs, how a raylet is started.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from controller.detached_process import end_sessions
from controller.local_cluster.membership import (
    LOOK_EVERY_S,
    check_memory,
    matched,
    nodes_of,
    serves,
    start_raylets,
    wait_for,
)
from controller.local_cluster.ray_nodes import RayNodes
from controller.local_cluster.state import ROLES, ClusterError, ClusterState, Raylet, Size, live_state, write_state

logger = logging.getLogger(__name__)
Say = Callable[[str], None]

STOP_PATIENCE_S = 20.0
DRAIN_PATIENCE_S = 20.0
"""So long a raylet that is taken out of service may go on with an actor that is still on it."""
SETTLE_S = 10.0


def grow(folder: Path, size: Size, say: Say) -> list[Raylet]:
    """Starts what is missing for `size`, in place of the dead ones too; what was started. ClusterError."""
    state = live_state(folder)
    alive = [raylet for raylet in state.alive() if serves(state, raylet)]
    dead = [raylet for raylet in state.raylets if raylet not in alive]
    if dead:  # of a killed raylet others of its session may be left
        end_sessions([raylet.process for raylet in dead], STOP_PATIENCE_S)
        say(f"cleared up after {', '.join(raylet.name for raylet in dead)}")
        state = replace(state, raylets=tuple(alive))
        write_state(folder, state)
    names = []
    for role in ROLES.values():
        count = size.of(role) - len(state.of_role(role))
        used = {raylet.name for raylet in state.raylets}
        free = [f"{role}-{index}" for index in range(size.of(role) + len(used)) if f"{role}-{index}" not in used]
        names += [(name, role) for name in free[: max(count, 0)]]
    check_memory(len(names))
    before = set(state.raylets)
    try:
        state = start_raylets(folder, state, names)
        started = [raylet for raylet in state.raylets if raylet not in before]
        wait_for(state, started)
    except BaseException:
        retire(folder, [raylet for raylet in live_state(folder).raylets if raylet not in before], say, drain=False)
        raise
    note_size(folder, size)
    return started


def shrink(folder: Path, size: Size, say: Say) -> list[Raylet]:
    """Takes out of service what is more than `size`, the emptiest raylets first; what was ended."""
    state = live_state(folder)
    deadline = time.monotonic() + SETTLE_S
    while True:  # the head hears a moment later that an actor has left
        used = {raylet.name: node.num_actors for raylet, node in matched(state, nodes_of(state)).items()}
        leaving = emptiest(state, size, used)
        if not any(used.get(raylet.name) for raylet in leaving) or time.monotonic() > deadline:
            break
        time.sleep(LOOK_EVERY_S)
    retire(folder, leaving, say)
    note_size(folder, size)
    return leaving


def emptiest(state: ClusterState, size: Size, used: Mapping[str, int]) -> list[Raylet]:
    """What is more than `size`: of each role those with the fewest slots taken (`used`, by name), the newest first."""
    leaving: list[Raylet] = []
    for role in ROLES.values():
        members = sorted(state.of_role(role), key=lambda raylet: (used.get(raylet.name, 0), -_index(raylet)))
        leaving += members[: max(len(members) - size.of(role), 0)]
    return leaving


def retire(folder: Path, leaving: Sequence[Raylet], say: Say, drain: bool = True) -> None:
    """Drains, ends, forgets."""
    if not leaving:
        return
    state = live_state(folder)
    if drain:
        _drain(state, leaving, say)
    left = end_sessions([raylet.process for raylet in leaving], STOP_PATIENCE_S)
    if left:
        raise ClusterError(f"processes {', '.join(str(one.pid) for one in left)} do not end; end them by hand")
    state = live_state(folder)
    write_state(folder, replace(state, raylets=tuple(one for one in state.raylets if one not in leaving)))


def note_size(folder: Path, size: Size) -> None:
    write_state(folder, replace(live_state(folder), size=size))


def _drain(state: ClusterState, leaving: Sequence[Raylet], say: Say) -> None:
    """Nothing new comes to them; who is on them gets a moment. A head that does not answer holds nothing up."""
    try:
        ray = RayNodes(state.address, Path(state.token))
        found = {
            raylet: node for raylet, node in matched(state, ray.nodes()).items() if raylet in leaving and node.alive
        }
        for raylet, node in found.items():
            if taken := node.num_actors:
                say(f"{raylet.name} has {taken} actor{'s' * (taken > 1)} on it, which the run starts again elsewhere")
            ray.drain(node.id, "t2po cluster scale")
        deadline = time.monotonic() + DRAIN_PATIENCE_S
        while time.monotonic() < deadline:
            now = matched(state, ray.nodes())
            if not any(raylet in now and now[raylet].alive and now[raylet].num_actors for raylet in found):
                return
            time.sleep(LOOK_EVERY_S)
    except (ClusterError, RuntimeError) as error:
        logger.info("not drained: %s", error)


def _index(raylet: Raylet) -> int:
    return int(raylet.name.rpartition("-")[2])
