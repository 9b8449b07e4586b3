"""How well the policies of a run's checkpoints did in evaluation, and which of them did best.

Owns: `ratings.json` beside the checkpoints. Called by `controller.checkpoint`. Must not know: evaluations, or what a
checkpoint holds.

A file that is damaged or missing costs no more than the knowledge of the best: it is read as empty, loudly.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from controller.durable_files import encode_json, write_whole

logger = logging.getLogger(__name__)

RATINGS = "ratings.json"


class Ratings:
    """Evaluation success by step."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RATINGS

    def read(self) -> dict[int, float]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[int, float])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("%s: cannot be read (%s): which checkpoint is the best is not known", self._path, error)
            return {}

    def add(self, step: int, success: float) -> None:
        self._write({**self.read(), step: success})

    def forget_from(self, step: int) -> None:
        """Steps from `step` on are done again, or were given up: what was measured of them says nothing now."""
        known = self.read()
        kept = {one: success for one, success in known.items() if one < step}
        if kept != known:
            self._write(kept)

    def best(self, steps: Iterable[int]) -> int | None:
        """The best of `steps`, of equal ones the earliest; None when none of them was evaluated."""
        known = self.read()
        rated = [step for step in sorted(steps) if step in known]
        return max(rated, key=lambda step: known[step], default=None)

    def _write(self, ratings: dict[int, float]) -> None:
        # JSON has no whole numbers as keys: written as text, read back as numbers.
        write_whole(self._path, encode_json({str(step): success for step, success in sorted(ratings.items())}) + b"\n")
