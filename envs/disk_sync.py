"""Writing through to the disk: what is synced survives a power failure.

Owns: `sync`. Called wherever a room makes files appear whole or not at all. Must not know: what is in them.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Makes what a file holds, or the names within a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
