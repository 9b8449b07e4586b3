"""Redis out of memory: the limit of the run's own Valkey server is lowered below what it holds, for a while.

Owns: reading the server's address from its configuration, and CONFIG SET. Called by `bench.chaos.conductor`. Must not
know: what the server holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import redis

TIMEOUT_S = 5.0
LITTLE = 1024
"""Bytes; an empty server holds more."""


def fill(queue_folder: Path) -> Callable[[], None]:
    """-> gives the memory back. Every write meanwhile is refused (OOM). A server that was restarted has its own limit
    again. Raises redis.RedisError when there is no server, OSError before its first start."""
    with _client(queue_folder) as client:
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", LITTLE)

    def give_back() -> None:
        with contextlib.suppress(redis.RedisError, OSError), _client(queue_folder) as again:
            again.config_set("maxmemory", before)

    return give_back


def _client(queue_folder: Path) -> redis.Redis:
    """The server chooses a port in each of its lives: its configuration is read anew."""
    lines = (queue_folder / "valkey.conf").read_text(encoding="utf-8").splitlines()
    said = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return redis.Redis(
        port=int(said["port"]), password=said["requirepass"], socket_timeout=TIMEOUT_S, decode_responses=True
    )
