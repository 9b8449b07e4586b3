"""The progress of a long command, on one line of a terminal that is written over, or a line now and then elsewhere.

Owns: `ProgressLine`. Called by the CLI. Must not know: what is in progress.
"""

from __future__ import annotations

import re
import sys
import time
from typing import TextIO

_COUNTS = re.compile(r"(\d+) of (\d+)")
_WIDTH = 30
_PAUSE_S = 5.0
"""Between two lines where nothing can be written over."""


class ProgressLine:
    """Called with texts such as `search index: 300 of 1000 products`, whose counts become a bar."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._last = ""
        self._next = 0.0

    def __call__(self, text: str) -> None:
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[2K{bar(text)}")
        elif time.monotonic() >= self._next or text.split(":")[0] != self._last:
            self._next = time.monotonic() + _PAUSE_S
            self._stream.write(text + "\n")
        self._last = text.split(":")[0]
        self._stream.flush()

    def close(self) -> None:
        """Leave the line, so that what follows begins on its own."""
        if self._last and self._stream.isatty():
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


def bar(text: str) -> str:
    """The text, behind a bar where it says how many of how many."""
    counts = _COUNTS.search(text)
    if not counts or int(counts.group(2)) == 0:
        return text
    full = min(_WIDTH, _WIDTH * int(counts.group(1)) // int(counts.group(2)))
    return f"[{'#' * full}{'.' * (_WIDTH - full)}] {text}"
