"""What a detector says of a run: how bad it is, and why.

Owns: the levels, the names of the detectors, `Finding`. Called by everything in `controller.collapse`, by
`controller.metric_definitions` for the metrics `alarms_*`. Must not know: how anything is detected.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

DETECTORS = (
    "entropy_collapse",
    "entropy_explosion",
    "kl_spike",
    "gradient_spike",
    "success_drop",
    "length_explosion",
    "repetition",
    "format_loss",
    "dead_groups",
    "staleness",
    "off_policy",
    "stalled",
    "several_signs",
)


class Level(IntEnum):
    """The number is the value of the metrics `health` and `alarms_*`."""

    HEALTHY = 0
    WARNING = 1
    COLLAPSED = 2

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One detector on one step. `cause`: in words, with the numbers; empty when healthy."""

    detector: str
    level: Level = Level.HEALTHY
    cause: str = ""
