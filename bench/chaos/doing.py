"""Doing a fault to a run, and undoing it when its time is over.

Owns: which function does which kind. Called by `bench.chaos.conductor`. Must not know: when a fault is due, what became
of the run.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

import psutil
import redis

from bench.chaos import clock, queue_memory, signals
from bench.chaos.course import Course
from bench.chaos.fault import Fault
from bench.chaos.processes import Family
from bench.chaos.setting import Setting

LOOK_EVERY_S = 0.5
PATIENCE_WITH_A_FROZEN_CONTROLLER_S = 20.0
"""Nothing watches over the controller but a person, who sees in `t2po status` that it stands, and kills it."""


class Doing:
    """One fault. `began`: when it was done (monotonic clock), None before. `note`: what it hit, or why it was not."""

    def __init__(self, fault: Fault, chance: random.Random) -> None:
        self.fault = fault
        self.began: float | None = None
        self.over = False
        """Nothing is to be done about it any more."""
        self.note = ""
        self._chance = chance
        self._undo: Callable[[], None] | None = None

    @property
    def started(self) -> bool:
        return self.began is not None

    @property
    def waits(self) -> bool:
        """For its moment, which the harness has to find. An environment's comes by itself."""
        return not self.started and not self.over and self.fault.moment.when != "play"

    def look(self, course: Course, family: Family, setting: Setting) -> bool:
        """Does it when it is due. -> whether the controller was killed by it."""
        if self.over:
            return False
        if self.started:
            return self._wait_for_end(family)
        if self.fault.kind == "environment":
            if any(setting.marks.glob("*")):
                self.note, self.over, self.began = (
                    f"task {setting.task_of(self.fault.moment.group)}",
                    True,
                    time.monotonic(),
                )
        elif course.is_time(self.fault.moment):
            return self._do(course, family, setting)
        return False

    def end(self) -> None:
        """Undoes it: before a resume, which somebody does who has seen to the cause."""
        if self._undo:
            self._undo()
            self._undo = None
        self.over = self.over or self.started

    def give_up(self, why: str) -> None:
        self.note, self.over = self.note or f"not done: {why}", True

    def _wait_for_end(self, family: Family) -> bool:
        assert self.began is not None
        lasted = time.monotonic() - self.began
        if math.isinf(self.fault.for_s) and self.fault.target == "controller":
            if lasted > PATIENCE_WITH_A_FROZEN_CONTROLLER_S:
                for process in family.find("controller"):
                    signals.kill(process)
                self.over = True
                return True
        elif lasted >= self.fault.for_s:
            self.end()
        return False

    def _do(self, course: Course, family: Family, setting: Setting) -> bool:
        fault = self.fault
        try:
            if fault.kind in ("kill", "freeze", "freeze for ever") or fault.kind.startswith("kill "):
                return self._signal(course, family)
            if fault.kind == "network" and setting.queue:
                self.note = setting.queue.way
                self._undo = setting.queue.disturb(fault.target)
            elif fault.kind == "disk" and setting.disk:
                self._undo = setting.disk.fill()
            elif fault.kind == "queue memory":
                self._undo = queue_memory.fill(setting.folder / "queue")
            elif fault.kind == "clock":
                clock.jump(setting.clock_file, fault.for_s if fault.target == "forward" else -fault.for_s)
                self.over = True
            else:
                self.give_up(setting.skipped.get(fault.kind, "nothing to do it with"))
                return False
        except (OSError, redis.RedisError, psutil.Error) as error:
            self.note = f"tried again: {error}"  # its target is being restarted
            return False
        self.began = time.monotonic()
        return False

    def _signal(self, course: Course, family: Family) -> bool:
        # A short moment would be over before all processes were looked at.
        found = family.find(self.fault.target, LOOK_EVERY_S if self.fault.moment.is_short else 0.0)
        if not found:
            if course.is_up and self.fault.moment.when != "starting" and course.step > self.fault.moment.step:
                self.give_up(f"this run has no {self.fault.target}")
            return False
        process = self._chance.choice(found)
        self.note = f"pid {process.pid}, {course.step} steps done, {course.saved()} saved"
        if self.fault.kind.startswith("kill"):
            signals.kill(process)
            self.over = True
        else:
            self._undo = signals.freeze(process)
        self.began = time.monotonic()
        return self.fault.kind == "kill" and self.fault.target == "controller"
