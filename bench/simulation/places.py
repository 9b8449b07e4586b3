"""Processes of a run as threads of one: each has an event loop of its own, and its CPU time is known.

Owns: `Place`, handles whose calls go from one place to another, what such a call costs. Called by
`bench.simulation.stand_ins`. Must not know: what the parts do.

A call is pickled by the caller, unpickled in the place of the part, and so with its answer: as between processes, and
without records that two parts share. What Ray adds to that (its wire, its bookkeeping) is not simulated.
"""

from __future__ import annotations

import asyncio
import cProfile
import itertools
import pickle
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

_handles: dict[int, Handle] = {}
_numbers = itertools.count()

START_TIMEOUT_S = 30.0


def thread_cpu_s(thread: threading.Thread) -> float:
    """CPU seconds that a living thread has used so far."""
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


class Place:
    """One thread with an event loop, which stands for a process."""

    def __init__(self, name: str, profile: cProfile.Profile | None = None) -> None:
        self.name = name
        self._profile = profile
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.loop: asyncio.AbstractEventLoop
        self._thread.start()
        if not self._is_up.wait(START_TIMEOUT_S):
            raise TimeoutError(f"thread {name}: not up within {START_TIMEOUT_S:g} s")

    def _run(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.call_soon(self._is_up.set)
        if self._profile:
            self._profile.enable()
        self.loop.run_forever()
        if self._profile:
            self._profile.disable()

    @property
    def cpu_s(self) -> float:
        return thread_cpu_s(self._thread)

    def stop(self) -> None:
        """What is still under way there is given up."""

        def end() -> None:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_soon(self.loop.stop)

        self.loop.call_soon_threadsafe(end)
        self._thread.join(START_TIMEOUT_S)


class Reply:
    """What a call gives at once: awaited by its caller, or by nobody."""

    def __init__(self, future: Future[bytes]) -> None:
        self._future = future

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a reference that is passed on: the stand-ins do not look at weights

    def __await__(self) -> Generator[Any, None, Any]:
        data = yield from asyncio.wrap_future(self._future).__await__()
        return pickle.loads(data)

    def cancel(self) -> None:
        """The part is told to stop, as by `ray.cancel`."""
        self._future.cancel()


class Handle:
    """`handle.method.remote(...)`, as Ray's. At most `limit` calls are in the part at once; the others wait in line."""

    def __init__(self, place: Place, part: Any, limit: int) -> None:
        self.place = place
        self.part = part
        self.limit = limit
        self.most = self.calls = 0
        """Most calls that were in the part or in line at once, and how many are."""
        self._line = asyncio.Semaphore(limit)
        self._number = next(_numbers)
        _handles[self._number] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _handle, (self._number,)

    def __getattr__(self, name: str) -> _Method:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Method(self, name)

    async def answer(self, name: str, data: bytes) -> bytes:
        self.calls += 1
        self.most = max(self.most, self.calls)
        try:
            async with self._line:
                found = await getattr(self.part, name)(*pickle.loads(data))
        finally:
            self.calls -= 1
        return pickle.dumps(found, protocol=5)


def _handle(number: int) -> Handle:
    return _handles[number]


class _Method:
    def __init__(self, handle: Handle, name: str) -> None:
        self._handle = handle
        self._name = name

    def remote(self, *arguments: Any) -> Reply:
        """Sent at once, as by Ray: nobody has to await it."""
        call = self._handle.answer(self._name, pickle.dumps(arguments, protocol=5))
        return Reply(asyncio.run_coroutine_threadsafe(call, self._handle.place.loop))
