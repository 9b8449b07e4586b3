"""The trajectory files of a run: all of a step, or how its trajectories ended.

Owns: reading them. Called by `controller.report.collection`. Must not know: which of them a page shows.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from envs.file_mark import FileMark, mark_file

DAMAGED = (OSError, EOFError, zlib.error, ValueError)  # msgspec's errors are ValueErrors
CACHED_FILES = 4096


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one trajectory ended."""

    kind: str
    won: bool


class _Task(msgspec.Struct):
    kind: str = ""


class _Row(msgspec.Struct):
    """The part of a trajectory's line that counts for success; the rest is passed over unread."""

    won: bool = False
    task: _Task = msgspec.field(default_factory=_Task)


_row_decoder = msgspec.json.Decoder(_Row)


def read_trajectories(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a trajectory file. Raises one of DAMAGED where it is damaged, after what is whole."""
    with gzip.open(path, "rb") as file:
        for line in file:
            row = msgspec.json.decode(line)
            if isinstance(row, dict):
                yield row


def read_outcomes(path: Path) -> tuple[Outcome, ...]:
    """How a step's trajectories ended. Kept as long as the file is the same; a damaged file gives what is whole."""
    return _outcomes(mark_file(path))


@lru_cache(maxsize=CACHED_FILES)
def _outcomes(mark: FileMark) -> tuple[Outcome, ...]:
    found = []
    try:
        with gzip.open(mark.path, "rb") as file:
            for line in file:
                row = _row_decoder.decode(line)
                found.append(Outcome(row.task.kind, row.won))
    except DAMAGED:
        pass
    return tuple(found)
