"""A small process beside one that connects to Ray, for the time that it takes.

Owns: `StartGuard`, and what it says and ends. Called by `controller.ray_session` and `controller.joined_session`; runs
as `python -m controller.start_guard`. Must not know: what is started afterwards.

`ray.init` holds the interpreter's lock while it waits for the raylet to answer: no thread, no deadline and no signal
handler of the process runs meanwhile, and a raylet that is frozen just then would hold it for ever. And when that
raylet dies instead, Ray ends the process, with nothing in the run's log. So both are seen to from outside: a server
that stays stopped is killed, a process that is not done in time is ended, and whatever it was is said.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import psutil

from controller.ray_servers import RayServers
from controller.run_log import log_to

PATIENCE_S = 30.0
"""A server of Ray's that is stopped may go on within this time; Ray takes its node for dead by then."""

TIMEOUT_S = 180.0
"""For the whole connection. Ray's own deadlines on the way are 30 s and 60 s."""

LOOK_EVERY_S = 0.5
END_TIMEOUT_S = 10.0
DONE = b"done"


class StartGuard:
    """`with StartGuard("starting Ray", log): ray.init(...)`."""

    def __init__(
        self, what: str, log: Path | None, patience_s: float = PATIENCE_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        """`what` the process does, in words. `log`: where it is said what became of it, beside standard error."""
        self._command = [sys.executable, "-m", "controller.start_guard", what, str(os.getpid())]
        self._command += ["--patience", str(patience_s), "--timeout", str(timeout_s)]
        self._command += ["--log", str(log)] if log is not None else []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> StartGuard:
        root = Path(__file__).resolve().parent.parent
        self._process = subprocess.Popen(self._command, cwd=root, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process is not None
        try:
            self._process.communicate(DONE, timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # frozen; it has nothing to do any more
            self._process.kill()
            self._process.wait(END_TIMEOUT_S)


def guard(process: psutil.Process, patience_s: float, timeout_s: float) -> tuple[str, bool]:
    """Blocks until standard input says that `process` is connected, or until it is gone. What went wrong, in words, ""
    when nothing did; whether it is gone.

    Raylet and GCS are its children when it starts a Ray of its own; a joined cluster's are not, and are left alone.
    """
    began = time.monotonic()
    servers = RayServers([])
    cause = ""
    while not select.select([sys.stdin], [], [], LOOK_EVERY_S)[0]:
        servers.add(_children(process))
        cause = cause or servers.problem(patience_s)
        servers.kill_stopped(patience_s)  # the process fails of it now, or is ended by Ray
        if time.monotonic() - began > timeout_s:
            process.kill()
            return f"not done within {timeout_s:g} s; a raylet or GCS that it needs does not answer", True
    if os.read(sys.stdin.fileno(), len(DONE)) == DONE:
        return cause, False
    return cause or "its process was killed", True


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = process.children()
    except psutil.Error:
        children = []
    return children


def main() -> None:
    """Says what went wrong, when something did."""
    parser = argparse.ArgumentParser(prog="controller.start_guard")
    parser.add_argument("what")
    parser.add_argument("pid", type=int)
    parser.add_argument("--patience", type=float, required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    try:
        process = psutil.Process(options.pid)
    except psutil.Error:  # gone before it was looked at
        return
    cause, gone = guard(process, options.patience, options.timeout)
    if not cause:
        return
    if options.log is not None:
        log_to(options.log)
    logging.getLogger("controller.start_guard").error("%s: %s", options.what, cause)
    if gone:  # and says nothing any more
        print(f"the run ended: {options.what}: {cause}", file=sys.stderr)


if __name__ == "__main__":
    main()
