"""How the time of a step was spent: which parts were busy for what share of it.

Owns: the spans of a step by part, and their unions. Called by `controller.update`. Must not know: what the
parts do, how those of other processes are asked.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from actors.busy_spans import BusySpans, Span


class BusyMeter:
    """`with meter.span("learner"): ...`, `add` what other processes noted, then `shares()` once a step."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._own: dict[str, BusySpans] = {}
        self._spans: defaultdict[str, list[Span]] = defaultdict(list)

    def span(self, part: str) -> AbstractContextManager[None]:
        """`part` is busy inside. Spans of one part may overlap; their union counts."""
        return self._own.setdefault(part, BusySpans(self._clock)).span()

    def add(self, part: str, spans: Iterable[Span]) -> None:
        """Spans of `part` that another process of this machine noted."""
        self._spans[part] += spans

    def now(self) -> float:
        """An end for `shares`."""
        return self._clock()

    def shares(self, parts: Sequence[str], until: float | None = None) -> tuple[dict[str, float], float]:
        """({part: share, ..., "idle": share in which none of `parts` was busy}, seconds), since the last call's end.

        The period ends at `until`, or now; what lies behind it counts in the next one.
        """
        for part, own in self._own.items():
            self.add(part, own.take())
        since, until = self._since, self._clock() if until is None else until
        total = max(until - since, 1e-9)
        shares = {part: _covered(self._spans[part], since, until) / total for part in parts}
        busy = [span for part in parts for span in self._spans[part]]
        shares["idle"] = max(0.0, 1.0 - _covered(busy, since, until) / total)
        self._since = until
        for part, spans in self._spans.items():
            self._spans[part] = [span for span in spans if span[1] > until]
        return shares, total


def _covered(spans: Iterable[Span], since: float, until: float) -> float:
    """Length of the union of the spans within [since, until]."""
    covered, reached = 0.0, since
    for start, end in sorted(spans):
        start, end = max(start, reached), min(end, until)
        if end > start:
            covered += end - start
            reached = end
    return covered
