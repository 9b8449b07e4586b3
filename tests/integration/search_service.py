"""A retrieval service on loopback for the tests: passages about towns, the service in a thread, plain requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3

from envs.search.corpus import Passage
from envs.search.retriever import IndexRetriever
from envs.search.server import ServerLimits, running_server

TEXTS = [f'"Town {number}"\nThe mayor of Town {number} is Person{number}. Größe {number}' for number in range(40)]
"""The passages of the fixture `town_retriever`."""
HTTP = urllib3.PoolManager(retries=False, maxsize=64)


@contextlib.contextmanager
def served(retriever: IndexRetriever, limits: ServerLimits | None = None) -> Iterator[str]:
    """The service in a thread, on a free port of loopback."""
    ready: list[str] = []
    started, loops = threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def run() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        async with running_server(retriever, port=0, limits=limits) as address:
            ready.append(address)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert started.wait(30)
        yield ready[0]
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


def ask(address: str, body: Any, path: str = "/retrieve") -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = HTTP.request("POST", address + path, body=content, timeout=30)
    return reply.status, json.loads(reply.data)


def metrics(address: str) -> dict[str, float]:
    text = HTTP.request("GET", f"{address}/metrics", timeout=30).data.decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


class Slow(IndexRetriever):
    """A real retriever that remembers its batches, and waits until it may go on."""

    def __init__(self, inner: IndexRetriever) -> None:
        super().__init__(inner.corpus, inner._index, inner.kind)
        self.batches: list[int] = []
        self.go_on = threading.Event()

    def search_many(self, queries: Any, k: int) -> list[list[Passage]]:
        self.batches.append(len(queries))
        assert self.go_on.wait(30)
        if "fail" in queries:
            raise OSError("disk on fire")
        return super().search_many(queries, k)


def until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
