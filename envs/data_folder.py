"""Where fetched task data lies, and the error for data that cannot be used.

Owns: `data_folder` (T2PO_DATA) and `DataError`. Called by everything that loads tasks. Must not know: formats.
"""

from __future__ import annotations

import os
from pathlib import Path


class DataError(ValueError):
    """Task data that cannot be used; the message names the file or game, what is wrong, and the remedy."""


def data_folder() -> Path:
    """The folder for fetched task data: `T2PO_DATA`, else `~/.local/share/t2po`."""
    chosen = os.environ.get("T2PO_DATA", "")
    return Path(chosen).expanduser() if chosen else Path.home() / ".local" / "share" / "t2po"
