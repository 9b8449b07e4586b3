"""Checkpoints of a run: one folder a step, committed in one atomic step, checked before it is used.

Owns: the folders below `checkpoints/`, the controller's own state, pruning. Called by the training loop, export and
evaluation. Must not know: what the learner writes, the queue, how a file is told from what was written.

A commit is the rename of `.writing-…` to `step-…`, after every file and the manifest are on the disk. Until then the
checkpoint does not exist, from then on it is whole. What a kill left unfinished is removed by the next writer.

The order that gives exactly-once: commit, then acknowledge the queue's entries, then write `committed` to the audit.
A kill between commit and acknowledgement leaves entries of trained groups in the queue: those of the steps up to the
checkpoint's, as each step trains the groups that follow those of the step before. Steps after the newest checkpoint
never happened: a commit removes checkpoints of later steps, which belong to a course of the run that was given up.
"""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from controller.checkpoint_manifest import CheckpointError, Damaged, check_manifest, write_manifest
from controller.durable_files import RunFolderError
from controller.ratings import Ratings
from envs.disk_sync import sync

__all__ = [
    "LEARNER_FOLDER",
    "POLICY_FOLDER",
    "Checkpoint",
    "CheckpointError",
    "CheckpointState",
    "CheckpointStore",
    "OutstandingGroup",
]

logger = logging.getLogger(__name__)

STATE = "controller.msgpack"
LEARNER_FOLDER, POLICY_FOLDER = "learner", "policy"
"""Inside a checkpoint: the learner's own files, and the policy as a plain Hugging Face folder."""
_NAME = re.compile(r"step-(\d{8})")


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

    `next_group_index` is the panel cursor: groups below it are trained, in the queue, or `outstanding`. Groups below
    `first_group_index` were taken by a step; -1: written when every step took groups_per_step of them.
    `settings` is the configuration by dotted key, for a resume to compare its own with. `thresholds`: step, ε, η of
    `controller.threshold_tracking`.
    """

    step: int
    policy_version: int
    next_group_index: int
    first_group_index: int = -1
    outstanding: tuple[OutstandingGroup, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    model_fingerprint: str = ""
    thresholds: tuple[tuple[int, float, float], ...] = ()


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

    def __init__(self, folder: Path, keep_last: int, *, keep_best: bool = False) -> None:
        """`keep_best`: the best of those that were rated is kept too, however old it is."""
        if keep_last < 1:
            raise CheckpointError(f"checkpoint.keep_last = {keep_last}: at least 1 must be kept, or nothing can resume")
        self.folder = folder
        self._keep_last = keep_last
        self._keep_best = keep_best
        self.last_healthy: int | None = None
        """The newest checkpoint of at most this step is kept too, however old it is: a rollback needs it."""
        self._ratings = Ratings(folder)

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
            write_manifest(unfinished, step, state.policy_version, state.model_fingerprint)
            for folder in [unfinished, *(path for path in unfinished.rglob("*") if path.is_dir())]:
                sync(folder)
            for later in self.steps():
                if later >= step:  # of a course that was given up, or damaged: else this step would not be done again
                    self._remove(later)
            self._ratings.forget_from(step)
            unfinished.rename(final)
            sync(self.folder)
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

    def rate(self, step: int, success: float) -> None:
        """The policy of `step` steps had this success in an evaluation. Nothing is noted without a checkpoint of it."""
        if step in self.steps():
            try:
                self._ratings.add(step, success)
            except RunFolderError as error:
                raise CheckpointError(str(error)) from error
            self._prune()

    def best(self) -> int | None:
        """The step whose policy did best, of those that are there; None when none was evaluated."""
        return self._ratings.best(self.steps())

    def latest(self, model_fingerprint: str = "") -> Checkpoint | None:
        """The newest checkpoint that is whole; None when there is none at all. Damaged ones are passed over, loudly.

        Another format or another model is no damage: going back further would not help, so it is an error.
        """
        causes = []
        for step in reversed(self.steps()):
            try:
                checkpoint = self.load(step, model_fingerprint)
            except Damaged as damage:
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
            manifest = check_manifest(path, model_fingerprint)
            state = msgspec.msgpack.decode((path / STATE).read_bytes(), type=CheckpointState)
        except FileNotFoundError as error:
            raise Damaged(f"{error.filename} is missing") from error
        except msgspec.MsgspecError as error:
            raise Damaged(f"{path}: manifest or state cannot be read ({error})") from error
        except OSError as error:
            raise CheckpointError(str(RunFolderError.of(path, error, "read the checkpoint"))) from error
        if state.step != step or manifest.step != step:
            raise Damaged(f"{path}: holds step {state.step}")
        return Checkpoint(path, state)

    def choose(self, which: str) -> Checkpoint:
        """ "last", "best" or the number of a step -> that checkpoint, checked; CheckpointError when there is none."""
        steps = self.steps()
        known = f"there are {', '.join(map(str, steps))}" if steps else "there is none yet"
        if which == "last":
            checkpoint = self.latest()
            if checkpoint is None:
                raise CheckpointError(f"{self.folder}: no checkpoint; {known}")
            return checkpoint
        step = self.best() if which == "best" else int(which) if which.isdecimal() else None
        if step is None and which == "best":
            raise CheckpointError(f"{self.folder}: no checkpoint was evaluated, so none is the best; {known}: name one")
        if step not in steps or step is None:
            raise CheckpointError(f"{self.folder}: no checkpoint {which!r}; {known}: name one, or last, or best")
        try:
            return self.load(step)
        except Damaged as damage:
            raise CheckpointError(f"damaged: {damage}; {known}: name another") from damage

    def go_back(self, step: int) -> int:
        """Removes what is later than `step`; the step of the newest checkpoint that is left, 0 without any."""
        try:
            for later in self.steps():
                if later > step:
                    self._remove(later)
            self._ratings.forget_from(step + 1)
        except OSError as error:
            raise CheckpointError(str(RunFolderError.of(self.folder, error, f"go back to step {step}"))) from error
        return max(self.steps(), default=0)

    def _prune(self) -> None:
        """A commit is not undone because an old checkpoint cannot be deleted."""
        kept = {self.best() if self._keep_best else None}
        if self.last_healthy is not None:
            kept.add(max((step for step in self.steps() if step <= self.last_healthy), default=None))
        for step in self.steps()[: -self._keep_last]:
            if step in kept:
                continue
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
