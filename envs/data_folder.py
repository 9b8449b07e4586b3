"""Where fetched task data lies, and the error for data that cannot be used.

Owns: `data_folder` (T2PO_DATA), `write_lines` into it, and `DataError`. Called by everything that
loads tasks. Must not know: formats.
"""

from __future__ import annotations

import contextlib
import lzma
import os
from collections.abc import Iterable
from pathlib import Path


class DataError(ValueError):
    """Task data that cannot be used; the message names the file or game, what is wrong, and the remedy."""


def data_folder() -> Path:
    """The folder for fetched task data: `T2PO_DATA`, else `~/.local/share/t2po`."""
    chosen = os.environ.get("T2PO_DATA", "")
    return Path(chosen).expanduser() if chosen else Path.home() / ".local" / "share" / "t2po"


def write_lines(path: Path, lines: Iterable[str], preset: int = 6) -> Path:
    """Write lines, each with its line break added, as .xz; the file appears whole or not at all. Raises DataError."""
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lzma.open(partial, "wt", encoding="utf-8", preset=preset) as stream:
            stream.writelines(f"{line}\n" for line in lines)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise DataError(
            f"{path}: cannot be written ({error}): free space, or set T2PO_DATA to another folder"
        ) from error
    return path
