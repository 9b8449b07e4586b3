"""The run folder: one writer, whole files, and errors that name path, cause and remedy."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.config import ConfigError, RunConfig
from controller.run_folder import RunFolder, RunFolderError
from envs.panel import Panel, make_panel


def config_in(path: Path, name: str = "first") -> RunConfig:
    return RunConfig(runs_dir=str(path), name=name)


def test_create_then_open(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with RunFolder.create(config, "alfworld") as folder:
        assert folder.path == tmp_path / "first"
        assert folder.read_json("versions.json")["python"] == ".".join(map(str, sys.version_info[:3]))
        for part in (folder.checkpoints, folder.trajectories, folder.evaluations, folder.queue):
            assert part.is_dir()
    with RunFolder.open(tmp_path / "first") as folder:
        assert folder.config() == config
        assert folder.id.startswith("first-") and folder.id == folder.id
        identity = folder.id
    (tmp_path / "first").rename(tmp_path / "moved")
    with RunFolder.read(tmp_path / "moved") as folder:
        assert folder.id == identity
        (folder.path / "run.json").write_text("[]")
        with pytest.raises(RunFolderError, match=r"run\.json: holds no id"):
            _ = folder.id
    (tmp_path / "moved").rename(tmp_path / "first")
    with pytest.raises(RunFolderError, match=r"first: holds a run already; resume it \(t2po train --resume"):
        RunFolder.create(config, "alfworld")


def test_name_from_recipe_seed_and_time(tmp_path: Path) -> None:
    with RunFolder.create(RunConfig(runs_dir=str(tmp_path), seed=7), "alfworld") as folder:
        assert folder.path.name.startswith(f"alfworld-s7-{time.strftime('%Y')}")


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", "/tmp"])
def test_names_that_are_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunFolderError, match="must be a plain folder name"):
        RunFolder.create(config_in(tmp_path, name), "alfworld")


def test_open_something_else(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such run folder"):
        RunFolder.open(tmp_path / "nothing")
    with pytest.raises(RunFolderError, match=r"not a run folder: it has no config\.toml"):
        RunFolder.read(tmp_path)


def test_config_changed_by_hand(tmp_path: Path) -> None:
    RunFolder.create(config_in(tmp_path), "alfworld").close()
    path = tmp_path / "first" / "config.toml"
    path.write_text("steps = [")
    with RunFolder.read(tmp_path / "first") as folder, pytest.raises(RunFolderError, match=r"config\.toml: not TOML"):
        folder.config()
    path.write_text("stepz = 3")
    with RunFolder.read(tmp_path / "first") as folder, pytest.raises(ConfigError, match="stepz"):
        folder.config()


def test_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    with RunFolder.create(config_in(tmp_path), "alfworld") as folder:
        script = (
            "import sys; from pathlib import Path; from controller.run_folder import RunFolder\n"
            "RunFolder.open(Path(sys.argv[1]))"
        )
        other = subprocess.run([sys.executable, "-c", script, folder.path], capture_output=True, text=True, check=False)
        assert f"RunFolderError: {folder.path}: process {os.getpid()} on " in other.stderr
        assert "writes to this run; wait for it or end it" in other.stderr
        with RunFolder.read(folder.path) as reader:
            assert reader.config().name == "first"
            with pytest.raises(RunFolderError, match="opened for reading"):
                reader.write_json("x.json", {})
    RunFolder.open(folder.path).close()


def test_lock_goes_with_the_killed_process_and_with_the_object(tmp_path: Path) -> None:
    RunFolder.create(config_in(tmp_path), "alfworld")  # not kept: the lock must not outlive it
    path = tmp_path / "first"
    script = (
        "import sys, time; from pathlib import Path; from controller.run_folder import RunFolder\n"
        "folder = RunFolder.open(Path(sys.argv[1]))\n"
        "import subprocess; subprocess.Popen(['sleep', '30']); print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert other.stdout is not None and other.stdout.readline() == "locked\n"
    with pytest.raises(RunFolderError, match=f"process {other.pid} on "):
        RunFolder.open(path)
    other.kill()
    other.wait(timeout=10)
    try:
        RunFolder.open(path).close()  # its child lives on and has no part in the lock
    finally:
        os.killpg(other.pid, 9)
        other.stdout.close()


def test_panels_are_compared_with_those_of_the_beginning(tmp_path: Path) -> None:
    def panel(name: str, digest: str) -> Panel:
        return make_panel("alfworld", name, [("t1", "look", digest)])

    with RunFolder.create(config_in(tmp_path), "alfworld") as folder:
        folder.check_panels(panel("train", "a"), panel("unseen", "b"))
        folder.check_panels(panel("train", "a"), panel("unseen", "b"))
        with pytest.raises(
            RunFolderError, match=r"panels\.json: panel 'unseen' had hash .* and 1 tasks when the run began"
        ):
            folder.check_panels(panel("train", "a"), panel("unseen", "c"))


def test_write_json_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.create(config_in(tmp_path), "alfworld") as folder:
        folder.write_json("x.json", {"value": float("nan"), "path": tmp_path})
        assert folder.read_json("x.json") == {"value": None, "path": str(tmp_path)}

        def fail(_: int) -> None:
            raise OSError(28, "No space left on device")

        with (
            monkeypatch.context() as patch,
            pytest.raises(RunFolderError, match=r"x\.json: cannot write: No space left"),
        ):
            patch.setattr(os, "fsync", fail)
            folder.write_json("x.json", {"value": 2})
        assert folder.read_json("x.json")["value"] is None
        assert not [path for path in folder.path.iterdir() if path.name.endswith(".new")]
        (folder.path / "x.json").write_text("{")
        with pytest.raises(RunFolderError, match=r"x\.json: not JSON"):
            folder.read_json("x.json")


@contextlib.contextmanager
def small_disk(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_read_only_and_full_disk(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "ro", "size=1m,ro") as disk,
        pytest.raises(
            RunFolderError, match=r"ro/first: cannot create the run folder: Read-only file system; this disk is"
        ),
    ):
        RunFolder.create(config_in(disk), "alfworld")
    with small_disk(tmp_path / "full", "size=1m") as disk:
        with pytest.raises(
            RunFolderError, match=r"cannot begin a run: 1 MiB are free, 100 are needed; free space on this disk"
        ):
            RunFolder.create(config_in(disk), "alfworld")
        with RunFolder.create(config_in(disk), "alfworld", min_free_bytes=0) as folder:
            with pytest.raises(RunFolderError, match=r"big\.json: cannot write: No space left on device; free space"):
                folder.write_json("big.json", "x" * 2**21)
            folder.write_json("small.json", "x")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunFolderError, match="a part of the path is a file|File exists"):
        RunFolder.create(config_in(tmp_path / "runs"), "alfworld")
