"""One raylet of a local cluster: its command line, its ports, its environment, its start.

Owns: every option that Ray is started with here. Called by `controller.local_cluster.lifecycle`. Must not know: how
many there are, what runs in them.

Several raylets live on one machine, so each gets ports of its own for everything that it serves (below 10000: Ray's
workers take those above), and a folder of its own. What is reachable without need is not started: no dashboard, no job
API, no port for Ray's client. All ports but that of the metrics ask for the token.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import sys
from collections.abc import Container, Sequence
from pathlib import Path

from controller.detached_process import start
from controller.local_cluster.state import HEAD, ClusterError, Raylet
from controller.placement import RESOURCES

SLOTS = {HEAD: 16, "env": 2, "inference": 2, "learner": 2}
"""Actors that one raylet takes. Two of a role: with as many actors as raylets half of the raylets may die, and what was
on them finds a place on the others. The head: the routers of the runs that go on."""

PORT_OPTIONS = (
    "--node-manager-port", "--object-manager-port", "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port", "--metrics-export-port",
)  # fmt: skip
FIRST_PORT, LAST_PORT = 6400, 9400
"""Where free ports are looked for; above them are t2po's own metrics and Ray's workers."""

HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",
}
"""A raylet that answers nothing is given up after about 20 s (Ray's default: 65 s); a killed one at once."""

ROOT = Path(__file__).resolve().parents[2]

# `ray start --head` always opens a port for Ray's client when grpc is installed; no option keeps it closed. It is told
# that the client is not there.
_RAY = """
import ray.scripts.scripts as scripts
scripts.get_ray_client_dependency_error = lambda: "not offered"
scripts.main()
"""


def free_ports(count: int, taken: Container[int]) -> list[int]:
    """So many free ports. ClusterError when there are not enough."""
    found: list[int] = []
    candidates = list(range(FIRST_PORT, LAST_PORT))
    random.SystemRandom().shuffle(candidates)  # two clusters that start at once must not meet
    for port in candidates:
        if len(found) == count:
            break
        if port not in taken and is_free(port):
            found.append(port)
    if len(found) < count:
        raise ClusterError(
            f"{count} free ports from {FIRST_PORT} to {LAST_PORT} are needed, {len(found)} are there; end some servers"
        )
    return found


def is_free(port: int) -> bool:
    """Whether nobody listens on the port, on any interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("0.0.0.0", port))
        return True
    return False


def machine_gpus() -> list[int]:
    """The numbers of this machine's NVIDIA GPUs."""
    place = Path("/proc/driver/nvidia/gpus")
    return list(range(len(list(place.iterdir())))) if place.is_dir() else []


def deal_gpus(names: Sequence[tuple[str, str]], free: Sequence[int], any_there: bool) -> dict[str, tuple[int, ...]]:
    """GPUs for new raylets (name, role): as many for each learner and engine, learners first; the others get none.
    ClusterError when there are GPUs in the machine (`any_there`) and fewer are free than raylets want one."""
    wanting = [name for role in ("learner", "inference") for name, its in names if its == role]
    dealt: dict[str, tuple[int, ...]] = {name: () for name, _ in names}
    if not any_there or not wanting:
        return dealt
    share = len(free) // len(wanting)
    if not share:
        raise ClusterError(
            f"{', '.join(wanting)}: want a GPU each and {len(free)} of the machine's are free; ask for fewer learners "
            "or inference"
        )
    return {**dealt, **{name: tuple(free[i * share : (i + 1) * share]) for i, name in enumerate(wanting)}}


def start_raylet(
    name: str, role: str, address: str, ports: tuple[int, ...], temp: Path, token: Path, object_store_mb: int,
    gpus: tuple[int, ...] = (),
) -> Raylet:  # fmt: skip
    """Starts it and returns at once. `gpus`: the machine's GPUs that are this raylet's."""
    environment = {**raylet_environment(token), "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
    words = command(role, address, ports, temp / name, object_store_mb, len(gpus))
    process = start(words, temp / f"{name}.log", environment)
    return Raylet(name, role, process, ports, SLOTS[role], gpus)


def command(
    role: str, address: str, ports: tuple[int, ...], temp: Path, object_store_mb: int, num_gpus: int = 0
) -> list[str]:
    """`ray start` for one raylet; `--block` keeps it the leader of its session while its processes live."""
    words = [sys.executable, "-c", _RAY, "start", "--block", "--disable-usage-stats"]
    words += ["--include-log-monitor=false", "--log-color=false", f"--temp-dir={temp}"]
    host, _, port = address.rpartition(":")
    words.append(f"--node-ip-address={host}")
    if role == HEAD:
        words += ["--head", f"--port={port}", "--include-dashboard=false"]
    else:
        words.append(f"--address={address}")
    words += [f"{option}={port}" for option, port in zip(PORT_OPTIONS, ports, strict=True)]
    words += ["--min-worker-port=0", "--max-worker-port=0", "--num-cpus=0", f"--num-gpus={num_gpus}"]
    words.append(f"--object-store-memory={object_store_mb * 2**20}")
    words.append(f"--resources={json.dumps({RESOURCES[role]: SLOTS[role]})}")
    return words


def raylet_environment(token: Path) -> dict[str, str]:
    """Ours, with what Ray and its workers read from it."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        **HEALTH,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",
        "RAY_DEDUP_LOGS": "0",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
    }
