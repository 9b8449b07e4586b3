"""Where a fine-tuning stands, on the disk: what an interrupted one goes on from.

Owns: `Place`, and the folder of snapshots: one whole, one in the making. Called by `learner.finetune`, on every rank.
Must not know: batches, losses, who interrupts.

With a snapshot the order of the demonstrations needs no state of its own: it follows from the seed, and `Place.step`
says how much of it is behind.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import torch

from envs.disk_sync import sync
from envs.records import Bool, Int32
from learner.engine import of_all_ranks
from learner.snapshot import SnapshotError, load_snapshot, save_snapshot

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine

PLACE = "place.json"
HELD_TIMEOUT_S = 60.0
"""Longest wait for a rank of an earlier call; shorter than the other ranks' patience with rank 0."""
_NAME = re.compile(r"step-\d{8}")


@dataclass(frozen=True, slots=True)
class Place:
    """Between two optimizer steps. `demonstrations`: their checksum; `tokens` and the skipped ones are counts so far,
    `loss` that of the last step in nats a token, `progress` from 0 to 1, `trained_s` seconds in all lives together."""

    demonstrations: int
    step: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    loss: float = math.nan
    progress: float = 0.0
    trained_s: float = 0.0


class PlaceError(RuntimeError):
    """A snapshot that the fine-tuning cannot go on from; the message names the folder, the cause and the remedy."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """No other process writes snapshots to `folder` meanwhile. A rank whose caller was killed ends with the step that
    it is doing, and is waited for; PlaceError when it does not within HELD_TIMEOUT_S."""
    rank = torch.distributed.get_rank()
    descriptor = -1
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + HELD_TIMEOUT_S
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise PlaceError(f"{folder}: another process trains with it; wait for it or end it")
            time.sleep(0.2)
    of_all_ranks(None)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def checksum(demonstrations: Sequence[tuple[Int32, Int32]], masks: Sequence[Bool] | None) -> int:
    """Of every token and mask, in order: training goes on only on what it began with."""
    total = crc32(np.array([len(part) for pair in demonstrations for part in pair], dtype=np.int64).tobytes())
    for pair in demonstrations:
        for ids in pair:
            total = crc32(np.asarray(ids, dtype=np.int32).tobytes(), total)
    for mask in masks or ():
        total = crc32(np.asarray(mask, dtype=np.bool_).tobytes(), total)
    return total


def save_place(engine: DeepSpeedEngine, folder: Path, place: Place) -> None:
    """Writes a snapshot, then its name, then removes the one before. A collective: all ranks see one folder."""
    fresh = folder / ".writing"
    save_snapshot(engine, fresh, {"step": place.step})
    if torch.distributed.get_rank() > 0:
        return  # its next collective waits for rank 0
    (fresh / PLACE).write_text(json.dumps(asdict(place)))
    for path in (*fresh.iterdir(), fresh):
        sync(path)
    before = _snapshots(folder)
    fresh.rename(folder / f"step-{place.step:08d}")
    sync(folder)
    for path in before:
        shutil.rmtree(path, ignore_errors=True)


def take_up_place(engine: DeepSpeedEngine, folder: Path, demonstrations: int, touch: Callable[[], None]) -> Place:
    """Restores weights, optimizer and random states of the newest snapshot; without one, the place of a beginning.

    `touch` does a backward pass with a gradient of zero.
    """
    known = _snapshots(folder)
    if not known:
        return Place(demonstrations)
    newest = known[-1]
    try:
        place = Place(**json.loads((newest / PLACE).read_text()))
        if place.demonstrations != demonstrations:
            raise PlaceError(
                f"{newest}: was trained on other demonstrations than those given now; remove {folder} to train from "
                "the beginning"
            )
        load_snapshot(engine, newest, touch)
    except (OSError, ValueError, TypeError, SnapshotError) as error:
        raise PlaceError(f"{newest}: {error}. Remove {folder} to train from the beginning") from error
    return place


def _snapshots(folder: Path) -> list[Path]:
    """Those that are whole, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))
