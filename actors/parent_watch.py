"""An engine's process ends when the process that started it is gone, whatever ended that.

Owns: the watch. Called by `actors.engine_worker`, in the processes that vLLM starts. Must not know: what runs there.

vLLM's engine does not notice the death of its parent: it would keep its memory, and its GPU, until somebody ends it by
hand. On the run's own machine the controller could; on another node of a cluster nobody knows of it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

LOOK_EVERY_S = 1.0


def end_with_parent() -> bool:
    """Begins the watch; false where there is nothing to watch: a process that multiprocessing did not start."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return False
    threading.Thread(target=_watch, args=(parent.pid,), name="parent-watch", daemon=True).start()
    return True


def _watch(parent: int) -> None:
    """A process whose parent is gone gets another one. Killed, not asked: an engine without its actor serves nobody."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGKILL)
