"""What went wrong in a run so far and was dealt with, counted by reason.

Owns: `mishaps`, `mishap_line` for `t2po status` and the report; `Tally`, which each life of a run hands to the next.
Must not know: who dealt with it, or how.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

FAMILIES = {"failed_attempts_": "failed attempts", "restarts_": "restarts"}
"""Totals of the run (`Tally`), by what follows the prefix; of runs older than that, of one life of it."""
TOTALS = {"repeated_groups": "groups delivered twice", "webhook_failures": "notifications not delivered"}
EVER = {"foreign_entries": "foreign queue entries"}
"""The server counts them over all lives."""
STEPS = {
    "cut_observations": "observations cut", "skipped_steps": "steps skipped",
    "critic_updates_skipped": "critic updates skipped",
}  # fmt: skip
"""Counted anew in each step."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Restarts by part, failed attempts at trajectories by reason."""

    restarts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


def tally_of(values: Mapping[str, float]) -> Tally:
    """Out of the metrics of a step."""
    tally = Tally()
    for prefix, counts in (("restarts_", tally.restarts), ("failed_attempts_", tally.failures)):
        for name, value in values.items():
            if name.startswith(prefix) and math.isfinite(value):
                counts[name.removeprefix(prefix)] = int(value)
    return tally


def mishaps(steps: Iterable[Mapping[str, float | None]]) -> dict[str, dict[str, int]]:
    """What -> reason -> how often, over the metrics of all steps in their order; "" where there is only one reason."""
    found: dict[str, Counter[str]] = {}
    last: dict[str, float] = {}
    for values in steps:
        for name, value in values.items():
            if (kind := _kind(name)) is None or value is None or not math.isfinite(value):
                continue
            what, reason = kind
            more = value
            if name not in STEPS:
                before = last.get(name, 0.0)
                more = value - before if value >= before or name in EVER else value
                last[name] = value
            if more > 0:
                found.setdefault(what, Counter())[reason] += round(more)
    return {what: dict(reasons) for what, reasons in found.items()}


def mishap_line(found: Mapping[str, Mapping[str, int]]) -> str:
    """`failed attempts 3 (EnvFailure 2, EnvTimeout 1), observations cut 1`; empty where nothing went wrong."""
    texts = []
    for what, reasons in found.items():
        named = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()) if reason)
        texts.append(f"{what} {sum(reasons.values())}" + (f" ({named})" if named else ""))
    return ", ".join(texts)


def _kind(name: str) -> tuple[str, str] | None:
    for prefix, what in FAMILIES.items():
        if name.startswith(prefix):
            return what, name.removeprefix(prefix)
    what = (TOTALS | EVER | STEPS).get(name, "")
    return (what, "") if what else None
