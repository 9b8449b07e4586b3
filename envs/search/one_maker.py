"""One process at a time makes what several need; the others wait for it, with a deadline.

Owns: `one_maker`. Called by `factbook` and `retriever`. Must not know: what is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from envs.data_folder import DataError


@contextlib.contextmanager
def one_maker(lock: Path, deadline_s: float, complaint: str) -> Iterator[None]:
    """Holds the lock file while its block runs. Raises DataError with `complaint` when another process has held it for
    `deadline_s`, OSError when it cannot be written. The lock goes with its holder, however that ends."""
    deadline = time.monotonic() + deadline_s
    with lock.open("w") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DataError(f"{complaint} for {deadline_s:g} s: end it") from None
                time.sleep(0.1)
        yield
