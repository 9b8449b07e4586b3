"""Ctrl-C and SIGTERM as something that the loop can look at and wait for.

Owns: the signal handlers of a run. Called by `controller.train` and `controller.evaluate`. Must not know: what
is stopped.

The first signal asks for a clean stop (finish the step, checkpoint, end every process), the second one
cancels what is going on and only ends the processes, the third one kills.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

Result = TypeVar("Result")
STOPPED_BY_SIGNAL = 130
"""Exit status of a run that was stopped, as shells have it."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A person or the system asked the run to stop."""


class StopSignal:
    """A context manager inside a running event loop."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._asked = asyncio.Event()
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> StopSignal:
        self._task = asyncio.current_task()
        self.listen()
        return self

    def listen(self) -> None:
        """Once more after Ray has started: it puts a handler of its own before ours, which prints a stack trace."""
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if not self._asked.is_set():
            self._asked.set()
            self._say("stopping: the step under way is finished and saved; once more to stop at once")
            return
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        if self._task is not None:
            self._task.cancel("stopped twice")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def check(self) -> None:
        """Raises Stopped when a stop was asked for."""
        if self._asked.is_set():
            raise Stopped

    async def unless(self, waiting: Awaitable[Result]) -> Result:
        """The result of `waiting`; when a stop is asked for first, `waiting` is cancelled and Stopped raised."""
        work = asyncio.ensure_future(waiting)
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise Stopped
        finally:
            for task in (work, asked):
                task.cancel()
            await asyncio.gather(work, asked, return_exceptions=True)
