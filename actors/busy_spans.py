"""When a part was busy: spans of time, in which several things at once count once.

Owns: the spans since they were last taken. Called by `actors.env_pool` and `actors.inference` for what they
do, by `controller.busy` for the controller's own parts. Must not know: what a part does.

The times are those of `time.monotonic`, a clock of the machine and not of the process: the spans of different
processes can be laid over each other, because a run has one machine.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Span = tuple[float, float]
"""From, until."""

MAX_KEPT = 100_000
"""Spans kept for whoever takes them, the newest. Nobody does in an evaluation by itself; a step has some thousands."""


class BusySpans:
    """Say `with busy.span(): ...`, or `busy.switch(on)`, not both; from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ended: deque[Span] = deque(maxlen=MAX_KEPT)
        self._start: float | None = None
        self._depth = 0

    @contextmanager
    def span(self) -> Iterator[None]:
        """Busy inside; spans may overlap."""
        self._enter(1)
        try:
            yield
        finally:
            self._enter(-1)

    def switch(self, on: bool) -> None:
        """Busy from now on, or not any more; said again it changes nothing."""
        with self._lock:
            self._switch(on)

    def take(self) -> list[Span]:
        """Everything since the last call. A span that is still open is cut: its rest comes with the next call."""
        with self._lock:
            is_on = self._start is not None
            self._switch(False)
            self._switch(is_on)
            spans = list(self._ended)
            self._ended.clear()
            return spans

    def _enter(self, change: int) -> None:
        with self._lock:
            self._depth += change
            self._switch(self._depth > 0)

    def _switch(self, on: bool) -> None:
        if on and self._start is None:
            self._start = self._clock()
        elif not on and self._start is not None:
            self._ended.append((self._start, self._clock()))
            self._start = None
