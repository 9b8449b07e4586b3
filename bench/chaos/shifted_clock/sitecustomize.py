"""Python's wall clock, shifted once a file says by how much: the clock of every Python process of a chaos run.

Owns: `time.time` and `time.time_ns` of the processes that have this folder on PYTHONPATH. Imported by Python itself at
its start. Must not know: who writes the file.

The monotonic clock, `datetime.now`, and programs that are not Python (Ray's and Valkey's servers) keep their time.
"""

import os
import time

_FILE = os.environ.get("T2PO_CHAOS_CLOCK", "")
_time, _time_ns, _monotonic = time.time, time.time_ns, time.monotonic
_LOOK_EVERY_S = 0.2
_state = [0.0, float("-inf")]


def _shift() -> float:
    """Seconds; the file is looked at a few times a second."""
    now = _monotonic()
    if now - _state[1] > _LOOK_EVERY_S:
        _state[1] = now
        try:
            with open(_FILE, encoding="ascii") as file:  # noqa: PTH123 (pathlib costs every process its import)
                _state[0] = float(file.read())
        except (OSError, ValueError):
            _state[0] = 0.0
    return _state[0]


if _FILE:
    time.time = lambda: _time() + _shift()
    time.time_ns = lambda: _time_ns() + int(_shift() * 1e9)
