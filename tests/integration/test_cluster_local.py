"""A local cluster from up to down: a run submitted, scaled while it trains, a raylet killed, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from controller.audit import judge_file
from controller.detached_process import session_of
from controller.local_cluster.state import FOLDER_VARIABLE, STATE, Raylet, read_state
from controller.process_identity import ProcessId
from tests.integration.quick_policy import make_quick_policy
from tests.integration.run_process import RECIPE, ROOT

STEPS = 150
"""Enough for everything that happens meanwhile: a step takes about a second."""


class LocalCluster:
    """`t2po cluster …` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[ProcessId] = set()
        """Every process of the cluster that was ever seen."""

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, FOLDER_VARIABLE: str(self.folder), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "controller.cli", "cluster", *words],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        self.look()
        print(words, done.stdout, done.stderr)
        return done

    def do(self, *words: str) -> str:
        done = self.call(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, *words: str) -> str:
        done = self.call(*words)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def look(self) -> None:
        state = read_state(self.folder)
        leaders = [raylet.process for raylet in state.raylets] if state else []
        leaders += [state.run.process] if state and state.run else []
        self.seen.update(member for leader in leaders for member in session_of(leader))

    def raylet(self, name: str) -> Raylet:
        state = read_state(self.folder)
        assert state is not None
        return next(raylet for raylet in state.raylets if raylet.name == name)

    def actor_on(self, raylet: Raylet, title: str) -> list[ProcessId]:
        found = []
        for member in session_of(raylet.process):
            try:
                if any(title in word for word in psutil.Process(member.pid).cmdline()):
                    found.append(member)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    one = LocalCluster(tmp_path / "cluster")
    yield one
    if (one.folder / STATE).exists():
        one.call("down")
    for process in one.seen:  # of a `down` that failed, too
        if process.alive():
            os.kill(process.pid, signal.SIGKILL)


def both(option: str, words: Sequence[str]) -> list[str]:
    return [part for word in words for part in (option, word)]


def wait(happened: Callable[[], object], what: str, timeout_s: float, log: Path) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, f"no {what} within {timeout_s:g} s: {log.read_text(errors='replace')}"
        time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_local_cluster_goes_through_scaling_and_a_kill_and_leaves_nothing(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    make_quick_policy(tmp_path / "policy")
    recipe = tmp_path / "test.toml"
    recipe.write_text(RECIPE.format(runs=tmp_path, policy=tmp_path / "policy"), encoding="utf-8")

    assert "up: envs 2, inference 2, learners 1" in cluster.do("up", "envs=2", "inference=2", "learners=1")
    assert "is up already" in cluster.refused("up")
    assert "6 of 6 raylets live" in cluster.do("status")
    token = cluster.folder / "token"
    right = token.read_text(encoding="ascii")
    token.write_text("0" * 64, encoding="ascii")
    assert "is not this cluster's" in cluster.do("status")
    assert "is not this cluster's" in cluster.refused("check", "--recipe", "alfworld", "--set", "cluster.address=local")
    token.write_text(right, encoding="ascii")
    fits = ("rollout.num_env_actors=4", "inference.num_servers=5")
    beyond = cluster.refused("check", "--recipe", "alfworld", "--set", "cluster.address=local", *both("--set", fits))
    assert "5 inference actors: the cluster local has 4 free places for them" in beyond
    assert "env" not in beyond
    words = (f"steps={STEPS}", "collapse.enabled=false", "checkpoint.every_steps=10")
    cluster.do("submit", str(recipe), "name=run", *words)
    run = tmp_path / "run"
    log = run / "submitted.log"
    assert "goes on in this cluster" in cluster.refused("submit", str(recipe), "name=another")
    wait(lambda: b"everything is up" in log.read_bytes(), "start", 600, log)
    started = cluster.do("status")
    assert started.count("1 of 2 slots taken, InferenceActor") == 2, started
    assert started.count("1 of 2 slots taken, EnvActor") == 2, started

    assert "env-2 joined, env-3 joined, inference-1 left" in cluster.do("scale", "envs=4", "inference=1")
    assert "7 of 7 raylets live" in cluster.do("status")
    assert "inference-1 joined" in cluster.do("scale", "inference=2")

    assert cluster.do("status").count("1 of 2 slots taken, InferenceActor") == 2

    victim = cluster.raylet("inference-0")
    cluster.look()
    for process in cluster.actor_on(victim, "raylet/raylet"):
        os.kill(process.pid, signal.SIGKILL)
    orphans = session_of(victim.process)
    wait(lambda: f"dead: {victim.name}" in cluster.do("status"), "word of the killed raylet", 120, log)
    wait(lambda: not any(one.alive() for one in orphans), "end of the engine of the killed raylet", 60, log)
    wait(lambda: "is replaced" in (run / "run.log").read_text(encoding="utf-8"), "replacement", 300, log)

    wait(lambda: b"done; the policy is" in log.read_bytes(), "end of the run", 1200, log)
    wait(lambda: f"step {STEPS} of {STEPS}, is done" in cluster.do("status"), "end of the run's process", 120, log)
    verdict = judge_file(run / "audit.jsonl")
    assert not verdict.problems, verdict.problems
    assert f"cleared up after {victim.name}" in cluster.do("scale")
    assert "8 of 8 raylets live" in cluster.do("status")

    cluster.do("down")
    assert [one for one in cluster.seen if one.alive()] == []
    assert len(cluster.seen) > 40, "processes were not looked for"
    assert not cluster.folder.exists()
    assert "no cluster is recorded" in cluster.refused("down")
