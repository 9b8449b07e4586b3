"""Memory that was freed goes back to the system.

Owns: `give_back`. Called by `learner.learner_actor` after each step. Must not know: who allocated it.
"""

from __future__ import annotations

import ctypes


def give_back() -> bool:
    """Whether the C library can, and found something to give back.

    Every step has tensors of other sizes, so glibc's heap keeps holes of every size between those that stay: the
    learner's process grew with the steps though nothing was kept (docs/overlap.md). Takes milliseconds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    return trim is not None and bool(trim(0))
