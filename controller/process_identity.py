"""A process that cannot be mistaken for a later one with the same pid.

Owns: `ProcessId` (pid, start time, boot) and ending a process by it. Called by whoever supervises a process that may
outlive its record. Must not know: what the process does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ProcessId:
    """Pid, start time in ticks since the boot, and which boot that was."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The live process with this pid; None when there is none (a zombie is none)."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
            boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name, in parentheses, may hold spaces; the fields after it may not. State is the 1st, start the 20th.
        fields = stat[stat.rindex(")") + 2 :].split()
        return None if fields[0] in "ZX" else cls(pid=pid, start_ticks=int(fields[19]), boot_id=boot_id)

    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self

    def kill(self, number: signal.Signals) -> None:
        """Signals the process and, as it leads its own group, the child that rewrites its append-only file."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                if number is signal.SIGKILL:
                    os.killpg(self.pid, number)
                else:
                    os.kill(self.pid, number)

    def wait_gone(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True
