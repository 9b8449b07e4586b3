"""How the time of a step was spent: which parts were busy for what share of it.

Owns: spans by part and their union. Called by `controller.update`. Must not know: what the parts do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class BusyMeter:
    """`with meter.span("learner"): ...`, then `shares()` once a step: the share of the time since the last call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._spans: list[tuple[str, float, float]] = []
        self._open: dict[str, tuple[int, float]] = {}

    @contextmanager
    def span(self, part: str) -> Iterator[None]:
        """`part` is busy inside. Spans of one part may overlap; their union counts."""
        depth, start = self._open.get(part, (0, self._clock()))
        self._open[part] = (depth + 1, start)
        try:
            yield
        finally:
            depth, start = self._open[part]
            if depth > 1:
                self._open[part] = (depth - 1, start)
            else:
                del self._open[part]
                self._spans.append((part, start, self._clock()))

    def shares(self, parts: list[str]) -> tuple[dict[str, float], float]:
        """({part: share, ..., "idle": share in which none of `parts` was busy}, seconds); starts the next period."""
        now, since = self._clock(), self._since
        spans = [*self._spans, *((part, start, now) for part, (_, start) in self._open.items())]
        total = max(now - since, 1e-9)
        shares = {part: _covered([s for s in spans if s[0] == part], since, now) / total for part in parts}
        shares["idle"] = 1.0 - _covered([s for s in spans if s[0] in parts], since, now) / total
        self._since, self._spans = now, []
        return shares, total


def _covered(spans: list[tuple[str, float, float]], since: float, until: float) -> float:
    """Length of the union of the spans within [since, until]."""
    covered, reached = 0.0, since
    for _, start, end in sorted(spans, key=lambda span: span[1]):
        start, end = max(start, reached), min(end, until)
        if end > start:
            covered += end - start
            reached = end
    return covered
