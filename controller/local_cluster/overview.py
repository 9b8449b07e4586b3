"""What `t2po cluster status` says: nodes by role with their slots, actors, the run, the queue, what is dead and why.

Owns: the lines. Called by `controller.cli_cluster`. Must not know: how anything is started or asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from controller.local_cluster.membership import matched
from controller.local_cluster.ray_nodes import Actor, Node, RayNodes
from controller.local_cluster.state import HEAD, STATE, ClusterError, ClusterState, Raylet, read_state
from controller.metrics import read_metrics
from controller.run_folder import RunFolder, is_running

WIDTH = 13


def status_lines(folder: Path) -> list[str]:
    """Never raises for what is dead: that is what is asked for."""
    state = read_state(folder)
    if state is None:
        return [f"{folder}: no cluster is up; `t2po cluster up` starts one"]
    if state.head is None or not state.head.process.alive():
        return [
            f"{folder / STATE}: a cluster whose head is gone; `t2po cluster down` clears up what is left",
            *run_lines(state),
        ]
    try:
        ray = RayNodes(state.address, Path(state.token))
        nodes, actors = ray.nodes(), ray.actors()
    except (ClusterError, RuntimeError) as error:
        return [f"cluster at {state.address}: {error}", *run_lines(state)]
    return [*node_lines(state, nodes, actors), *run_lines(state)]


def node_lines(state: ClusterState, nodes: list[Node], actors: Sequence[Actor]) -> list[str]:
    """The cluster in a line, then one a raylet, then actors without a place, then what to do about the dead."""
    known = matched(state, nodes)
    dead = [raylet for raylet in state.raylets if not _lives(raylet, known.get(raylet))]
    lines = [f"cluster at {state.address}: {len(state.raylets) - len(dead)} of {len(state.raylets)} raylets live"]
    for raylet in state.raylets:
        lines.append(f"  {raylet.name:<{WIDTH}} {_doing(raylet, known.get(raylet), actors)}")
    if waiting := Counter(
        actor.name for actor in actors if actor.state in ("PENDING_CREATION", "DEPENDENCIES_UNREADY")
    ):
        words = ", ".join(f"{count} {name}" for name, count in sorted(waiting.items()))
        lines.append(f"  not placed yet: {words}")
    if dead:
        sizes = " ".join(f"{name}={value}" for name, value in state.size.items().items())
        lines.append(f"  dead: {', '.join(raylet.name for raylet in dead)}; replace with: t2po cluster scale {sizes}")
    return lines


def run_lines(state: ClusterState) -> list[str]:
    """The run that was submitted last, and its queue at the end of its last step."""
    run = state.run
    if run is None:
        return ["no run was submitted"]
    path = Path(run.folder)
    try:
        total = RunFolder.read(path).config().steps
        steps = read_metrics(path / "metrics.jsonl") if (path / "metrics.jsonl").is_file() else []
    except (RuntimeError, ValueError, OSError) as error:
        return [f"run {path}: {error}; what it printed: {run.log}"]
    done = steps[-1].step if steps else 0
    if run.process.alive():
        doing = f"goes on (pid {run.process.pid})"
    elif done >= total:
        doing = "is done"
    else:
        doing = (
            "goes on in another process"
            if is_running(path)
            else f"has ended; go on with: t2po cluster submit --resume {path}"
        )
    lines = [f"run {path}: step {done} of {total}, {doing}; what it prints: {run.log}"]
    if steps and "queue_depth" in steps[-1].values:
        lines.append(f"queue: {steps[-1].values['queue_depth']:g} groups at the end of step {done}")
    return lines


def _lives(raylet: Raylet, node: Node | None) -> bool:
    return raylet.process.alive() and (node is None or node.alive)


def _doing(raylet: Raylet, node: Node | None, actors: Sequence[Actor]) -> str:
    if node is None:
        return "starting" if raylet.process.alive() else "dead: it ended before the head knew it"
    if not _lives(raylet, node):
        return f"dead: {node.cause or 'its process is gone; the head has not noticed yet'}"
    here = Counter(actor.name for actor in actors if actor.node == node.id and actor.state == "ALIVE")
    words = ", ".join(f"{count} {name}" if count > 1 else name for name, count in sorted(here.items()))
    slots = "" if raylet.role == HEAD else f"{node.num_actors} of {raylet.slots} slots taken"
    return ", ".join(filter(None, [f"pid {raylet.process.pid}", slots, words]))
