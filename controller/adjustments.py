"""What became of a run's configuration while it ran: other numbers of actors, a lower learning rate after a rollback.

Owns: `adjustments.jsonl` of a run folder, the configuration with them, `NextLife`. Called by `controller.train` and
`controller.training_run`. Must not know: why something is adjusted.

`config.toml` stays what the run was begun with, and checkpoints are compared with that; adjustments lie over it. Each
line holds the step after which it was made, dotted keys with their values, and a cause in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.config import RunConfig, merge, validate
from controller.durable_files import JsonLines, read_json_lines

FILE = "adjustments.jsonl"


class NextLife(Exception):
    """This life of the run ends here; the next one begins at once, adjusted.

    `back_to`: the step whose checkpoint it goes on from, 0 the start policy; None: the newest one.
    """

    def __init__(self, changes: Mapping[str, Any], cause: str, back_to: int | None = None) -> None:
        super().__init__(cause)
        self.changes = dict(changes)
        self.cause = cause
        self.back_to = back_to

    def joined_by(self, other: NextLife | None) -> NextLife:
        """One life for both: where they change the same knob `other` has it, and it says where to go back to."""
        if other is None:
            return self
        back_to = self.back_to if other.back_to is None else other.back_to
        return NextLife({**self.changes, **other.changes}, f"{self.cause}; {other.cause}", back_to)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """`changes`: by dotted key, as overrides on the command line are."""

    step: int
    changes: dict[str, Any]
    cause: str


def note_adjustment(run: Path, adjustment: Adjustment) -> None:
    """On the disk when it returns."""
    lines = JsonLines(run / FILE)
    try:
        lines.append({"step": adjustment.step, "changes": adjustment.changes, "cause": adjustment.cause}, sync=True)
    finally:
        lines.close()


def adjustments_of(run: Path) -> list[Adjustment]:
    """In the order in which they were made."""
    rows = read_json_lines(run / FILE)
    return [Adjustment(int(row["step"]), dict(row["changes"]), str(row["cause"])) for row in rows]


def adjusted(config: RunConfig, adjustments: Iterable[Adjustment], source: str) -> RunConfig:
    """`config` with all of them, later ones over earlier ones. ConfigError names `source` for what does not fit."""
    tree = config.model_dump(mode="json")
    for adjustment in adjustments:
        for key, value in adjustment.changes.items():
            change: Any = value
            for part in reversed(key.split(".")):
                change = {part: change}
            tree = merge(tree, change)
    return validate(tree, source=source)
