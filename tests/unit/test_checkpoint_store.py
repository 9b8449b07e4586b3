"""Checkpoints: whole or not there, whatever is killed, cut, changed or mixed up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller import checkpoint_manifest as module
from controller.checkpoint import (
    Checkpoint,
    CheckpointError,
    CheckpointState,
    CheckpointStore,
    OutstandingGroup,
)
from envs.codec import decode_turns, encode_turns
from tests.unit.test_codec_round_trip import a_group, assert_same
from tests.unit.test_run_folder_layout import small_disk


def state(step: int, **fields: object) -> CheckpointState:
    return CheckpointState(step=step, policy_version=step, next_group_index=4 * step, **fields)  # type: ignore[arg-type]


def write(store: CheckpointStore, step: int, content: bytes = b"weights", **fields: object) -> Checkpoint:
    folder = store.begin(step)
    (folder / "learner" / "deep").mkdir(parents=True)
    (folder / "learner" / "deep" / "rank0.pt").write_bytes(content * step)
    (folder / "empty").write_bytes(b"")
    return store.commit(step, state(step, **fields))


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep_last=2)


def test_no_checkpoint_yet(store: CheckpointStore) -> None:
    assert store.latest() is None and store.steps() == []


def test_everything_comes_back(store: CheckpointStore) -> None:
    turns = a_group().trajectories[0].turns
    fields: dict[str, Any] = {
        "outstanding": (
            OutstandingGroup(id="r-g000002", index=2, task_id="t", live={"r-g000002/0": encode_turns(turns)}),
        ),
        "settings": {"seed": 3, "learner.lr": 1e-3, "env.name": "alfworld"},
        "model_fingerprint": "m",
    }
    committed = write(store, 3, **fields)
    found = store.latest("m")
    assert found is not None and found == committed and found.step == 3
    assert found.state == state(3, **fields)
    assert_same(decode_turns(found.state.outstanding[0].live["r-g000002/0"]), turns)
    assert (found.path / "learner/deep/rank0.pt").read_bytes() == b"weights" * 3


def test_keep_last(store: CheckpointStore) -> None:
    for step in (2, 4, 6, 8):
        write(store, step)
    assert store.steps() == [6, 8]
    assert sorted(path.name for path in store.folder.iterdir()) == ["step-00000006", "step-00000008"]


def test_what_was_begun_and_not_committed_is_nothing_and_goes_with_the_next(store: CheckpointStore) -> None:
    (store.begin(1) / "x").write_text("x")
    assert store.latest() is None and store.steps() == []
    write(store, 2)
    assert [path.name for path in store.folder.iterdir()] == ["step-00000002"]


@pytest.mark.parametrize(
    "damage", ["cut", "changed", "missing", "no manifest", "manifest cut", "manifest of nothing", "state"]
)
def test_damaged_checkpoint_is_passed_over_loudly(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    write(store, 5)
    path = write(store, 10).path
    file = path / "learner/deep/rank0.pt"
    if damage == "cut":
        os.truncate(file, 20)
    elif damage == "changed":
        file.write_bytes(b"wEights" * 10)
    elif damage == "missing":
        file.unlink()
    elif damage == "no manifest":
        (path / "manifest.json").unlink()
    elif damage == "manifest cut":
        os.truncate(path / "manifest.json", 50)
    elif damage == "manifest of nothing":
        (path / "manifest.json").write_text("{}")
    else:
        (path / "controller.msgpack").write_bytes(b"\xc1")
    found = store.latest()
    assert found is not None and found.step == 5
    assert "damaged checkpoint passed over, going back to step 5" in caplog.text and "step-00000010" in caplog.text
    write(store, 10)  # done again: it takes the place of the damaged one
    again = store.latest()
    assert again is not None and again.step == 10


def test_no_checkpoint_is_whole(store: CheckpointStore) -> None:
    for step in (1, 2):
        os.truncate(write(store, step).path / "learner/deep/rank0.pt", 1)
    with pytest.raises(
        CheckpointError, match=r"no checkpoint is whole.*rank0\.pt has 1 bytes, 14 were written.*begin a new run"
    ):
        store.latest()


def test_course_that_was_given_up_does_not_come_back(store: CheckpointStore) -> None:
    """After going back from 15 to 10, a commit of 12 is the newest, not 15."""
    write(store, 10)
    write(store, 15)
    write(store, 12)
    assert store.steps() == [10, 12]


def test_another_model_or_format_is_no_damage(store: CheckpointStore) -> None:
    write(store, 1, model_fingerprint="a")
    path = write(store, 2, model_fingerprint="b").path
    with pytest.raises(
        CheckpointError, match=r"step-00000002: is of another model \(b, this run has a\); set model to"
    ):
        store.latest("a")
    tree = msgspec.json.decode((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_bytes(msgspec.json.encode(tree | {"format": 2}))
    with pytest.raises(
        CheckpointError, match=r"step-00000002: has format 2, this t2po reads 1; resume with the t2po that"
    ):
        store.latest()


def test_checkpoint_under_a_wrong_name(store: CheckpointStore) -> None:
    write(store, 1)
    path = write(store, 2).path
    shutil.copytree(path, store.folder / "step-00000009")
    (store.folder / "step-notes").mkdir()
    found = store.latest()
    assert found is not None and found.step == 2


def test_misuse(store: CheckpointStore, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"was never begun; call begin\(3\)"):
        store.commit(3, state(3))
    store.begin(3)
    with pytest.raises(CheckpointError, match="the state is of step 4"):
        store.commit(3, state(4))
    with pytest.raises(CheckpointError, match="at least 1 must be kept"):
        CheckpointStore(tmp_path, keep_last=0)


WRITER = """
import sys, time
from pathlib import Path
from typing import Any
from controller.checkpoint import CheckpointState, CheckpointStore
store = CheckpointStore(Path(sys.argv[1]), keep_last=2)
step = int(sys.argv[2])
while True:
    step += 1
    folder = store.begin(step)
    for name in range(20):
        (folder / f"{name}.pt").write_bytes(bytes([step % 256]) * 20_000)
    store.commit(step, CheckpointState(step=step, policy_version=step, next_group_index=step))
    print(step, flush=True)
"""


def test_kill_9_at_any_moment(store: CheckpointStore) -> None:
    """What was reported as committed is there and whole after each of ten kills; leftovers go with the next begin."""
    step = 0
    for round_number in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, store.folder, str(step)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        reported = int(writer.stdout.readline())
        time.sleep(0.013 * round_number)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait(timeout=10)
        writer.stdout.close()
        reported = int(rest[-1]) if rest else reported
        found = store.latest()
        assert found is not None and reported <= found.step <= reported + 1
        assert (found.path / "19.pt").read_bytes() == bytes([found.step % 256]) * 20_000
        step = found.step
    shutil.rmtree(store.begin(step + 1))
    assert all(not path.name.startswith(".") for path in store.folder.iterdir())


@pytest.mark.parametrize("call", ["rename", "fsync", "write_whole"])
def test_stopped_at_any_call(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """An error at every single step of a commit: the checkpoint before it is what `latest` finds."""
    write(store, 1)
    number = 0
    while True:
        number += 1
        countdown = iter(range(number - 1))

        def fail(*arguments: object, real: object, countdown: object = countdown) -> object:
            if next(countdown, None) is None:  # type: ignore[call-overload]
                raise OSError(5, "Input/output error")
            return real(*arguments)  # type: ignore[operator]

        with monkeypatch.context() as patch:
            if call == "rename":
                patch.setattr(Path, "rename", lambda a, b, real=Path.rename: fail(a, b, real=real))
            elif call == "fsync":
                patch.setattr(os, "fsync", partial(fail, real=os.fsync))
            else:
                patch.setattr(module, "write_whole", partial(fail, real=module.write_whole))
            try:
                write(store, 2)
            except CheckpointError as error:
                assert "Input/output error; the disk fails" in str(error)
                found = store.latest()
                assert found is not None and found.step in (1, 2)
                continue
        break
    found = store.latest()
    assert found is not None and found.step == 2 and number >= 2


def test_full_and_read_only_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=256k") as disk:
        store = CheckpointStore(disk / "checkpoints", keep_last=1)
        write(store, 1)
        with pytest.raises(OSError):
            (store.begin(2) / "big").write_bytes(b"x" * 2**20)
        assert store.latest() is not None
        with pytest.raises(CheckpointError, match=r"cannot commit checkpoint 3: No space left on device; free space"):
            write(store, 3, settings={"big": "x" * 2**20})
        found = store.latest()
        assert found is not None and found.step == 1
        write(store, 4)  # the leftover of 3 is gone, so there is space
        assert store.steps() == [4]
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(CheckpointError, match="cannot begin checkpoint 5: Read-only file system"):
            store.begin(5)
        assert store.latest() is not None


def test_old_checkpoint_cannot_be_deleted(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(store, 1)
    write(store, 2)

    def fail(_: object, step: int) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(CheckpointStore, "_remove", fail)
    write(store, 3)
    assert store.steps() == [1, 2, 3] and "cannot remove an old checkpoint: Operation not permitted" in caplog.text
