"""How long an engine has answered nothing although it was asked: a frozen one looks alive in every other way.

Owns: that. Called by `actors.inference`. Must not know: what is asked, what is done about a silent engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

IDLE_S = 5.0
"""Who asked in vain asks again within a moment; a first question after so long begins anew."""


class Silence:
    """`asked`, `left` at each request's begin and end, `broken` when a silence had another reason."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting = 0
        self._since = self._last_left = clock()

    def asked(self) -> None:
        if not self._waiting and self._clock() - self._last_left > IDLE_S:
            self._since = self._clock()
        self._waiting += 1

    def left(self, *, answered: bool) -> None:
        """A request is over: it has its answer, or was given up."""
        self._waiting -= 1
        self._last_left = self._clock()
        if answered:
            self._since = self._last_left

    def broken(self) -> None:
        self._since = self._clock()

    @property
    def seconds(self) -> float:
        """Zero while nobody waits."""
        return self._clock() - self._since if self._waiting else 0.0
