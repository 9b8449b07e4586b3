"""Checkpoints of a run: one folder a step, committed in one atomic step, checked before it is used.

Owns: the folders below `checkpoints/`, their manifest with checksums, the controller's own state, pruning. Called by
the training loop, export and evaluation. Must not know: what the learner writes, or the queue.

A commit is the rename of `.writing-…` to `step-…`, after every file and the manifest are on the disk. Until then the
checkpoint does not exist, from then on it is whole. What a kill left unfinished is removed by the next writer.

The order that gives exactly-once: commit, then acknowledge the queue's entries, then write `committed` to the audit.
A kill between commit and acknowledgement leaves entries of trained groups in the queue: those of the steps up to the
checkpoint's, as each step trains the groups that follow those of the step before. Steps after the newest checkpoint
never happened: a commit removes checkpoints of later steps, which belong to a course of the run that was given up.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from controller.durable_files import RunFolderError, encode_json, sync_folder, write_whole

logger = logging.getLogger(__name__)

FORMAT = 1
MANIFEST, STATE = "manifest.json", "controller.msgpack"
_NAME = re.compile(r"step-(\d{8})")
_CHUNK = 1 << 20


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or used; names the folder, the cause and the remedy."""


class _DamagedError(Exception):
    """A checkpoint that is not what was written; the one before it is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutstandingGroup:
    """A group that was issued and is in no step yet: where it stood, so that a resume goes on with it.

    `live` maps the ids of its trajectories to `envs.codec.encode_turns` of their accepted turns.
    """

    id: str
    index: int
    task_id: str
    live: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointState:
    """What the controller needs to go on, beside the learner's own files.

    `next_group_index` is the panel cursor: groups below it are trained, in the queue, or `outstanding`.
    `settings` is the configuration by dotted key, for a resume to compare its own with. `thresholds`: step, ε, η of
    `controller.threshold_tracking`.
    """

    step: int
    policy_version: int
    next_group_index: int
    outstanding: tuple[OutstandingGroup, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    model_fingerprint: str = ""
    thresholds: tuple[tuple[int, float, float], ...] = ()


class _FileMark(msgspec.Struct, frozen=True):
    bytes: int
    blake2b: str


class _Manifest(msgspec.Struct, frozen=True):
    format: int
    step: int
    policy_version: int
    model_fingerprint: str
    files: dict[str, _FileMark]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint whose files were found to be what was written."""

    path: Path
    state: CheckpointState

    @property
    def step(self) -> int:
        return self.state.step


class CheckpointStore:
    """The checkpoints of one run. One writer (the run folder's lock sees to that), any number of readers."""

    def __init__(self, folder: Path, keep_last: int) -> None:
        if keep_last < 1:
            raise CheckpointError(f"checkpoint.keep_last = {keep_last}: at least 1 must be kept, or nothing can resume")
        self.folder = folder
        self._keep_last = keep_last

    def begin(self, step: int) -> Path:
        """The folder that the parts of checkpoint `step` are written into. What a kill left behind is removed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".*-step-*"):
                shutil.rmtree(leftover)
            path = self._unfinished(step)
            path.mkdir()
        except OSError as error:
            raise CheckpointError(str(RunFolderError.of(self.folder, error, f"begin checkpoint {step}"))) from error
        return path

    def commit(self, step: int, state: CheckpointState) -> Checkpoint:
        """Makes what was written since `begin(step)` the newest checkpoint, and prunes."""
        if state.step != step:
            raise CheckpointError(f"checkpoint {step}: the state is of step {state.step}; give the state of this step")
        unfinished, final = self._unfinished(step), self.folder / _name(step)
        if not unfinished.is_dir():
            raise CheckpointError(f"{unfinished}: was never begun; call begin({step}) before commit({step})")
        try:
            (unfinished / STATE).write_bytes(msgspec.msgpack.encode(state))
            files = {str(path.relative_to(unfinished)): _mark_on_disk(path) for path in _files(unfinished)}
            manifest = _Manifest(
                format=FORMAT,
                step=step,
                policy_version=state.policy_version,
                model_fingerprint=state.model_fingerprint,
                files=files,
            )
            write_whole(unfinished / MANIFEST, msgspec.json.format(encode_json(manifest), indent=1) + b"\n")
            for folder in [unfinished, *(path for path in unfinished.rglob("*") if path.is_dir())]:
                sync_folder(folder)
            for later in self.steps():
                if later >= step:  # of a course that was given up, or damaged: else this step would not be done again
                    self._remove(later)
            unfinished.rename(final)
            sync_folder(self.folder)
        except OSError as error:
            raise CheckpointError(str(RunFolderError.of(unfinished, error, f"commit checkpoint {step}"))) from error
        except RunFolderError as error:
            raise CheckpointError(str(error)) from error
        self._prune()
        return Checkpoint(final, state)

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, oldest first. Nothing is checked yet."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(str(RunFolderError.of(self.folder, error, "list checkpoints"))) from error
        return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))

    def latest(self, model_fingerprint: str = "") -> Checkpoint | None:
        """The newest checkpoint that is whole; None when there is none at all. Damaged ones are passed over, loudly.

        Another format or another model is no damage: going back further would not help, so it is an error.
        """
        causes = []
        for step in reversed(self.steps()):
            try:
                checkpoint = self.load(step, model_fingerprint)
            except _DamagedError as damage:
                causes.append(str(damage))
                continue
            for cause in causes:
                logger.warning("damaged checkpoint passed over, going back to step %d: %s", step, cause)
            return checkpoint
        if causes:
            raise CheckpointError(
                f"{self.folder}: no checkpoint is whole, the run cannot go on: {'; '.join(causes)}; restore one from a "
                "backup, or begin a new run"
            )
        return None

    def load(self, step: int, model_fingerprint: str = "") -> Checkpoint:
        """Checkpoint `step`, every file compared with its checksum."""
        path = self.folder / _name(step)
        try:
            raw = (path / MANIFEST).read_bytes()
            found = msgspec.json.decode(raw)
            version = found.get("format") if isinstance(found, dict) else None
            if isinstance(version, int) and version != FORMAT:
                raise CheckpointError(
                    f"{path}: has format {version}, this t2po reads {FORMAT}; resume with the t2po that wrote it"
                )
            manifest = msgspec.json.decode(raw, type=_Manifest)
            if model_fingerprint and manifest.model_fingerprint != model_fingerprint:
                raise CheckpointError(
                    f"{path}: is of another model ({manifest.model_fingerprint or 'unnamed'}, this run has "
                    f"{model_fingerprint}); set model to the one that the run began with, or begin a new run"
                )
            for name, mark in manifest.files.items():
                _compare(path / name, mark)
            state = msgspec.msgpack.decode((path / STATE).read_bytes(), type=CheckpointState)
        except FileNotFoundError as error:
            raise _DamagedError(f"{error.filename} is missing") from error
        except msgspec.MsgspecError as error:
            raise _DamagedError(f"{path}: manifest or state cannot be read ({error})") from error
        except OSError as error:
            raise CheckpointError(str(RunFolderError.of(path, error, "read the checkpoint"))) from error
        if state.step != step or manifest.step != step:
            raise _DamagedError(f"{path}: holds step {state.step}")
        return Checkpoint(path, state)

    def _prune(self) -> None:
        """A commit is not undone because an old checkpoint cannot be deleted."""
        for step in self.steps()[: -self._keep_last]:
            try:
                self._remove(step)
            except OSError as error:
                logger.warning("%s", RunFolderError.of(self.folder / _name(step), error, "remove an old checkpoint"))

    def _remove(self, step: int) -> None:
        """Renamed first: a kill in the middle leaves a leftover, not half a checkpoint."""
        doomed = self.folder / f".removed-{_name(step)}"
        shutil.rmtree(doomed, ignore_errors=True)
        (self.folder / _name(step)).rename(doomed)
        shutil.rmtree(doomed)

    def _unfinished(self, step: int) -> Path:
        return self.folder / f".writing-{_name(step)}"


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _mark_on_disk(path: Path) -> _FileMark:
    """Size and checksum of a file, which is on the disk afterwards."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return _FileMark(bytes=path.stat().st_size, blake2b=_checksum(path))


def _compare(path: Path, mark: _FileMark) -> None:
    size = path.stat().st_size
    if size != mark.bytes:
        raise _DamagedError(f"{path} has {size} bytes, {mark.bytes} were written")
    if _checksum(path) != mark.blake2b:
        raise _DamagedError(f"{path}: checksum differs, its content was changed")


def _checksum(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
