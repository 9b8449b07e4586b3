"""What stands around a chaos run before it begins: its recipe, its own queue, small disk and clock where a fault needs
them.

Owns: the recipe's changes and these things' life. Called by `bench.chaos.conductor`. Must not know: when faults come.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bench.chaos import bad_environment, clock
from bench.chaos.disk import NoSmallDisk, SmallDisk
from bench.chaos.fault import CHECKPOINT_EVERY, STEPS, Fault
from bench.chaos.network import DistantQueue
from controller.task_order import TaskOrder
from envs.panel import load_panel

GROUPS_PER_STEP, GROUP_SIZE = 2, 3
TRAJECTORIES = STEPS * GROUPS_PER_STEP * GROUP_SIZE

RECIPE = (
    f"steps={STEPS}", f"checkpoint.every_steps={CHECKPOINT_EVERY}",
    f"rollout.groups_per_step={GROUPS_PER_STEP}", f"rollout.group_size={GROUP_SIZE}",
    "eval.num_tasks=2", "eval.before=false",
    # A frozen part is found by its deadline: short ones, and yet far above what a busy machine takes.
    "inference.start_timeout_s=300", "inference.request_timeout_s=30", "inference.update_timeout_s=40",
    "rollout.env_step_timeout_s=20", "rollout.trajectory_timeout_s=180", "learner.step_timeout_s=120",
    "queue.timeout_s=30", "supervision.ping_timeout_s=20",
)  # fmt: skip


class Setting:
    """A context manager. `skipped`: why a fault cannot be done on this machine, by its name."""

    def __init__(self, seed: int, faults: Sequence[Fault], folder: Path) -> None:
        """`folder`: the run's; what stands around it lies beside it, under its name."""
        self.folder = folder
        kinds = {fault.kind for fault in faults}
        self.skipped: dict[str, str] = {}
        self.queue: DistantQueue | None = None
        self.disk: SmallDisk | None = None
        self.clock_file = folder.with_name(f"{folder.name}.clock")
        self.marks = folder.with_name(f"{folder.name}.marks")
        self.changes = [*RECIPE, f"seed={seed}", f"rollout.max_staleness={seed % 2}"]
        self.changes.append(f"learner.num_ranks={2 if seed % 4 == 1 else 1}")
        self.changes.append(f"rollout.num_routers={1 if seed % 4 < 2 else 2}")
        panel = load_panel("alfworld", "train")
        order = TaskOrder(panel.tasks, seed)
        self.task_of = lambda index: order.task(index)[0].id
        for fault in faults:
            if fault.kind == "environment":
                task = self.task_of(fault.moment.group)
                orders = bad_environment.orders(fault.target, task, fault.moment.turn, fault.times, self.marks)
                self.changes += [f"env.name={bad_environment.NAME}", f"env.options={orders}"]
        if "clock" in kinds:
            os.environ.update(clock.environment(self.clock_file))
        if "network" in kinds:
            self.queue = DistantQueue(folder.with_name(f"{folder.name}.queue"))
            os.environ["T2PO_QUEUE_PASSWORD"] = self.queue.password
            self.changes.append(f"queue.url={self.queue.url}")
        if "disk" in kinds:
            try:
                self.disk = SmallDisk(folder)
            except NoSmallDisk as error:
                self.skipped["disk"] = str(error)

    def __enter__(self) -> Setting:
        return self

    def __exit__(self, *_: object) -> None:
        if self.queue:
            self.queue.close()
        if self.disk:
            self.disk.keep(self.folder.with_name(f"{self.folder.name}.kept"))
            self.disk.unmount()
