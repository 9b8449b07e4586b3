"""How a comparison with another implementation is run and how it ends: progress, report, fixture, exit code.

Owns: `run_comparison` and the speeds of a report. Called by the comparers' commands. Must not know: what is compared.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from envs.data_folder import DataError

Progress = Callable[[str], None]
Record = Callable[[dict[str, Any]], None]


class Outcome(Protocol):
    """What was found: `mismatches` is empty where the two agree."""

    mismatches: list[dict[str, Any]]

    def report(self) -> dict[str, Any]: ...


def speeds(num_steps: int, own_seconds: float, reference_seconds: float) -> dict[str, float | None]:
    """Steps a second of both sides over the same steps, and the quotient (null without steps)."""
    own, reference = (num_steps / max(seconds, 1e-9) for seconds in (own_seconds, reference_seconds))
    return {
        "own_steps_per_s": round(own, 1),
        "reference_steps_per_s": round(reference, 2),
        "speedup": round(own / reference, 1) if num_steps else None,
    }


def run_comparison(compare: Callable[[Progress, Record], Outcome], fixture: Path | None = None) -> int:
    """Compares and prints the report, mismatches included; progress goes to stderr.

    Returns the exit code: 0 all alike, 1 mismatches, 2 what is compared cannot be had (DataError). `fixture`: a
    .jsonl.xz that everything recorded is written to.
    """
    lines: list[str] = []
    try:
        outcome = compare(
            lambda text: print(text, file=sys.stderr, flush=True),
            lambda row: lines.append(json.dumps(row, separators=(",", ":")) + "\n"),
        )
        if fixture:
            fixture.write_bytes(lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(outcome.report(), indent=2))
    return 1 if outcome.mismatches else 0
