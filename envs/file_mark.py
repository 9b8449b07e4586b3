"""Which state of a file was read: what a cache of parsed files goes by.

Owns: `FileMark`, `mark_file`. Called by whoever keeps what was read of a file: `panel` and the environments. Must not
know: what files hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from envs.data_folder import DataError


class FileMark(NamedTuple):
    """A file or folder as it is now: `path` is absolute, `size` in bytes, `changed` in nanoseconds since 1970.

    As a key of a cache it finds what was read of this state and of no other. Take it before reading: a file that
    changes in between then counts as changed at the next look.
    """

    path: Path
    size: int
    changed: int


def mark_file(path: Path) -> FileMark:
    """The mark of a file or folder. Raises DataError where there is none."""
    path = path.absolute()
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}: fetch it again with `t2po data get ENV --from PATH`") from error
    return FileMark(path, found.st_size, found.st_mtime_ns)
