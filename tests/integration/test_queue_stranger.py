"""A program that is no Redis server answers at the queue's address for a while: said, tried again, nothing lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.redis_link import QueueError, RedisLink
from controller.valkey import ValkeyServer


class Stranger:
    """Speaks HTTP to the first `count` connections, and hands later ones on to the server."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self.left = count
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.left:
                self.left -= 1
                client.recv(4096)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._port), timeout=10)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=_carry, args=(one, other), daemon=True).start()

    def close(self) -> None:
        self._listener.close()


def _carry(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(4096):
            other.sendall(data)
    except OSError:
        pass
    other.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "queue") as server:
        yield server


def place_of(server: ValkeyServer, stranger: Stranger) -> str:
    credentials = server.url.removeprefix("redis://").rsplit("@", 1)[0]
    return f"redis://{credentials}@{stranger.address}/0"


def test_link_tries_again_when_a_stranger_answered(server: ValkeyServer) -> None:
    port = int(server.url.rsplit(":", 1)[1].split("/")[0])
    with closing(Stranger(port, 2)) as stranger:
        link = RedisLink(place_of(server, stranger), "test", 20.0, None)
        assert link.call("say hello", lambda: link.client.set("key", "value"))
        assert stranger.left == 0 and link.num_faults >= 1
        link.client.close()


def test_link_says_that_no_redis_server_answers(server: ValkeyServer) -> None:
    with closing(Stranger(0, 1000)) as stranger:
        link = RedisLink(place_of(server, stranger), "test", 0.5, None)
        with pytest.raises(QueueError, match="cannot say hello: .*what answers there is no Redis server"):
            link.call("say hello", link.client.ping)
        link.client.close()
