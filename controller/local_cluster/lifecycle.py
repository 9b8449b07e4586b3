"""A Ray cluster on this machine, without root: brought up, made larger or smaller, taken down.

Owns: `up` and `down`. Called by `controller.cli_cluster`. Must not know: how a raylet is started, how many there are
later (`controller.local_cluster.resizing`), what a run does.

Every raylet is in the state file before the next one is started: whatever is killed when, `down` finds all of it.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from controller.detached_process import end_sessions, last_line
from controller.local_cluster.membership import LOOK_EVERY_S, START_TIMEOUT_S, check_memory, start_raylets, wait_for
from controller.local_cluster.raylets import free_ports
from controller.local_cluster.state import (
    HEAD,
    ROLES,
    STATE,
    TOKEN,
    ClusterError,
    ClusterState,
    Size,
    Submitted,
    read_state,
    write_state,
)

Say = Callable[[str], None]

STOP_PATIENCE_S = 20.0
RUN_PATIENCE_S = 120.0
MAX_SOCKET_FOLDER = 28
"""Ray's sockets lie below: a path of a socket may have 107 bytes."""


def up(folder: Path, size: Size, object_store_mb: int, say: Say) -> ClusterState:
    """Starts a head and raylets by role. ClusterError when one is up, or what does not start; nothing is left then."""
    refuse_second(folder)
    if read_state(folder) is not None:
        left = down(folder, lambda line: None)
        say(f"an earlier cluster had ended without being taken down; cleared up ({len(left)} processes were left)")
    check_memory(sum(size.items().values()) + 1)
    token = folder / TOKEN
    token.unlink(missing_ok=True)
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    state = ClusterState(
        address=f"{own_address()}:{free_ports(1, ())[0]}",
        token=str(token),
        temp=tempfile.mkdtemp(prefix="t2c-", dir=_short_folder()),
        size=size,
        object_store_mb=object_store_mb,
    )
    write_state(folder, state)
    try:
        state = start_raylets(folder, state, [(HEAD, HEAD)])
        _wait_for_head(state)
        say(f"the head is up at {state.address}")
        names = [(f"{role}-{index}", role) for role in ROLES.values() for index in range(size.of(role))]
        state = start_raylets(folder, state, names)
        wait_for(state, state.raylets)
    except BaseException:  # also Ctrl-C: nobody would know of what was started
        down(folder, lambda line: None)
        raise
    return state


def refuse_second(folder: Path) -> None:
    """ClusterError when a cluster is up that was recorded here."""
    state = read_state(folder)
    if state and state.head and state.head.process.alive():
        raise ClusterError(
            f"{folder / STATE}: a cluster is up already, at {state.address} with {state.size}; `t2po cluster scale` "
            "changes it, `t2po cluster down` ends it"
        )


def down(folder: Path, say: Say) -> list[str]:
    """Ends exactly what `up` and the others have started, submitted runs first, and waits until it is gone; removes
    the files. The names of what still lived."""
    state = read_state(folder)
    if state is None:
        raise ClusterError(f"{folder}: no cluster is recorded here; `t2po cluster up` starts one")
    ended = []
    raylets = sorted(state.raylets, key=lambda raylet: raylet.role == HEAD)  # the head last: it sees the others go
    if state.run:
        ended += _end_run(state.run, say)
    ended += [raylet.name for raylet in raylets if raylet.process.alive()]
    say(f"ending {sum(raylet.process.alive() for raylet in raylets)} raylets")
    workers = [raylet.process for raylet in raylets if raylet.role != HEAD]
    left = end_sessions(workers, STOP_PATIENCE_S)
    left += end_sessions([raylet.process for raylet in raylets if raylet.role == HEAD], STOP_PATIENCE_S)
    if left:
        raise ClusterError(
            f"processes {', '.join(str(one.pid) for one in left)} of the cluster do not end (stuck on a disk?); end "
            "them by hand, then call t2po cluster down again"
        )
    shutil.rmtree(state.temp, ignore_errors=True)
    Path(state.token).unlink(missing_ok=True)
    (folder / STATE).unlink(missing_ok=True)
    return ended


def _end_run(run: Submitted, say: Say) -> list[str]:
    """It is asked first: it saves itself and leaves the cluster in order."""
    alive = run.process.alive()
    if alive:
        say(f"ending the run {run.folder}: it saves the step under way")
    if end_sessions([run.process], RUN_PATIENCE_S):
        raise ClusterError(f"the run {run.folder} (pid {run.process.pid}) does not end; end it by hand")
    return [Path(run.folder).name] if alive else []


def clear_folder(folder: Path) -> None:
    """The folder itself, when nothing is left in it but the lock."""
    (folder / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def own_address() -> str:
    """The address that this machine's nodes meet at: the routable one, or loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # a documentation address: nothing is sent
        return str(probe.getsockname()[0])
    return "127.0.0.1"


def _wait_for_head(state: ClusterState) -> None:
    head = state.head
    assert head is not None
    host, _, port = state.address.rpartition(":")
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), 1.0).close()
            break
        if not head.process.alive():
            raise ClusterError(f"the head did not start: {last_line(Path(state.temp) / f'{HEAD}.log')}")
        if time.monotonic() > deadline:
            raise ClusterError(f"the head did not come up within {START_TIMEOUT_S:g} s; the machine is overloaded")
        time.sleep(LOOK_EVERY_S)
    wait_for(state, [head])


def _short_folder() -> str | None:
    folder = tempfile.gettempdir()
    return None if len(folder) <= MAX_SOCKET_FOLDER else "/tmp"
