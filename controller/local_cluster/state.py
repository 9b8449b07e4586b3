"""What `t2po cluster up` has started on this machine: the state file, from which everything else follows.

Owns: `.t2po/cluster.json` (folder: T2PO_CLUSTER_DIR), its records, and telling a live cluster from a stale file. Called
by the other modules of this package and by `controller.cluster_access`. Must not know: Ray, how anything is started.

Every process is known by pid, start time and boot: after a crash or a reboot a pid alone may be somebody else's.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.process_identity import ProcessId
from controller.run_folder import take_lock
from controller.valkey_process import write_private

FOLDER_VARIABLE = "T2PO_CLUSTER_DIR"
STATE, TOKEN = "cluster.json", "token"
HEAD = "head"
ROLES = {"envs": "env", "inference": "inference", "learners": "learner"}
"""What the command line calls a number, and the role that it counts."""


class ClusterError(RuntimeError):
    """A cluster that cannot be started, found, changed or ended; the message names value, place and remedy."""


@dataclass(frozen=True, slots=True)
class Size:
    """Raylets of each role, and actors of a run that is submitted."""

    envs: int = 1
    inference: int = 1
    learners: int = 1

    def __post_init__(self) -> None:
        for name in ROLES:
            value = getattr(self, name)
            if value < 1:
                raise ClusterError(f"{name} = {value}: at least 1; `t2po cluster down` ends the cluster")

    def of(self, role: str) -> int:
        """How many of a role; one head."""
        counts = {"env": self.envs, "inference": self.inference, "learner": self.learners}
        return counts.get(role, 1)

    def items(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ROLES}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.items().items())


@dataclass(frozen=True, slots=True)
class Raylet:
    """One node of the cluster. `process` leads a session of its own, which all its children are in. `gpus`: those of
    the machine that are its own, by number."""

    name: str
    role: str
    process: ProcessId
    ports: tuple[int, ...]
    slots: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run that was submitted: its folder, its process, what it prints."""

    folder: str
    process: ProcessId
    log: str


@dataclass(frozen=True, slots=True)
class ClusterState:
    """All of it. `address`: host:port of the head. `token`: the file with the cluster's token, readable for this user
    alone. `temp`: the folder of Ray's sessions."""

    address: str
    token: str
    temp: str
    size: Size
    object_store_mb: int
    raylets: tuple[Raylet, ...] = ()
    run: Submitted | None = None

    def alive(self) -> list[Raylet]:
        return [raylet for raylet in self.raylets if raylet.process.alive()]

    def of_role(self, role: str) -> list[Raylet]:
        return [raylet for raylet in self.raylets if raylet.role == role]

    @property
    def head(self) -> Raylet | None:
        return next((raylet for raylet in self.raylets if raylet.role == HEAD), None)


def cluster_folder() -> Path:
    """T2PO_CLUSTER_DIR, or `.t2po` in the present folder."""
    return Path(os.environ.get(FOLDER_VARIABLE) or ".t2po").expanduser().absolute()


def read_state(folder: Path) -> ClusterState | None:
    """What is recorded; None where nothing is. ClusterError for a file that cannot be read."""
    path = folder / STATE
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        run = row["run"]
        return ClusterState(
            address=str(row["address"]),
            token=str(row["token"]),
            temp=str(row["temp"]),
            size=Size(**row["size"]),
            object_store_mb=int(row["object_store_mb"]),
            raylets=tuple(_raylet(one) for one in row["raylets"]),
            run=Submitted(run["folder"], ProcessId(**run["process"]), run["log"]) if run else None,
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(
            f"{path}: cannot be read ({error}); end the cluster's processes by hand (`ps -ef | grep ray` shows them), "
            "then delete the file"
        ) from error


def write_state(folder: Path, state: ClusterState) -> None:
    """The whole file or the one before it; for this user alone."""
    write_private(folder / STATE, json.dumps(dataclasses.asdict(state), indent=1) + "\n")


def live_state(folder: Path) -> ClusterState:
    """The cluster that is up. ClusterError says how to bring one up, or back."""
    state = read_state(folder)
    if state is None:
        raise ClusterError(f"{folder}: no cluster is up; `t2po cluster up` starts one ({FOLDER_VARIABLE}: its folder)")
    if state.head is None or not state.head.process.alive():
        raise ClusterError(
            f"{folder / STATE}: the head of this cluster is gone (killed, or the machine was started anew); `t2po "
            "cluster down` clears up what is left, `t2po cluster up` starts another; then t2po train --resume RUN"
        )
    return state


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One command at a time changes the cluster. The folder is made, for this user alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ClusterError(f"{folder}: {error.strerror or error}; name another folder by {FOLDER_VARIABLE}") from error
    descriptor = take_lock(folder, "this cluster")
    try:
        yield
    finally:
        os.close(descriptor)


def _raylet(row: dict[str, Any]) -> Raylet:
    process = ProcessId(**row["process"])
    return Raylet(row["name"], row["role"], process, tuple(row["ports"]), int(row["slots"]), tuple(row.get("gpus", ())))
