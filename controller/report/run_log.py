"""The messages of a run.log, and the clock that they are told by.

Owns: reading the log's lines. Called by `controller.report.run_files` and `controller.report.events`. Must not know:
which messages matter.
"""

from __future__ import annotations

import calendar
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

from controller.durable_files import RunFolderError

LOG_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ ([A-Z]+) (\S+): (.*)")
ZONE_S = 900
"""Time zones differ by multiples of a quarter of an hour."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One message of run.log. `time` in seconds by the clock of the run's machine, whose zone the file does not say."""

    time: float
    level: str
    source: str
    text: str


def read_log(path: Path, notes: list[str]) -> list[LogLine]:
    """Messages; a trace is told by its last line, which names the cause."""
    found: list[LogLine] = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return found
    except OSError as error:
        notes.append(str(RunFolderError.of(path, error, "read")))
        return found
    cause = ""
    for line in [*text.splitlines(), ""]:
        match = LOG_LINE.fullmatch(line)
        if match is None and line:
            cause = cause if line.startswith((" ", "Traceback")) else line
            continue
        if cause and found:
            last = found.pop()
            found.append(LogLine(last.time, last.level, last.source, f"{last.text}: {cause}"))
        cause = ""
        if match and (when := _seconds(match[1])) is not None:
            found.append(LogLine(when, match[2], match[3], match[4]))
    return found


def _seconds(text: str) -> float | None:
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S")))
    except ValueError:  # no such day
        return None


def zone_offset(created: float, first: float) -> float:
    """Seconds by which the clock of a log runs ahead of UTC, from when the run was created and its first message.

    The message comes within minutes after the creation, and zones are quarters of an hour apart.
    """
    return math.floor((first - created + 60) / ZONE_S) * ZONE_S
