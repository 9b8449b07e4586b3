"""Files that survive kill -9 and a full disk: JSON lines that are whole or not there, and files replaced in one step.

Owns: appending, cutting a half-written end, reading, replacing, and what an OSError means for a person. Called by the
run folder, the audit and the checkpoints. Must not know: what the files hold.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from envs.disk_sync import sync

logger = logging.getLogger(__name__)

_TAIL = 1 << 16

REMEDIES = {
    errno.ENOSPC: "free space on this disk or set runs_dir to another one, then resume",
    errno.EDQUOT: "your quota is used up: delete something or set runs_dir elsewhere, then resume",
    errno.EROFS: "this disk is read-only: set runs_dir to one that is writable",
    errno.EACCES: "this user may not write here: set runs_dir elsewhere or change the rights",
    errno.EPERM: "this user may not write here: set runs_dir elsewhere or change the rights",
    errno.ENOTDIR: "a part of the path is a file: set runs_dir elsewhere",
    errno.EISDIR: "a folder stands where a file belongs: remove it",
    errno.ENOENT: "the file or folder is gone: was the run moved or deleted?",
    errno.EIO: "the disk fails: set runs_dir to another one",
}


class RunFolderError(RuntimeError):
    """A file of the run cannot be read or written; names the path, the cause and the remedy."""

    @classmethod
    def of(cls, path: Path, error: OSError, what: str) -> RunFolderError:
        remedy = REMEDIES.get(error.errno or 0, "look at the path and its disk")
        return cls(f"{path}: cannot {what}: {error.strerror or error}; {remedy}")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


encode_json = msgspec.json.Encoder(enc_hook=_plain).encode
"""Strict JSON: NaN and infinities become null, numpy scalars become numbers."""


class JsonLines:
    """One file, open for appending. Several threads may append."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file; an end that kill -9 left half-written is cut off."""
        self.path = path
        self._lock = threading.Lock()
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise RunFolderError.of(path, error, "open for appending") from error
        self.num_cut = self._cut_half_line()
        if self.num_cut:
            logger.warning("%s: cut %d bytes of a half-written last line", path, self.num_cut)

    def append(self, record: dict[str, Any], *, sync: bool = False) -> None:
        """Writes one line. With `sync` it is on the disk afterwards; without, it survives kill -9 of the process."""
        self.append_all([record], sync=sync)

    def append_all(self, records: list[dict[str, Any]], *, sync: bool = False) -> None:
        """Writes several lines as one: all of them are there or none."""
        data = b"".join(encode_json(record) + b"\n" for record in records)
        try:
            with self._lock:
                size = os.fstat(self._descriptor).st_size
                written = os.write(self._descriptor, data)
                if written < len(data):  # the disk became full in the middle of the line
                    os.ftruncate(self._descriptor, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fsync(self._descriptor)
        except OSError as error:
            raise RunFolderError.of(self.path, error, "append") from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _cut_half_line(self) -> int:
        """Everything after the last newline goes, and last lines that are no JSON (a power failure leaves zeros)."""
        try:
            size = end = os.fstat(self._descriptor).st_size
            while end:
                line_start = _last_line_start(self._descriptor, end)
                line = os.pread(self._descriptor, end - line_start, line_start)
                if line.endswith(b"\n") and _is_object(line):
                    break
                end = line_start
            if end < size:
                os.ftruncate(self._descriptor, end)
            return size - end
        except OSError as error:
            raise RunFolderError.of(self.path, error, "cut a half-written line") from error


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file that may be written to at this moment: a half-written last line is left out."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    record = msgspec.json.decode(line)
                except msgspec.DecodeError as error:
                    raise RunFolderError(f"{path}, line {number}: not JSON ({error}); delete the line") from error
                if not isinstance(record, dict):
                    raise RunFolderError(f"{path}, line {number}: not a JSON object; delete the line")
                yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunFolderError.of(path, error, "read") from error


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file in one step: content, then name, each on the disk before the next."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise RunFolderError.of(path, error, "write") from error


def _last_line_start(descriptor: int, end: int) -> int:
    """Where the last line of the first `end` bytes begins."""
    position = end - 1  # the newline that ends the last line does not begin it
    while position > 0:
        start = max(0, position - _TAIL)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except msgspec.DecodeError:
        return False
