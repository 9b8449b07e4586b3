"""The learner's part of a checkpoint: trained parameters, their AdamW states, random states, and a page about them.

Owns: `save_snapshot`, `load_snapshot`, SnapshotError. Called by `learner.learner`, on every rank. Must not know: where
checkpoints live, or how the controller makes a set of them atomic.

Parameters are stored whole, each by one of the ranks, so another number of ranks or another ZeRO stage can take them
up. `snapshot.json` is written last, so a folder without it was cut short. All ranks see one folder.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from learner.engine import of_all_ranks
from learner.optimizer_state import (
    KINDS,
    link_states,
    num_adam_steps,
    prime,
    put_state,
    set_adam_steps,
    trained_parameters,
    whole_states,
)
from learner.packing import share_out

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine

FORMAT = 2
PAGE = "snapshot.json"
_REMEDY = "resume from an older one"


class SnapshotError(RuntimeError):
    """A learner checkpoint that cannot be taken up; the message names the folder, the cause and the remedy."""


def save_snapshot(engine: DeepSpeedEngine, folder: Path, counters: dict[str, int]) -> None:
    """Writes it; `counters` come back from `load_snapshot`. Weights that are not finite are refused."""
    rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        (folder / PAGE).unlink(missing_ok=True)
    shapes = _shapes(engine.module)
    trained = [name for name, _ in trained_parameters(engine)]
    shares = share_out(np.array([int(np.prod(shapes[name])) for name in trained]), num_ranks)
    own = {trained[index] for index in shares[rank]}
    tensors: dict[str, torch.Tensor] = {}
    for name, states in whole_states(engine):
        if name in own:
            tensors |= {f"{name}/{kind}": value.to("cpu", copy=True).contiguous() for kind, value in states.items()}
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if names := sorted(name for part in of_all_ranks(broken) for name in part):
        raise SnapshotError(f"{names[0]} is not finite: nothing is saved; go on from the last checkpoint")
    state_file, random_file = folder / f"state-{rank:04d}.safetensors", folder / f"random-{rank:04d}.pt"
    save_file(tensors, state_file)
    torch.save(_random_states(), random_file)
    sizes = [(path.name, path.stat().st_size) for path in (state_file, random_file)]
    page = {
        "format": FORMAT,
        "ranks": num_ranks,
        "layout": _layout(engine),
        "shapes": shapes,
        "trained": trained,
        "frozen_sum": _frozen_sum(engine),
        "adam_steps": num_adam_steps(engine),
        "counters": counters,
        "files": {name: size for part in of_all_ranks(sizes) for name, size in part},
    }
    if rank == 0:
        (folder / PAGE).write_text(json.dumps(page, indent=1))
    of_all_ranks(None)  # nobody says that it is saved before the page is written


def load_snapshot(engine: DeepSpeedEngine, folder: Path, touch: Callable[[], None]) -> dict[str, int]:
    """Restore parameters, optimizer and random states; returns the counters that were saved.

    `touch` does a backward pass with a gradient of zero. Every rank reads and checks the same files, so they all
    raise or none does.
    """
    page = _read_page(folder)
    _compare(folder, page, engine)
    for name, size in page["files"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else -1
        if found != size:
            raise SnapshotError(
                f"learner checkpoint {folder}: {name} has {found} bytes (-1: missing), {size} were written; "
                f"the checkpoint is damaged: {_REMEDY}"
            )
    rank = torch.distributed.get_rank()
    try:
        random_states = torch.load(folder / f"random-{rank % page['ranks']:04d}.pt", weights_only=False)
        files = [safe_open(folder / name, framework="pt") for name in page["files"] if name.endswith(".safetensors")]
        places = {key: file for file in files for key in list(file.keys())}
        if not num_adam_steps(engine):
            touch()
            prime(engine)
        link_states(engine)
        for name, parameter in trained_parameters(engine):
            keys = [(kind, f"{name}/{kind}") for kind in KINDS if f"{name}/{kind}" in places]
            put_state(engine, parameter, {kind: places[key].get_tensor(key) for kind, key in keys})
    except Exception as error:
        raise SnapshotError(
            f"learner checkpoint {folder} cannot be read ({type(error).__name__}: {error}); {_REMEDY}"
        ) from error
    set_adam_steps(engine, page["adam_steps"])
    _restore_random_states(random_states)
    counters: dict[str, int] = page["counters"]
    return counters


def _read_page(folder: Path) -> dict[str, Any]:
    try:
        page: dict[str, Any] = json.loads((folder / PAGE).read_text())
    except FileNotFoundError:
        raise SnapshotError(
            f"learner checkpoint {folder}: {PAGE} is missing, so it is not a learner checkpoint or was cut short; "
            f"{_REMEDY}"
        ) from None
    except (OSError, ValueError) as error:
        raise SnapshotError(f"learner checkpoint {folder}: {PAGE} cannot be read ({error}); {_REMEDY}") from error
    if page.get("format") != FORMAT:
        raise SnapshotError(
            f"learner checkpoint {folder} has format {page.get('format')!r}, this version reads {FORMAT}; "
            "use the version of t2po that wrote it"
        )
    return page


def _compare(folder: Path, page: dict[str, Any], engine: DeepSpeedEngine) -> None:
    """What was saved has to fit what is here."""
    here = _shapes(engine.module)
    trained = [name for name, _ in trained_parameters(engine)]
    if page["trained"] != trained and any(".lora_" in name for name in (*page["trained"], *trained)):
        raise SnapshotError(
            f"learner checkpoint {folder}: it trains {len(page['trained'])} matrices and vectors, this run "
            f"{len(trained)} others; set learner.lora_rank and learner.lora_targets as they were"
        )
    if page["shapes"] != here:
        name = next(n for n in sorted(set(page["shapes"]) | set(here)) if page["shapes"].get(n) != here.get(n))
        raise SnapshotError(
            f"learner checkpoint {folder} is of another model: {name} has shape {page['shapes'].get(name, 'none')} "
            f"there and {here.get(name, 'none')} here; give the model that the run was started with"
        )
    if page["layout"] != _layout(engine):
        raise SnapshotError(
            f"learner checkpoint {folder}: it was written with {page['layout']}, this run has {_layout(engine)}; "
            "set learner.dtype as it was"
        )
    if page["frozen_sum"] != _frozen_sum(engine):
        raise SnapshotError(
            f"learner checkpoint {folder} is of another model: the weights that LoRA leaves as they are differ; "
            "give the model that the run was started with"
        )


def _shapes(module: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(getattr(p, "ds_shape", p.shape)) for name, p in module.named_parameters()}


def _layout(engine: DeepSpeedEngine) -> dict[str, str]:
    return {"dtype": str(next(engine.module.parameters()).dtype).removeprefix("torch.")}


def _frozen_sum(engine: DeepSpeedEngine) -> int:
    """Of the bits of the parameters that are not trained, and so not saved. Exact: no order, no number of ranks."""
    total, is_split = 0, False
    for place, parameter in enumerate(p for p in engine.module.parameters() if not p.requires_grad):
        is_split = is_split or hasattr(parameter, "ds_tensor")
        own = getattr(parameter, "ds_tensor", parameter).detach()
        bits = own.view(torch.int16 if own.element_size() == 2 else torch.int32)
        total += (place + 1) * int(bits.sum(dtype=torch.int64))
    return (sum(of_all_ranks(total)) if is_split else total) % 2**61


def _random_states() -> dict[str, Any]:
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}


def _restore_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
