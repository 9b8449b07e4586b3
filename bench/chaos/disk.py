"""A full disk: the run folder on a small file system of its own, which is filled to the last byte for a while.

Owns: that file system. Called by `bench.chaos.conductor`. Must not know: what the run writes.

It needs a machine on which this user may mount a tmpfs; elsewhere the fault is left out, with the reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

SIZE_MB = 400
"""More than a run needs to begin (100 MiB free), and with several checkpoints."""
BALLAST = ".chaos-ballast"
COMMAND_TIMEOUT_S = 20.0
PIECE = 1 << 20


class NoSmallDisk(RuntimeError):
    """This machine or user cannot mount one; the message says why."""


class SmallDisk:
    """Mounted at `folder` until `unmount`."""

    def __init__(self, folder: Path) -> None:
        """Raises NoSmallDisk."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "t2po-chaos", str(folder)])

    def fill(self) -> Callable[[], None]:
        """-> frees it again. What writes meanwhile gets ENOSPC."""
        path = self.folder / BALLAST
        with path.open("wb", buffering=0) as file:
            piece = PIECE
            while piece:
                try:
                    if file.write(bytes(piece)) < piece:
                        piece //= 2
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece //= 2
        return lambda: path.unlink(missing_ok=True)

    def keep(self, place: Path) -> None:
        """Copies the run's small files out before the disk is gone."""
        place.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and path.name != BALLAST:
                (place / path.name).write_bytes(path.read_bytes())

    def unmount(self) -> None:
        with contextlib.suppress(NoSmallDisk):
            _run(["umount", "-l", str(self.folder)])


def _run(command: list[str]) -> None:
    if os.geteuid() != 0:
        raise NoSmallDisk("only root may mount a small disk")
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoSmallDisk(f"{command[0]}: {error}") from error
    if done.returncode:
        raise NoSmallDisk(f"{command[0]}: {done.stderr.strip()}")
