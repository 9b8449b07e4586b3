"""A training run in a process of its own, for tests: started, watched through its folder, killed.

The policy is `quick_policy`: bad, but mostly in the right format, so that there is something to learn from.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]

RECIPE = """
steps = 4
model = "{policy}"
runs_dir = "{runs}"
[env]
max_turns = 4
[rollout]
groups_per_step = 2
group_size = 3
[inference]
response_tokens = 32
prompt_tokens = 448
max_num_seqs = 16
kv_cache_gib = 0.25
start_timeout_s = 900.0
verify_every = 1
[tti]
think_cap = 16
[eval]
num_tasks = 4
[checkpoint]
every_steps = 2
[metrics]
port = 0
"""


class RunProcess:
    """`t2po train ...` as a child process."""

    def __init__(self, runs: Path, name: str, *changes: str, known: bool = False) -> None:
        """`known`: the run was begun before; it goes on, which does nothing to one that is done."""
        self.runs = runs
        self.folder = runs / name
        self.recipe = runs / "test.toml"
        if not self.recipe.exists():
            self.recipe.write_text(RECIPE.format(runs=runs, policy=runs / "policy"), encoding="utf-8")
        self.log = runs / f"{name}.log"
        if known:
            self.resume()
        else:
            self.process = self._start("train", str(self.recipe), f"name={name}", *changes)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._said_before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "controller.cli", *arguments],
                cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def resume(self) -> None:
        self.process = self._start("train", "--resume", str(self.folder))

    def metrics(self) -> list[dict[str, Any]]:
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def is_up(self) -> bool:
        """Whether every part of this life of the run has started."""
        return b"everything is up" in self.log.read_bytes()[self._said_before :]

    def wait_until_up(self, timeout_s: float = 1200.0) -> None:
        self._wait(self.is_up, "start", timeout_s)

    def wait_for_step(self, step: int, timeout_s: float = 1200.0) -> None:
        self._wait(lambda: step <= 0 or any(row["step"] >= step for row in self.metrics()), f"step {step}", timeout_s)

    def wait_for_text(self, text: str, timeout_s: float = 1200.0) -> None:
        self._wait(lambda: text in self.output(), f"{text!r}", timeout_s)

    def _wait(self, happened: Any, what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert self.process.poll() is None, f"the run ended with {self.process.returncode}:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {what} within {timeout_s} s:\n{self.output()}"
            time.sleep(0.2)

    def finish(self, timeout_s: float = 1200.0) -> int:
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def part(self, title: str, timeout_s: float = 0.0) -> psutil.Process:
        """The process of an actor (`ray::EnvActor`) or server of this run, by its title."""
        deadline = time.monotonic() + timeout_s
        while True:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                if any(title in word for word in _words(process)):
                    return process
            assert time.monotonic() < deadline, f"no process {title!r} in the run"
            time.sleep(0.2)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> None:
        """Whatever state it is in: nothing of it is left."""
        if self.process.poll() is None:
            family = self.family()
            self.process.kill()
            self.process.wait(30)
            for process in family:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def gone(processes: list[psutil.Process], timeout_s: float = 30.0) -> bool:
    """Whether all of them end in time. A zombie has ended: it only waits for init."""
    deadline = time.monotonic() + timeout_s
    while left := [process for process in processes if _lives(process)]:
        if time.monotonic() > deadline:
            print("still there:", left)
            return False
        time.sleep(0.1)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
