"""A slow and a cut network between a run and its replay queue, which is a Valkey server of the harness's own.

Owns: that server, the TCP proxy before it, and, where this user may make one, the network namespace that it lives in.
Called by `bench.chaos.conductor`. Must not know: what is sent.

    slow       every piece of data is held for LATENCY_S on its way
    silent     nothing gets through, and nobody says so: what a broken switch looks like
    closed     connections are reset, new ones too: what a firewall or a restarted load balancer looks like
    partition  the link of the server's namespace is down; without namespaces as `silent`
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import redis

from controller.valkey_process import configuration, free_port, server_binary

LATENCY_S = 0.3
PIECE = 1 << 16
POLL_S = 0.02
START_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 10.0
MEMORY_MB = 256
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""


class Proxy:
    """Between `port` on loopback and a server. `mode` is how the network is at the moment."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.mode = "well"
        self._server = server
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(POLL_S * 10)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if self.mode == "closed":
                _reset(client)
                continue
            try:
                server = socket.create_connection(self._server, timeout=COMMAND_TIMEOUT_S)
            except OSError:
                _reset(client)
                continue
            threading.Thread(target=self._carry, args=(client, server), name="proxy-pair", daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """Both directions of one connection, until either end closes it."""
        waiting: deque[tuple[float, socket.socket, bytes]] = deque()
        with contextlib.suppress(OSError), selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while not self._ended.is_set() and self.mode != "closed":
                if self.mode == "silent":
                    time.sleep(POLL_S)
                    continue
                for key, _ in selector.select(POLL_S):
                    data = key.fileobj.recv(PIECE)  # type: ignore[union-attr]
                    if not data:
                        return _reset(client, server)
                    due = time.monotonic() + (LATENCY_S if self.mode == "slow" else 0.0)
                    waiting.append((due, key.data, data))
                while waiting and waiting[0][0] <= time.monotonic():
                    _, other, data = waiting.popleft()
                    other.sendall(data)
        _reset(client, server)


class Namespace:
    """A network namespace joined to this machine by one link. Raises OSError where it cannot be made."""

    def __init__(self) -> None:
        number = os.getpid() % 16000
        self.name = f"t2po-{os.getpid()}"
        self._link = f"t2po{os.getpid()}"[:15]
        third, fourth = divmod(number * 4, 256)
        self._here, self.address = (f"10.213.{third % 256}.{fourth + last}" for last in (1, 2))
        self._hole = ("blackhole", f"10.213.{third % 256}.{fourth}/30", "metric", "4000")
        inner = f"{self._link[:14]}i"
        if os.geteuid() != 0:
            raise PermissionError("only root may make a network namespace")
        try:
            _run("ip", "netns", "add", self.name)
            _run("ip", "link", "add", self._link, "type", "veth", "peer", "name", inner, "netns", self.name)
            _run("ip", "addr", "add", f"{self._here}/30", "dev", self._link)
            _run("ip", "link", "set", self._link, "up")
            # While the link is down its route is gone: a stranger behind the default route must not answer instead.
            _run("ip", "route", "add", *self._hole)
            _run("ip", "-n", self.name, "addr", "add", f"{self.address}/30", "dev", inner)
            _run("ip", "-n", self.name, "link", "set", inner, "up")
            _run("ip", "-n", self.name, "link", "set", "lo", "up")
        except OSError:
            self.remove()
            raise

    def set_link(self, state: str) -> None:
        """ "up" or "down"."""
        _run("ip", "link", "set", self._link, state)

    def remove(self) -> None:
        for command in (
            ("ip", "route", "del", *self._hole), ("ip", "link", "del", self._link), ("ip", "netns", "del", self.name),
        ):  # fmt: skip
            with contextlib.suppress(OSError):
                _run(*command)


class DistantQueue:
    """A Valkey server that a run reaches over a network that can be disturbed. `way`: how it is cut off."""

    def __init__(self, folder: Path) -> None:
        self.password = secrets.token_urlsafe(18)
        try:
            self._namespace: Namespace | None = Namespace()
            self.way = "namespace"
        except OSError as error:
            self._namespace = None
            self.way = f"proxy ({error})"
        host, port = (self._namespace.address if self._namespace else "127.0.0.1"), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "valkey.conf"
        text = configuration(folder, port, self.password, MEMORY_MB, "always")
        config.write_text(text.replace("bind 127.0.0.1", f"bind {host}"), encoding="utf-8")
        command = [str(server_binary()), str(config)]
        if self._namespace:
            command = ["ip", "netns", "exec", self._namespace.name, *command]
        with (folder / "valkey.log").open("ab") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._proxy = Proxy((host, port))
        try:
            self._wait(host, port)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Without the password: that is T2PO_QUEUE_PASSWORD."""
        return f"redis://127.0.0.1:{self._proxy.port}/0"

    def disturb(self, how: str) -> Callable[[], None]:
        """-> makes the network well again."""
        if how == "partition" and self._namespace:
            link = self._namespace
            link.set_link("down")
            return lambda: link.set_link("up")
        self._proxy.mode = "silent" if how == "partition" else how

        def heal() -> None:
            self._proxy.mode = "well"

        return heal

    def close(self) -> None:
        self._proxy.close()
        self._server.kill()
        self._server.wait(COMMAND_TIMEOUT_S)
        if self._namespace:
            self._namespace.remove()

    def _wait(self, host: str, port: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with redis.Redis(host=host, port=port, password=self.password, socket_timeout=2.0) as client:
                    client.ping()
                return
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def _reset(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.close()


def _run(*command: str) -> None:
    """OSError when it fails."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
