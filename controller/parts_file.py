"""What each part of a run does and since when, written where another process can read it: `RUN/parts.json`.

Owns: the file, how often it is written, reading it. Written by `controller.live_view`, read by `controller.run_status`.
Must not know: what the parts are, Ray, who else looks at the run.

The file is a sign of life too: it is written again every few seconds, whether or not anything has changed. A disk that
takes nothing costs the sign and not the run. It is not forced to the disk: after a power failure nothing of it is true.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from controller.durable_files import encode_json
from controller.process_identity import ProcessId

logger = logging.getLogger(__name__)

PARTS = "parts.json"
LEAST_S, BEAT_S = 1.0, 5.0
"""Written at most so often when something has changed, and at least so often."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a run does, since when (seconds since 1970), and when it last said anything new: that another
    number stands in it is new, and it still does the same."""

    doing: str
    since: float
    moved: float = 0.0


@dataclass(frozen=True, slots=True)
class PartsRecord:
    """One state of the file. `time` (since 1970) and `monotonic` (since the boot): when it was written. `ended`: the
    process said that it ends, so that its silence means nothing."""

    process: ProcessId
    host: str
    time: float
    monotonic: float
    parts: dict[str, Part]
    stall: str = ""
    ended: bool = False

    def age_s(self) -> float:
        """Seconds since it was written; a clock that was set does not count as long as the machine is the same."""
        here = ProcessId.of(os.getpid())
        if here is not None and here.boot_id == self.process.boot_id:
            return max(0.0, time.monotonic() - self.monotonic)
        return max(0.0, time.time() - self.time)


class PartsFile:
    """`write` again and again, from one thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PARTS
        process = ProcessId.of(os.getpid())
        assert process is not None  # it is this one
        self._process = process
        self._written: tuple[Mapping[str, Part], str, bool] | None = None
        self._at = -BEAT_S
        self.failures = 0
        """Writes that a full or broken disk refused."""

    def write(self, parts: Mapping[str, Part], stall: str, *, ended: bool = False) -> None:
        """Replaces the file where it is time to. Never raises for the disk."""
        now = time.monotonic()
        state = (dict(parts), stall, ended)
        due = LEAST_S if state != self._written else BEAT_S
        if not ended and now - self._at < due - 0.1:  # called every second, which takes a little more or less
            return
        self._at = now
        record = PartsRecord(self._process, platform.node(), time.time(), now, dict(parts), stall, ended)
        fresh = self._path.with_name(f".{PARTS}.new")
        try:
            fresh.write_bytes(encode_json(asdict(record)) + b"\n")
            fresh.replace(self._path)
        except OSError as error:
            self.failures += 1
            if self.failures == 1:
                logger.warning("%s: cannot be written (%s); `t2po status` does not see the parts", self._path, error)
            return
        self._written = state


def read_parts(folder: Path) -> PartsRecord | None:
    """The newest state; None when there is none, or none that can be read."""
    try:
        record = json.loads((folder / PARTS).read_bytes())
        return PartsRecord(
            process=ProcessId(**record["process"]),
            host=str(record["host"]),
            time=float(record["time"]),
            monotonic=float(record["monotonic"]),
            parts={str(name): Part(**part) for name, part in record["parts"].items()},
            stall=str(record["stall"]),
            ended=bool(record["ended"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
