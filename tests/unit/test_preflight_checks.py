"""What is in the way of a cluster or a run: each failure with its remedy, all of them at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.config import validate
from controller.local_cluster.state import Size
from controller.preflight import (
    PreflightError,
    check_gpus,
    check_memory,
    check_object_store,
    check_placement,
    check_run,
    check_temp,
    check_versions,
    check_writable,
)


def test_this_environment_has_the_pinned_versions() -> None:
    assert list(check_versions()) == []


def test_another_version_is_named_with_the_one_that_is_needed(tmp_path: Path) -> None:
    (tmp_path / "cpu.txt").write_text("# pinned\nray==1.0.0\nredis==1.2.3\n", encoding="utf-8")
    found = list(check_versions(tmp_path))
    assert len(found) == 2
    assert found[0].startswith("ray is 2.")
    assert found[0].endswith("and 1.0.0 is needed on every node: make setup")


def test_memory_counts_raylets_and_actors() -> None:
    size = Size(envs=2, inference=2, learners=1)
    assert list(check_memory(size, free=10 * 10**9)) == []
    (problem,) = check_memory(size, free=9 * 10**9)
    assert "raylets take 2.4 GB and actors of the smallest policy 6.9 GB, and 9.0 GB are free" in problem


def test_full_disks_are_said_with_the_remedy(tmp_path: Path) -> None:
    (store,) = check_object_store(10**9, tmp_path)
    assert "lower --object-store-mb" in store
    assert list(check_object_store(1, tmp_path)) == []
    (temp,) = check_temp(min_free=2**62)
    assert "set TMPDIR" in temp
    (disk,) = check_writable(tmp_path, "runs_dir", min_free=2**62)
    assert disk.startswith(f"runs_dir = {tmp_path}: ")


def test_folder_for_runs_is_written_and_left_as_it_was(tmp_path: Path) -> None:
    assert list(check_writable(tmp_path / "not" / "yet", "runs_dir")) == []
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written_is_named() -> None:
    (problem,) = check_writable(Path("/proc/self/none"), "runs_dir")
    assert problem.startswith("runs_dir = /proc/self/none: ")
    assert "runs_dir" in problem.partition(";")[2]


def test_gpus_that_are_not_there_are_missed() -> None:
    config = validate({"learner": {"device": "gpu", "num_ranks": 512}}, source="test")
    (problem,) = check_gpus(config)
    assert "learner.num_ranks = 512" in problem
    assert 'set learner.device to "cpu"' in problem
    assert list(check_gpus(validate({}, source="test"))) == []


def test_cluster_that_is_not_there_has_no_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    (problem,) = check_placement(validate({"cluster": {"address": "127.0.0.1:1"}}, source="test"))
    assert "no token" in problem
    (tmp_path / "token").write_text("secret", encoding="ascii")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    (problem,) = check_placement(validate({"cluster": {"address": "127.0.0.1:1"}}, source="test"))
    assert "nobody answers there" in problem


def test_everything_is_said_at_once() -> None:
    tree = {"queue": {"url": "redis://127.0.0.1:1/0"}, "learner": {"device": "gpu", "num_ranks": 512}}
    config = validate({**tree, "runs_dir": "/proc/self/none"}, source="test")
    with pytest.raises(PreflightError) as found:
        check_run(config, os.environ)
    starts = [line.partition(" =")[0] for line in str(found.value).splitlines()]
    assert starts == ["learner.device", "queue.url", "runs_dir"]
