"""One connection to a Redis or Valkey server: retries with a deadline, and errors that say what to do.

Owns: the client, and what each error of the server means. Called by the replay queue.
Must not know: keys, streams or groups.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from controller.deadline import noted
from controller.queue_address import hidden_password

SOCKET_TIMEOUT_S = 10.0
"""Longest wait for one answer; a frozen server is noticed after it."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.02, 1.0

Result = TypeVar("Result")


class QueueError(RuntimeError):
    """The replay queue cannot be used; names the URL (password hidden), what was tried and the remedy."""


class RedisLink:
    """The client and the way every command is sent: again while that can help, at most until its deadline."""

    def __init__(self, url: str, client_name: str, timeout_s: float, revive: Callable[[], object] | None) -> None:
        """Nothing is sent yet. `revive` is called before each retry: `ValkeyServer.ensure_alive`."""
        self.where = hidden_password(url)
        self.timeout_s = timeout_s
        self.num_faults = 0
        """Commands that were tried again and connections that were made again: whenever it has grown, replies may have
        been lost, or the server may be another one."""
        self._connected: WeakSet[Any] = WeakSet()
        self.prepare: Callable[[], object] = lambda: None
        """What must be there again, before a retry, on a server that may have lost its data."""
        self._revive = revive
        self.socket_timeout_s = min(SOCKET_TIMEOUT_S, max(timeout_s, 0.1))
        try:
            self.client = redis.Redis.from_url(
                url,
                protocol=2,  # all servers speak it, and replies have one shape
                socket_timeout=self.socket_timeout_s,
                socket_connect_timeout=self.socket_timeout_s,
                retry=Retry(NoBackoff(), 0),  # retrying is ours: it has the deadline and the error text
                client_name=f"{client_name}-{os.getpid()}",
                redis_connect_func=self._greet,
            )
            self.client.connection_pool.make_connection()  # connects to nobody; finds parameters that do not exist
        except (ValueError, TypeError) as error:
            raise QueueError(
                f"queue.url = {self.where}: {error}; write redis://[user:password@]host:port/db, rediss://… or unix://…"
            ) from error

    def call(self, what: str, command: Callable[[], Result]) -> Result:
        """The command's result. Commands run again when a reply is lost, so they must bear that."""
        with noted(f"queue: {what} at {self.where}", self.timeout_s):
            return self._call(what, command)

    def _call(self, what: str, command: Callable[[], Result]) -> Result:
        deadline = time.monotonic() + self.timeout_s
        backoff, tries = FIRST_BACKOFF_S, 0
        while True:
            tries += 1
            try:
                if tries > 1:
                    if self._revive is not None:
                        self._revive()
                    self.prepare()
                return command()
            except RedisError as error:
                fault = fault_of(error)
                if not fault.passes:
                    raise QueueError(f"{self.where}: cannot {what}: {error}; {fault.remedy}") from error
                if time.monotonic() + backoff > deadline:
                    raise QueueError(
                        f"{self.where}: cannot {what}: tried {tries} times in {self.timeout_s:.0f} s, last: {error}; "
                        f"{fault.remedy}"
                    ) from error
                self.num_faults += 1
            time.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_S)

    def _greet(self, connection: Any) -> None:
        """A connection that broke between two commands is made again by the client, which tells nobody else."""
        connection.on_connect()
        self.num_faults += connection in self._connected
        self._connected.add(connection)


@dataclass(frozen=True, slots=True)
class Fault:
    """What an error of the server means: may it pass by itself, and what a person can do."""

    passes: bool
    remedy: str


def fault_of(error: RedisError) -> Fault:
    text = str(error)
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError) or "ACL failure" in text:
        return Fault(False, "check user, password and rights in queue.url, or T2PO_QUEUE_USER and T2PO_QUEUE_PASSWORD")
    if isinstance(error, OutOfMemoryError) or "OOM command" in text:
        return Fault(True, "the server's memory is full: raise its maxmemory or lower queue.max_groups")
    if "MISCONF" in text:
        return Fault(True, "the server cannot write its data: free space on its disk")
    if isinstance(error, BusyLoadingError):
        return Fault(True, "the server still reads its data: raise queue.timeout_s")
    if "certificate" in text:
        return Fault(False, "the server's certificate is not trusted: set queue.ca_file to its CA's")
    if isinstance(error, ConnectionError | TimeoutError):
        return Fault(True, "is the server running and reachable? Start it, correct queue.url, or leave queue.url empty")
    if isinstance(error, InvalidResponse):  # a stranger on the way, or at the address while the server is away
        return Fault(True, "what answers there is no Redis server: correct queue.url, or look at what is in between")
    if isinstance(error, ReadOnlyError | TryAgainError | ClusterDownError | MasterDownError):
        return Fault(True, "the server does not accept writes now: look at its replication")
    if "NOGROUP" in text:
        return Fault(True, "the server lost this run's stream: is another program deleting keys?")
    if "WRONGTYPE" in text:
        return Fault(False, "another program uses this run's keys: choose another run name or database")
    return Fault(False, "the queue needs Redis 6.2 or Valkey, or newer, that permits scripts and streams")
