"""The learner's part of a checkpoint: DeepSpeed's files, random states, and a page that says what they are.

Owns: `save_snapshot`, `load_snapshot`, SnapshotError. Called by `learner.learner`. Must not know: where
checkpoints live, or how the controller makes a set of them atomic.

`snapshot.json` is written last, so a folder without it was cut short.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine

FORMAT = 1
TAG = "engine"
PAGE = "snapshot.json"


class SnapshotError(RuntimeError):
    """A learner checkpoint that cannot be taken up; the message names the folder, the cause and the remedy."""


def save_snapshot(engine: DeepSpeedEngine, folder: Path, counters: dict[str, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).unlink(missing_ok=True)
    rank = torch.distributed.get_rank()
    with contextlib.redirect_stdout(io.StringIO()):  # DeepSpeed prints notes that no log level turns off
        engine.save_checkpoint(str(folder), tag=TAG, client_state={"counters": counters})
    torch.save(_random_states(), folder / f"random_rank{rank}.pt")
    if rank == 0:
        sizes = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*.pt"))
            if path.is_file()
        }
        page = {
            "format": FORMAT,
            "shapes": _shapes(engine.module),
            "optimizer": _optimizer_layout(engine),
            "files": sizes,
        }
        (folder / PAGE).write_text(json.dumps(page, indent=1))


def load_snapshot(engine: DeepSpeedEngine, folder: Path) -> dict[str, int]:
    """Restore engine and random states; returns the counters that were saved."""
    page = _read_page(folder)
    _compare_shapes(folder, page["shapes"], _shapes(engine.module))
    if page["optimizer"] != _optimizer_layout(engine):
        raise SnapshotError(
            f"learner checkpoint {folder}: it was written with {page['optimizer']}, this run has "
            f"{_optimizer_layout(engine)}; set learner.dtype, learner.zero_stage and the number of ranks as they were"
        )
    for name, size in page["files"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else -1
        if found != size:
            raise SnapshotError(
                f"learner checkpoint {folder}: {name} has {found} bytes (-1: missing), {size} were written; "
                "the checkpoint is damaged: resume from an older one"
            )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            path, client_state = engine.load_checkpoint(str(folder), tag=TAG)
        random_states = torch.load(folder / f"random_rank{torch.distributed.get_rank()}.pt", weights_only=False)
    except Exception as error:
        raise SnapshotError(
            f"learner checkpoint {folder} cannot be read ({type(error).__name__}: {error}); resume from an older one"
        ) from error
    if path is None:
        raise SnapshotError(f"learner checkpoint {folder}: DeepSpeed found nothing in it; resume from an older one")
    _restore_random_states(random_states)
    counters: dict[str, int] = client_state["counters"]
    return counters


def _read_page(folder: Path) -> dict[str, Any]:
    try:
        page: dict[str, Any] = json.loads((folder / PAGE).read_text())
    except FileNotFoundError:
        raise SnapshotError(
            f"learner checkpoint {folder}: {PAGE} is missing, so it is not a learner checkpoint or was cut short; "
            "resume from an older one"
        ) from None
    except (OSError, ValueError) as error:
        raise SnapshotError(f"learner checkpoint {folder}: {PAGE} cannot be read ({error})") from error
    if page.get("format") != FORMAT:
        raise SnapshotError(
            f"learner checkpoint {folder} has format {page.get('format')!r}, this version reads {FORMAT}; "
            "use the version of t2po that wrote it"
        )
    return page


def _compare_shapes(folder: Path, saved: dict[str, list[int]], here: dict[str, list[int]]) -> None:
    if saved == here:
        return
    names = sorted(set(saved) | set(here))
    name = next(name for name in names if saved.get(name) != here.get(name))
    raise SnapshotError(
        f"learner checkpoint {folder} is of another model: {name} has shape {saved.get(name, 'none')} there and "
        f"{here.get(name, 'none')} here; give the model that the run was started with"
    )


def _shapes(module: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(getattr(p, "ds_shape", p.shape)) for name, p in module.named_parameters()}


def _optimizer_layout(engine: DeepSpeedEngine) -> dict[str, Any]:
    return {
        "dtype": str(next(engine.module.parameters()).dtype).removeprefix("torch."),
        "zero_stage": int(engine.zero_optimization_stage()),
        "ranks": torch.distributed.get_world_size(),
    }


def _random_states() -> dict[str, Any]:
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}


def _restore_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
