"""A jump of the wall clock by an hour, forward or back, in every Python process of a run.

Owns: the file that says so, and the variables that let a run's processes read it (`shifted_clock/sitecustomize.py`).
Called by `bench.chaos.conductor`. Must not know: who looks at a clock.

The machine's own clock stays: other programs live by it. The jump is for good, as one by an administrator would be.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "shifted_clock"


def environment(file: Path) -> dict[str, str]:
    """What a run's processes need in their environment."""
    paths = [str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {"T2PO_CHAOS_CLOCK": str(file), "PYTHONPATH": os.pathsep.join(paths)}


def jump(file: Path, by_s: float) -> None:
    """The next look at the clock is `by_s` seconds later (negative: earlier)."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(str(by_s), encoding="ascii")
    fresh.replace(file)
