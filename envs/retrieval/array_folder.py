"""A folder of arrays that appears whole or not at all, and that processes share by mapping it into memory.

Owns: `ArrayFolder` (write) and `open_arrays` (read, check). Called by `postings`, `bm25` and `dense`. Must not know:
what the arrays mean.

Layout: one NAME.npy an array, and header.json with the kind, facts, the size of every file and a checksum of all that.
A build that is killed leaves a folder `.NAME.PID-n.part` beside its target; it may be removed by hand.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from envs.data_folder import DataError

Array = NDArray[Any]
_HEADER = "header.json"
_MOVES = 100
_serial = itertools.count()


class ArrayFolder:
    """Arrays in the making: in memory (folder None), else in a temporary folder beside the one that is wanted."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._arrays: dict[str, Array] = {}
        self._part = folder.with_name(f".{folder.name}.{os.getpid()}-{next(_serial)}.part") if folder else None
        if self._part:
            with self._errors():
                self._part.mkdir(parents=True)

    def new(self, name: str, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array to fill; its content is undefined. Space on disk is claimed now, not while it is filled."""
        shape = (shape,) if isinstance(shape, int) else shape
        if self._part is None:
            self._arrays[name] = np.empty(shape, dtype=dtype)
            return self._arrays[name]
        path = self._part / f"{name}.npy"
        with self._errors():
            with path.open("wb") as stream:
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                begin = stream.tell()
                num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
                if num_bytes:
                    stream.flush()
                    os.posix_fallocate(stream.fileno(), begin, num_bytes)
            self._arrays[name] = _load(path, "r+")
        return self._arrays[name]

    def add(self, name: str, content: Array) -> None:
        self.new(name, content.shape, content.dtype)[...] = content

    def set_aside(self, content: Array) -> Array:
        """The same array, on disk if this is a folder: for what is needed until `finish` and then no more."""
        if self._part is None or not content.size:
            return content
        aside = self._part / "aside"
        with self._errors():
            aside.mkdir(exist_ok=True)
            path = aside / f"{next(_serial)}.npy"
            np.save(path, content)
            return _load(path, "r")

    def finish(self, kind: str, facts: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Array]]:
        """Facts and arrays as `open_arrays` gives them. A folder is moved into place, over an older one."""
        if self._folder is None or self._part is None:
            return facts, self._arrays
        with self._errors():
            for array in self._arrays.values():
                if isinstance(array, np.memmap):
                    array.flush()
            shutil.rmtree(self._part / "aside", ignore_errors=True)
            sizes = {name: (self._part / f"{name}.npy").stat().st_size for name in self._arrays}
            self._arrays = {}
            body = {"kind": kind, "facts": facts, "sizes": sizes}
            text = json.dumps({**body, "checksum": _checksum(body)}, indent=1, ensure_ascii=True)
            (self._part / _HEADER).write_text(text + "\n", encoding="ascii")
            opened = open_arrays(self._part, kind)  # what is mapped moves along
            _move(self._part, self._folder)
        return opened

    def discard(self) -> None:
        """Forget what was made so far."""
        self._arrays = {}
        if self._part:
            shutil.rmtree(self._part, ignore_errors=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.discard()
            raise DataError(
                f"{self._folder}: cannot be written ({error}): free space, or choose another folder"
            ) from error


def open_arrays(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Facts and read-only mapped arrays of a folder. Raises DataError unless every file is there and whole."""
    header = folder / _HEADER
    try:
        body = json.loads(header.read_text(encoding="utf-8"))
        checksum = body.pop("checksum")
        found_kind, facts, sizes = body["kind"], body["facts"], body["sizes"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{header} is missing: no finished index is in this folder; build it again") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{header}: {type(error).__name__} {error}: damaged; build the index again") from error
    if found_kind != kind:
        raise DataError(f"{header}: holds {found_kind!r}, not {kind!r}; build the index again")
    if checksum != _checksum(body):
        raise DataError(f"{header}: its checksum does not fit: damaged; build the index again")
    return facts, {name: _open_array(folder / f"{name}.npy", size) for name, size in sizes.items()}


def _open_array(path: Path, size: int) -> Array:
    try:
        found = path.stat().st_size
        if found == size:
            # a plain array on the mapped bytes: slices of it are cheaper than slices of a memmap
            return _load(path, "r").view(np.ndarray)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}: damaged; build the index again") from error
    raise DataError(f"{path}: {found} bytes instead of {size}: cut short; build the index again")


def _load(path: Path, mode: Literal["r", "r+"]) -> Array:
    """A mapped array; one without elements is read, since nothing can be mapped of it."""
    with path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        shape, _, _ = np.lib.format.read_array_header_1_0(stream)
    loaded: Array = np.load(path, mmap_mode=mode if math.prod(shape) else None, allow_pickle=False)
    return loaded


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()


def _move(part: Path, folder: Path) -> None:
    """Rename `part` to `folder`. An older folder steps aside first: who has it mapped keeps it."""
    old = part.with_suffix(".old")
    for _ in range(_MOVES):  # another process may put its own folder there in between
        try:
            part.rename(folder)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):
            folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    else:
        raise FileExistsError(errno.EEXIST, "other processes keep writing it", str(folder))
