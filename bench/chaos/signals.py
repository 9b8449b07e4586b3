"""Killing and freezing one process of a run.

Owns: the signals. Called by `bench.chaos.conductor`. Must not know: which process it is, or when.

A frozen process is one that cannot do anything: it holds its connections and answers nothing, as in a machine that
swaps, or a kernel that waits for a disk. It is thawed when its time is over, unless somebody ended it before.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

import psutil


def kill(process: psutil.Process) -> Callable[[], None]:
    """At once, and for good."""
    process.send_signal(signal.SIGKILL)
    return lambda: None


def freeze(process: psutil.Process) -> Callable[[], None]:
    """-> thaws it."""
    process.send_signal(signal.SIGSTOP)

    def thaw() -> None:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)

    return thaw
