"""What a run's processes do at this moment, from the run folder and the process table.

Owns: the lines on it. Called by `controller.run_status`. Must not know: Ray, metrics, what the parts are.

Whether the run goes on is said by its lock, which the kernel drops with its holder; what it does, by `parts.json`; and
why that is old, by the state of the process.
"""

from __future__ import annotations

import platform
from pathlib import Path

import psutil

from controller.live_view import duration
from controller.parts_file import PartsRecord, read_parts
from controller.run_folder import is_running, lock_holder

SILENT_AFTER_S = 15.0
"""The controller writes every 5 s. Older than this, and it does not work."""
REMEDIES = {
    psutil.STATUS_STOPPED: "let it go on with: kill -CONT {pid}",
    psutil.STATUS_TRACING_STOP: "a debugger holds it: let it go on there",
    psutil.STATUS_DISK_SLEEP: "it waits for a disk: look at the disks of the run folder and of the machine",
}
LETTERS = {
    psutil.STATUS_RUNNING: "R", psutil.STATUS_SLEEPING: "S", psutil.STATUS_DISK_SLEEP: "D", psutil.STATUS_STOPPED: "T",
    psutil.STATUS_TRACING_STOP: "t", psutil.STATUS_ZOMBIE: "Z", psutil.STATUS_IDLE: "I",
}  # fmt: skip


def life_lines(run: Path) -> list[str]:
    """One line a part, then why nothing goes on; or that the process is stopped or gone. None for a run that ended."""
    record = read_parts(run)
    if not is_running(run):
        return [] if record is None or record.ended else [_gone(run, record)]
    holder = lock_holder(run)
    if record is None or record.ended or (holder is not None and holder != record.process.pid):
        return [f"process {holder or '?'} is at work on it and has not said yet what its parts do"]
    return [*_parts(record), *_silence(record)]


def _parts(record: PartsRecord) -> list[str]:
    age_s = record.age_s()
    width = max((len(name) for name in record.parts), default=0)
    lines = [
        f"{name:<{width}}   {part.doing}   since {duration(record.time - part.since + age_s)}"
        for name, part in record.parts.items()
    ]
    return [*lines, *([record.stall] if record.stall else [])]


def _silence(record: PartsRecord) -> list[str]:
    age_s, pid = record.age_s(), record.process.pid
    if age_s < SILENT_AFTER_S:
        return []
    silence = f"the controller has written nothing for {duration(age_s)}"
    if record.host != platform.node():
        return [f"{silence}: look at process {pid} on {record.host}"]
    try:
        state = psutil.Process(pid).status()
    except psutil.Error:
        return [f"{silence}: process {pid} is gone"]
    remedy = REMEDIES.get(state, "it is busy with something, or the disk takes nothing: see run.log").format(pid=pid)
    return [f"{silence}: process {pid} is {state} ({LETTERS.get(state, '?')}); {remedy}"]


def _gone(run: Path, record: PartsRecord) -> str:
    if record.host != platform.node():
        return f"no process of this machine works on it; it ran on {record.host}, {duration(record.age_s())} ago"
    return (
        f"its process {record.process.pid} is gone: it was killed, or the machine went down, not more than "
        f"{duration(record.age_s())} ago; go on with: t2po train --resume {run}"
    )
