"""How the time of a step was spent: which parts were busy for what share of it.

Owns: the spans of a step by part, and their unions. Called by `controller.update`, read by `controller.overlap_bound`.
Must not know: what the parts do, how those of other processes are asked.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from actors.busy_spans import BusySpans, Span


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` until `until`, seconds of one clock; `spans` by part may reach beyond either end."""

    since: float
    until: float
    spans: Mapping[str, Sequence[Span]]

    @property
    def seconds(self) -> float:
        return max(self.until - self.since, 1e-9)

    def covered(self, *parts: str) -> float:
        """Seconds in which at least one of `parts` was busy."""
        return _covered((span for part in parts for span in self.spans.get(part, ())), self.since, self.until)

    def shares(self, parts: Sequence[str]) -> dict[str, float]:
        """{part: share of the time, ..., "idle": share in which none of `parts` was busy}"""
        shares = {part: self.covered(part) / self.seconds for part in parts}
        return {**shares, "idle": max(0.0, 1.0 - self.covered(*parts) / self.seconds)}


class BusyMeter:
    """`with meter.span("learner"): ...`, `add` what other processes noted, then `period()` once a step."""

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
        """An end for `period`."""
        return self._clock()

    def period(self, until: float | None = None) -> Period:
        """What was noted since the last call's end.

        It ends at `until`, or now; what lies behind it counts in the next one.
        """
        for part, own in self._own.items():
            self.add(part, own.take())
        until = self._clock() if until is None else until
        done = Period(self._since, until, {part: tuple(spans) for part, spans in self._spans.items()})
        self._since = until
        for part, spans in self._spans.items():
            self._spans[part] = [span for span in spans if span[1] > until]
        return done

    def shares(self, parts: Sequence[str], until: float | None = None) -> tuple[dict[str, float], float]:
        """(`Period.shares`, seconds) of the next period."""
        done = self.period(until)
        return done.shares(parts), done.seconds


def _covered(spans: Iterable[Span], since: float, until: float) -> float:
    """Length of the union of the spans within [since, until]."""
    covered, reached = 0.0, since
    for start, end in sorted(spans):
        start, end = max(start, reached), min(end, until)
        if end > start:
            covered += end - start
            reached = end
    return covered
