"""Which run is meant by a name, and which policy is a run's newest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.checkpoint import POLICY_FOLDER, CheckpointState, CheckpointStore
from controller.config import RunConfig
from controller.policy_folder import PolicyError, RunPolicy, find_policy, find_run, newest_policy
from controller.run_folder import RunFolder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def commit(run: RunFolder, step: int) -> Path:
    store = CheckpointStore(run.checkpoints, keep_last=2)
    policy = store.begin(step) / POLICY_FOLDER
    policy.mkdir()
    (policy / "config.json").write_text("{}")
    state = CheckpointState(step=step, policy_version=step, next_group_index=0)
    return store.commit(step, state).path / POLICY_FOLDER


def test_a_run_is_found_by_path_and_by_name() -> None:
    run = RunFolder.create(RunConfig(name="first"), "alfworld")
    assert find_run("first").samefile(run.path) and find_run(str(run.path)) == run.path
    Path("first").mkdir()  # a folder that is here comes before one below runs/
    assert find_run("first") == Path("first")


def test_a_name_of_no_run_is_answered_with_the_newest() -> None:
    with pytest.raises(PolicyError, match="^'x': no such folder, here or below runs/$"):
        find_run("x")
    for age, name in enumerate(("d", "c", "b", "a", ".policies")):
        (Path("runs") / name).mkdir(parents=True)
        os.utime(Path("runs") / name, (age, age))
    with pytest.raises(PolicyError, match="'x': .*; newest: c, b, a$"):
        find_run("x")


def test_the_newest_policy_is_that_of_the_newest_whole_checkpoint() -> None:
    run = RunFolder.create(RunConfig(name="first", model="/models/mine"), "alfworld")
    assert newest_policy(run) == RunPolicy(Path("/models/mine"), 0)  # a policy of the user's is used where it lies
    run.policy.mkdir()
    assert newest_policy(run) == RunPolicy(run.policy, 0)
    first = commit(run, 1)
    assert newest_policy(run) == RunPolicy(first, 1)
    second = commit(run, 3)
    assert newest_policy(run) == RunPolicy(second, 3)
    (second / "config.json").write_text("{ }")  # damaged: the one before it counts
    assert newest_policy(run) == RunPolicy(first, 1)


def test_a_model_is_a_folder_or_a_run() -> None:
    run = RunFolder.create(RunConfig(name="first"), "alfworld")
    newest = commit(run, 2)
    assert find_policy("first") == newest
    assert find_policy(str(newest)) == newest
    with pytest.raises(PolicyError, match="no such folder"):
        find_policy("secnd")
