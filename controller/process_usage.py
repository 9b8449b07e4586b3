"""What the processes of a run use: memory, file handles, threads, by role.

Owns: finding the processes, adding them up. Called by `controller.update` once a step and by `bench.flat_memory`. Must
not know: what a number means for the run (`bench.flat_memory` says what counts as growth).

A run's processes are its controller and everything below it: its private Ray, the actors, their engines, the queue's
server. In a cluster that a run joined (`cluster.address`) the actors are not below it, and perhaps on other machines:
there only the controller's own processes are measured; Ray's agents serve the others' (docs/monitoring.md).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Iterable

import psutil

from controller.deadline import DeadlineError, bounded
from controller.process_roles import PROCESS_MEASURES, role_of

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
"""A number for people is not worth a longer wait; /proc answers in milliseconds."""


async def usage_of_run() -> dict[str, float]:
    """`usage` of this process and all below it, by the names of the metrics; nothing when it takes too long."""
    try:
        return await bounded(asyncio.to_thread(_usage_from, os.getpid()), TIMEOUT_S, "processes: memory and handles")
    except DeadlineError as error:
        logger.info("%s", error)
        return {}


def usage(processes: Iterable[tuple[str, psutil.Process]]) -> dict[str, float]:
    """(role, process) -> {"memory_mb_env": ..., "private_mb_env": ..., "fds_env": ..., "threads_env": ...}.

    Sums over the processes of a role; one that ends meanwhile, or is another user's, is left out. MB are 10⁶ bytes.
    """
    found: Counter[str] = Counter()
    for role, process in processes:
        try:
            with process.oneshot():
                memory = process.memory_info()
                values = (
                    memory.rss / 1e6,
                    (memory.rss - memory.shared) / 1e6,
                    process.num_fds(),
                    process.num_threads(),
                )
        except psutil.Error:
            continue
        for kind, value in zip(PROCESS_MEASURES, values, strict=True):
            found[f"{kind}_{role}"] += value
    return {name: float(value) for name, value in found.items()}


def family_of(pid: int) -> list[tuple[str, psutil.Process]]:
    """The process with this pid, as the controller of a run, and every process below it, with their roles."""
    try:
        controller = psutil.Process(pid)
        below = controller.children(recursive=True)
    except psutil.Error:
        return []
    roles = {pid: "controller"}
    found = [("controller", controller)]
    for process in below:  # parents come before their children
        try:
            roles[process.pid] = role_of(process.cmdline(), roles.get(process.ppid(), ""))
        except psutil.Error:
            continue
        found.append((roles[process.pid], process))
    return found


def _usage_from(pid: int) -> dict[str, float]:
    return usage(family_of(pid))
