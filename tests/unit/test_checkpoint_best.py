"""The best checkpoint: rated, kept, chosen, exported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from controller.checkpoint import POLICY_FOLDER, CheckpointError, CheckpointState, CheckpointStore
from controller.cli import main
from controller.config import validate
from controller.export_policy import export_policy
from controller.run_folder import RunFolder, RunFolderError
from tests.tiny_model import write_tiny_model


def commit(store: CheckpointStore, step: int, policy: Path | None = None) -> None:
    folder = store.begin(step)
    if policy is None:
        (folder / POLICY_FOLDER).mkdir()
        (folder / POLICY_FOLDER / "model.safetensors").write_text(f"step {step}")
    else:
        shutil.copytree(policy, folder / POLICY_FOLDER)
    store.commit(step, CheckpointState(step=step, policy_version=step, next_group_index=step))


def play(store: CheckpointStore, *successes: float) -> None:
    for step, success in enumerate(successes, start=1):
        commit(store, step)
        store.rate(step, success)


def test_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=True)
    play(store, 0.1, 0.5, 0.5, 0.2, 0.3)
    assert store.steps() == [2, 4, 5] and store.best() == 2, "of equal ones the earliest"
    commit(store, 6)
    store.rate(6, 0.9)
    assert store.steps() == [5, 6] and store.best() == 6, "the best of before is old now"


def test_best_goes_like_any_other_unless_it_is_to_be_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=1)
    play(store, 0.5, 0.1, 0.2)
    assert store.steps() == [3] and store.best() == 3


def test_rating_does_not_outlive_the_course_it_was_measured_in(tmp_path: Path) -> None:
    """The run went back before step 2 and does it again: what was measured of the old step 2 says nothing."""
    store = CheckpointStore(tmp_path, keep_last=5, keep_best=True)
    play(store, 0.4, 0.9, 0.3)
    commit(store, 2)
    assert store.steps() == [1, 2] and store.best() == 1


def test_rating_of_a_step_without_a_checkpoint_is_not_noted(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=True)
    store.rate(0, 1.0)
    commit(store, 1)
    assert store.best() is None


def test_damaged_ratings_are_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=True)
    play(store, 0.4)
    (tmp_path / "ratings.json").write_text("{half")
    commit(store, 2)
    assert store.best() is None and "which checkpoint is the best is not known" in caplog.text
    store.rate(2, 0.1)
    assert store.best() == 2


def test_choose(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3, keep_best=True)
    with pytest.raises(CheckpointError, match="no checkpoint; there is none yet"):
        store.choose("last")
    play(store, 0.4, 0.9)
    commit(store, 3)
    assert [store.choose(which).step for which in ("last", "best", "1")] == [3, 2, 1]
    for which in ("4", "newest", "-1"):
        with pytest.raises(CheckpointError, match=f"no checkpoint '{which}'; there are 1, 2, 3: name one, or last"):
            store.choose(which)
    (tmp_path / "step-00000002" / POLICY_FOLDER / "model.safetensors").write_text("cut")
    with pytest.raises(CheckpointError, match="damaged: .*model.safetensors has 3 bytes, 6 were written; .*name anoth"):
        store.choose("best")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with two checkpoints of a real model, the first one the better."""
    config = validate({"runs_dir": str(tmp_path), "name": "run"}, source="test")
    with RunFolder.create(config, "test", min_free_bytes=0) as folder:
        store = CheckpointStore(folder.checkpoints, keep_last=2, keep_best=True)
        for step, success in ((1, 0.9), (2, 0.3)):
            commit(store, step, write_tiny_model(tmp_path / f"policy-{step}", seed=step))
            store.rate(step, success)
    return folder


def test_export_is_a_folder_that_transformers_loads(run: RunFolder, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = {which: export_policy(run.path, which, tmp_path / f"to-{which}") for which in ("last", "best")}
    for which, step in (("last", 2), ("best", 1)):
        exported = AutoModelForCausalLM.from_pretrained(folders[which], local_files_only=True)
        original = AutoModelForCausalLM.from_pretrained(tmp_path / f"policy-{step}", local_files_only=True)
        for mine, theirs in zip(exported.parameters(), original.parameters(), strict=True):
            assert torch.equal(mine, theirs)
        assert AutoTokenizer.from_pretrained(folders[which], local_files_only=True).chat_template
    assert export_policy(run.path) == run.path / "exported" / "step-00000002"


def test_export_command(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine"
    assert main(["export", str(run.path), "--to", str(target), "--checkpoint", "best"]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert main(["export", str(run.path), "--to", str(target)]) == 2
    assert "mine: is there already and is not empty; name another folder with --to" in capsys.readouterr().err
    assert main(["export", str(run.path), "--checkpoint", "7"]) == 2
    assert "no checkpoint '7'; there are 1, 2: name one" in capsys.readouterr().err


def test_export_that_breaks_leaves_nothing(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        Path(target).mkdir()
        (Path(target) / "half").write_text("")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(RunFolderError, match="cannot write the exported policy: No space left on device; free space"):
        export_policy(run.path, "last", tmp_path / "full" / "x")
    assert list((tmp_path / "full").iterdir()) == []
