"""What each process of a run is for, by its command line, and what is measured of it.

Owns: the roles, the measures. Pure. Called by `controller.process_usage`, which measures, and by
`controller.metric_definitions`, which names the metrics. Must not know: how a process is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

PROCESS_ROLES = {
    "controller": "the controller",
    "router": "the routers",
    "inference": "the inference actors, without their engines",
    "engine": "the engines (vLLM's own processes)",
    "env": "the environment actors",
    "learner": "the learner's ranks",
    "valkey": "the replay queue's server, where the run has its own",
    "raylet": "Ray's raylet, which holds the object store",
    "gcs": "Ray's GCS server",
    "ray_agents": "Ray's other processes: agents, monitors, workers that wait for work",
    "other": "whatever else the run started: its reaper, trackers of resources",
}
"""Whose the numbers are. A role has one number: the sum over its processes."""

PROCESS_MEASURES = {
    "memory_mb": ("MB", "Resident memory of"),
    "private_mb": ("MB", "Resident memory that is shared with nobody (no files, no shared memory) of"),
    "fds": ("handles", "Open file handles of"),
    "threads": ("threads", "Threads of"),
}

_ACTORS = {"RouterActor": "router", "InferenceActor": "inference", "EnvActor": "env", "LearnerActor": "learner"}
_PROGRAMS = {"valkey-server": "valkey", "raylet": "raylet", "gcs_server": "gcs"}


def role_of(command: Sequence[str], parent: str = "") -> str:
    """The role of a process of a run that is not its controller. `parent`: the role of the one that started it.

    Actors, engines and the queue's server name themselves ("ray::EnvActor.run", "VLLM::EngineCore",
    "/…/valkey-server 127.0.0.1:7000"): all of it is then in the first word. An engine cannot always (setproctitle needs
    the environment where it was at the start), but only inference actors have children that Python spawned.
    """
    title = command[0] if command else ""
    if title.startswith("VLLM::"):
        return "engine"
    if title.startswith("ray::"):
        return _ACTORS.get(title.removeprefix("ray::").split(".")[0].split(" ")[0], "ray_agents")
    if role := _PROGRAMS.get(PurePosixPath(title).name.split(" ")[0]):
        return role
    if parent in ("inference", "engine") and any("spawn_main" in word for word in command):
        return "engine"
    return "ray_agents" if any("/site-packages/ray/" in word for word in command) else "other"
