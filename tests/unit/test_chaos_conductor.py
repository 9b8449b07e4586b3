"""Conducting a chaos run, with a program in the place of the run that is up in a moment and has one process to lose."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.chaos import conductor, doing
from bench.chaos.fault import Fault, Moment
from controller.task_order import TaskOrder
from envs.panel import load_panel
from tests.integration.run_process import RunProcess

PROGRAM = """
import json, os, subprocess, sys, time
from pathlib import Path
folder, mode, tasks = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
for part in (folder, folder / "checkpoints"):
    part.mkdir(exist_ok=True)
saved = max((int(path.name[5:]) for path in (folder / "checkpoints").iterdir()), default=0)
def write(name, **fields):
    with (folder / name).open("a") as file:
        file.write(json.dumps({**fields, "time": time.time()}) + "\\n")
def actor():
    return subprocess.Popen(["bash", "-c", "exec -a ray::EnvActor sleep 300"], start_new_session=True)
if saved or (folder / "audit.jsonl").exists():
    write("audit.jsonl", event="resumed", step=saved)
child = actor()
time.sleep(0.3)
print("everything is up after 0 s", flush=True)
def watch():
    global child
    if child.poll() is None:
        return
    if mode == "says why":
        print("the run ended: PartLost: env-0 died", flush=True)
        sys.exit(2)
    if mode == "says nothing":
        sys.exit(3)
    while mode == "hangs":
        time.sleep(1)
    child = actor()
for step in range(saved + 1, 5):
    for index in (2 * step - 2, 2 * step - 1):
        group = f"r-g{index:06d}"
        names = [f"{group}/{sibling}/0" for sibling in range(3)]
        write("audit.jsonl", event="issued", group=group, index=index, task=tasks[index], step=step)
        write("audit.jsonl", event="queued", group=group, trajectories=names, step=step)
        if not (mode == "loses" and index == 3):
            write("audit.jsonl", event="trained", group=group, trajectories=names, step=step)
    for _ in range(10):
        time.sleep(0.05)
        watch()
    write("metrics.jsonl", step=step)
    if step % 2 == 0:
        time.sleep(0.7)
        watch()
        (folder / "checkpoints" / f"step-{step:08d}").mkdir()
        write("audit.jsonl", event="committed", step=step)
if mode != "leaves":
    child.kill()
    child.wait()
"""
KILL = Fault("kill", "env actor", Moment("step", 1))
SEED = 4


def conducted(folder: Path, mode: str, *faults: Fault) -> dict[str, Any]:
    order = TaskOrder(load_panel("alfworld", "train").tasks, SEED)
    tasks = json.dumps([order.task(index)[0].id for index in range(8)])

    class StandIn(RunProcess):
        def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
            with self.log.open("ab") as output:
                return subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, str(self.folder), mode, tasks], env=dict(os.environ),
                    stdout=output, stderr=output, start_new_session=True,
                )  # fmt: skip

    return conductor.conduct(SEED, faults, folder, begin=StandIn)


def test_calm_run_is_finished(tmp_path: Path) -> None:
    found = conducted(tmp_path, "goes on")
    assert (found["outcome"], found["problems"], found["lives"]) == ("finished", (), 1)


def test_run_that_replaces_what_was_killed_is_finished_and_the_recovery_is_measured(tmp_path: Path) -> None:
    found = conducted(tmp_path, "goes on", KILL)
    assert (found["outcome"], found["problems"], found["lives"]) == ("finished", (), 1)
    fault = found["faults"][0]
    assert fault["recovery_s"] is not None and "1 steps done" in fault["note"]


def test_run_that_ends_with_a_cause_is_resumed_and_judged_good(tmp_path: Path) -> None:
    found = conducted(tmp_path, "says why", KILL)
    assert (found["outcome"], found["problems"], found["lives"]) == ("ended with a cause", (), 2)
    assert found["causes"] == ("PartLost: env-0 died",)


def test_killed_controller_leaves_its_child_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "GONE_S", 0.5)
    found = conducted(tmp_path, "goes on", Fault("kill", "controller", Moment("step", 2)))
    assert (found["outcome"], found["causes"]) == ("ended with a cause", ("killed by the harness",))
    assert [problem.split(" (")[0] for problem in found["problems"]] == ["life 0: left behind: ray::EnvActor 300"]


def test_controller_frozen_for_ever_is_killed_by_a_person_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conductor, "GONE_S", 0.5)
    monkeypatch.setattr(doing, "PATIENCE_WITH_A_FROZEN_CONTROLLER_S", 0.5)
    found = conducted(tmp_path, "goes on", Fault("freeze for ever", "controller", Moment("step", 1), math.inf))
    assert (found["outcome"], found["lives"]) == ("ended with a cause", 2)


def test_run_that_ends_without_a_word_is_found(tmp_path: Path) -> None:
    found = conducted(tmp_path, "says nothing", KILL)
    assert (found["outcome"], found["good"]) == ("no cause", False)


def test_run_that_hangs_is_found_and_nothing_of_it_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "STILL_S", 20.0)
    found = conducted(tmp_path, "hangs", KILL)
    assert (found["outcome"], found["good"]) == ("hung", False)
    assert "step 1, saved 0" in found["problems"][0]


def test_lost_trajectories_are_found(tmp_path: Path) -> None:
    found = conducted(tmp_path, "loses")
    assert found["outcome"] == "finished" and not found["good"]
    assert any("3 trajectories are neither trained nor dropped: lost" in problem for problem in found["problems"])


def test_process_left_behind_is_found_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "GONE_S", 0.5)
    found = conducted(tmp_path, "leaves")
    assert found["outcome"] == "finished" and "left behind: ray::EnvActor" in found["problems"][0]


def test_kill_before_a_checkpoint_comes_between_step_and_checkpoint(tmp_path: Path) -> None:
    found = conducted(tmp_path, "says why", Fault("kill before a checkpoint", "env actor", Moment("unsaved", 2)))
    assert found["faults"][0]["note"].endswith("2 steps done, 0 saved")
    assert (found["outcome"], found["problems"]) == ("ended with a cause", ())


def test_fault_that_comes_too_late_or_finds_nothing_is_said(tmp_path: Path) -> None:
    late, absent = Fault("kill", "router", Moment("step", 4, 99.0)), Fault("kill", "engine worker", Moment("step", 0))
    found = conducted(tmp_path, "goes on", absent, late)
    notes = [fault["note"] for fault in found["faults"]]
    assert notes == ["not done: this run has no engine worker", "not done: the run was over before its moment"]
    assert found["good"]


def test_freeze_is_thawed_when_its_time_is_over(tmp_path: Path) -> None:
    found = conducted(tmp_path, "goes on", Fault("freeze", "env actor", Moment("step", 1), 0.5))
    assert (found["outcome"], found["problems"]) == ("finished", ())
