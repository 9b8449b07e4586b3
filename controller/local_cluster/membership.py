"""Which of the head's nodes each recorded raylet is; starting more of them, each recorded at once.

Owns: raylets as members of the cluster. Called by `controller.local_cluster.lifecycle`, `.resizing` and `.overview`.
Must not know: why there are more or fewer, runs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from controller.detached_process import last_line
from controller.local_cluster.ray_nodes import Node, RayNodes
from controller.local_cluster.raylets import PORT_OPTIONS, deal_gpus, free_ports, machine_gpus, start_raylet
from controller.local_cluster.state import ClusterError, ClusterState, Raylet, write_state

START_TIMEOUT_S = 300.0
"""Of a raylet: 10 s on a quiet machine, a minute on a busy one."""
LOOK_EVERY_S = 0.3
RAYLET_BYTES = 400 * 10**6
"""What an idle raylet takes, measured; actors come on top."""


def start_raylets(folder: Path, state: ClusterState, names: list[tuple[str, str]]) -> ClusterState:
    """One after the other, each recorded at once; they come up side by side."""
    taken = {port for raylet in state.raylets for port in raylet.ports} | {int(state.address.rpartition(":")[2])}
    gpus, in_use = machine_gpus(), {gpu for raylet in state.raylets for gpu in raylet.gpus}
    dealt = deal_gpus(names, [gpu for gpu in gpus if gpu not in in_use], bool(gpus))
    for name, role in names:
        ports = tuple(free_ports(len(PORT_OPTIONS), taken))
        taken.update(ports)
        shutil.rmtree(Path(state.temp) / name, ignore_errors=True)  # of an earlier one of this name
        raylet = start_raylet(
            name,
            role,
            state.address,
            ports,
            Path(state.temp),
            Path(state.token),
            state.object_store_mb,
            dealt[name],
        )
        state = replace(state, raylets=(*state.raylets, raylet))
        write_state(folder, state)
    return state


def wait_for(state: ClusterState, raylets: Sequence[Raylet]) -> None:
    """Returns when the head has all of them. ClusterError with the cause when one does not come up."""
    deadline = time.monotonic() + START_TIMEOUT_S
    nodes = None
    while True:
        for raylet in raylets:
            if not raylet.process.alive():
                log = Path(state.temp) / f"{raylet.name}.log"
                raise ClusterError(f"raylet {raylet.name} did not start: {last_line(log)}")
        nodes = nodes or RayNodes(state.address, Path(state.token))
        known = matched(state, nodes.nodes())
        if all(raylet in known and known[raylet].alive for raylet in raylets):
            return
        if time.monotonic() > deadline:
            missing = [raylet.name for raylet in raylets if raylet not in known]
            raise ClusterError(
                f"{', '.join(missing)} did not come up within {START_TIMEOUT_S:g} s; the machine is overloaded, or "
                "short of memory: ask for fewer"
            )
        time.sleep(LOOK_EVERY_S)


def nodes_of(state: ClusterState) -> list[Node]:
    """What the head says of its nodes."""
    return RayNodes(state.address, Path(state.token)).nodes()


def matched(state: ClusterState, nodes: list[Node]) -> dict[Raylet, Node]:
    """Which of the head's nodes each raylet is: each has a folder of its own. Of several lives the living, or last."""
    found = {}
    for raylet in state.raylets:
        mine = [node for node in nodes if node.temp == str(Path(state.temp) / raylet.name)]
        if mine:
            found[raylet] = next((node for node in mine if node.alive), mine[-1])
    return found


def serves(state: ClusterState, raylet: Raylet) -> bool:
    """A raylet whose `ray start` lives while the raylet itself is gone serves nobody."""
    node = matched(state, nodes_of(state)).get(raylet)
    return node is not None and node.alive


def check_memory(num_raylets: int) -> None:
    """ClusterError when so many more raylets do not fit into the free memory."""
    needed, free = num_raylets * RAYLET_BYTES, psutil.virtual_memory().available
    if needed > 0.9 * free:
        raise ClusterError(
            f"{num_raylets} more raylets need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: ask for fewer, "
            "or end what else runs on the machine"
        )
