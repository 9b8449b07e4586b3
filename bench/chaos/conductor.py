"""One chaos run from start to verdict: started, disturbed as scheduled, resumed as a person would, judged.

Owns: the order of these, the deadlines, the record of a run. Called by `bench.chaos.__main__` and
tests/integration/test_chaos_short.py. Must not know: how a fault is done, what makes a verdict.

A life that ends before the run is done is followed by a resume, once every fault that still lasts is undone: "when the
cause is gone, go on with". Faults that were not due yet come in a later life.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.chaos.course import Course
from bench.chaos.doing import LOOK_EVERY_S, Doing
from bench.chaos.fault import STEPS, Fault
from bench.chaos.judge import Evidence, Life, judge_run
from bench.chaos.processes import Family
from bench.chaos.setting import TRAJECTORIES, Setting
from controller.durable_files import read_json_lines
from tests.integration.run_process import RunProcess

STILL_S = 600.0
"""A run that shows no progress (`bench.chaos.course`) and does not end for so long hangs."""
LIFE_S = 2400.0
"""And one that shows progress all the time, but finishes neither within this."""
GONE_S = 60.0
"""Processes of a life that ended have so long to end too."""
MAX_LIVES = 8
TICK_S = 0.05
QUICK_TICK_S = 0.003
QUICK_S = 0.4
CAUSE = re.compile(r"^.*?(?:(?:the run ended|this life of the run ends): (.+)|(paused: .+))$", re.MULTILINE)
"""How a run says why it ends."""


def conduct(
    seed: int,
    faults: Sequence[Fault],
    folder: Path,
    say: Callable[[str], None] = lambda text: None,
    begin: Callable[..., RunProcess] = RunProcess,
) -> dict[str, Any]:
    """The record of the run with this seed below `folder`: what was done, what came of it, what is wrong with it.

    `begin(folder, name, *changes)` starts it, from the policy in `folder`.
    """
    name = f"seed-{seed}"
    began = time.monotonic()
    family = Family()
    doings = [Doing(fault, random.Random(f"chaos {seed} target {number}")) for number, fault in enumerate(faults)]
    with Setting(seed, faults, folder / name) as setting:
        run = begin(folder, name, *setting.changes)
        stage = _Stage(run, family, setting, doings, say)
        try:
            stage.play()
        finally:
            run.end()
            family.end()
        verdict = judge_run(
            Evidence(
                lives=stage.lives, hung=stage.hung, audit=list(read_json_lines(run.folder / "audit.jsonl")),
                steps=STEPS, trajectories=TRAJECTORIES, task_of=setting.task_of,
            )
        )  # fmt: skip
    return {
        "seed": seed, "outcome": verdict.outcome, "good": verdict.good, "causes": verdict.causes,
        "problems": verdict.problems, "lives": len(stage.lives), "seconds": round(time.monotonic() - began, 1),
        "faults": [stage.account(doing) for doing in doings], "changes": setting.changes,
    }  # fmt: skip


def make_policy(folder: Path) -> None:
    """The policy that all runs below `folder` start from, if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "policy").is_dir():
        from tests.integration.quick_policy import make_quick_policy  # imports torch: seconds that a run may save

        make_quick_policy(folder / "policy")


class _Stage:
    """The run and everything that is done to it."""

    def __init__(
        self, run: RunProcess, family: Family, setting: Setting, doings: list[Doing], say: Callable[[str], None]
    ) -> None:
        self.run = run
        self.family = family
        self.setting = setting
        self.doings = doings
        self.course = Course(run.folder, run.log)
        self.lives: list[Life] = []
        self.hung = ""
        self._say = say
        self._began = time.monotonic()
        self._ended = 0.0

    def play(self) -> None:
        while True:
            self._say(f"life {len(self.lives)}: pid {self.run.process.pid}")
            self.family.follow(self.run.process.pid)
            if not self._live() or self.lives[-1].exit_code == 0 or len(self.lives) == MAX_LIVES:
                break
            self.course.begin()
            self.run.resume()
        self._ended = time.monotonic()
        for doing in self.doings:
            doing.end()
            if not doing.started:
                doing.give_up("the run was over before its moment")

    def _live(self) -> bool:
        """One life, from its start to its end; false when it hangs."""
        said_before = self.run.log.stat().st_size
        began = time.monotonic()
        killed = False
        acted = set[int]()
        while self.run.process.poll() is None:
            self.course.look()
            self.family.look(LOOK_EVERY_S)
            for number, doing in enumerate(self.doings):
                was = doing.started
                killed |= doing.look(self.course, self.family, self.setting)
                if doing.started and not (was and doing.over):
                    acted.add(number)
                if doing.started and not was:
                    self._say(f"{self._seconds():.1f} s: {doing.fault.name} ({doing.note}), step {self.course.step}")
                if doing.waits:
                    break  # one after another
            if self._is_still(began):
                return False
            self._rest()
        for doing in self.doings:
            doing.end()
        self.course.look()
        text = self.run.log.read_bytes()[said_before:].decode("utf-8", "replace")
        told = {one for life in self.lives for one in life.left}
        left = [one for one in self.family.gone(GONE_S) if one not in told]
        life = Life(
            self.run.process.returncode, cause_in(text), round(time.monotonic() - began, 1), killed,
            tuple(left), bool(acted),
        )  # fmt: skip
        self.lives.append(life)
        self._say(f"{self._seconds():.1f} s: {life}")
        return True

    def _rest(self) -> None:
        """Until the next look; where a moment is short, with open eyes."""
        waiting = next((doing for doing in self.doings if doing.waits), None)
        if waiting is None or not waiting.fault.moment.is_short:
            time.sleep(TICK_S)
            return
        deadline = time.monotonic() + QUICK_S
        while time.monotonic() < deadline and self.run.process.poll() is None:
            self.course.look()
            if self.course.is_time(waiting.fault.moment):
                return
            time.sleep(QUICK_TICK_S)

    def _is_still(self, began: float) -> bool:
        now = time.monotonic()
        still = now - self.course.progress
        if still < STILL_S and now - began < LIFE_S:
            return False
        states = ", ".join(self.family.states())
        self.hung = (
            f"no progress for {still:.0f} s, life of {now - began:.0f} s, step {self.course.step}, saved "
            f"{self.course.saved()}; {states}"
        )
        self._say(f"{self._seconds():.1f} s: hung: {self.hung}")
        return True

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def account(self, doing: Doing) -> dict[str, Any]:
        """What became of one fault. `recovery_s`: from its moment to the end of the next step, or of the run."""
        fault = doing.fault
        record: dict[str, Any] = {
            "kind": fault.kind, "target": fault.target, "when": fault.moment.when,
            "for_s": None if fault.for_s == float("inf") else fault.for_s, "note": doing.note,
            "at_s": None, "recovery_s": None,
        }  # fmt: skip
        if doing.began is not None:
            again = self.course.next_step_after(doing.began)
            if again is None and self.lives and self.lives[-1].exit_code == 0:
                again = self._ended
            record["at_s"] = round(doing.began - self._began, 1)
            record["recovery_s"] = None if again is None else round(again - doing.began, 1)
        return record


def cause_in(text: str) -> str:
    """What a life said that it ended of: its last word on it."""
    found = [next(filter(None, match.groups())) for match in CAUSE.finditer(text)]
    return found[-1].strip() if found else ""
