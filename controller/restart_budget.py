"""How often something may be started again, and how long to wait before it: the same rule for every part.

Owns: `RestartBudget`. Called by `controller.replacements` and `controller.train`. Must not know: what is restarted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from controller.supervision_settings import SupervisionSettings


class RestartBudget:
    """Of one part. A part that dies now and then for weeks is restarted each time; one that cannot live is not."""

    def __init__(self, settings: SupervisionSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._moments: deque[float] = deque()

    def spend(self, *, in_vain: bool = False) -> float | None:
        """Seconds to wait before this restart: none before the first, then longer and longer. None: one too many.

        `in_vain`: the last restart brought nothing. Then none is forgotten, however long each of them took.
        """
        now = self._clock()
        while self._moments and not in_vain and now - self._moments[0] >= self._settings.restart_window_s:
            self._moments.popleft()
        earlier = len(self._moments)
        if earlier >= self._settings.max_restarts:
            return None
        self._moments.append(now)
        if not earlier:
            return 0.0
        pause: float = self._settings.restart_pause_s * 2.0 ** (earlier - 1)
        return min(pause, self._settings.longest_pause_s)

    @property
    def num_spent(self) -> int:
        """Restarts that count now."""
        return len(self._moments)

    def __str__(self) -> str:
        settings = self._settings
        return f"supervision.max_restarts = {settings.max_restarts} within {settings.restart_window_s:g} s"
