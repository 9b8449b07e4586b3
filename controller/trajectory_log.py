"""What the agent did, for people: the trajectories that each step trained on, as JSON lines.

Owns: the files of `trajectories/`. Called by `controller.update`. Must not know: training. Token ids and
per-token arrays are left out (`envs.codec.trajectory_to_json`); the replay queue holds those while needed.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from controller.durable_files import RunFolderError
from envs.codec import trajectory_to_json
from envs.records import TrajectoryGroup


def write_trajectories(folder: Path, step: int, groups: Iterable[TrajectoryGroup]) -> Path:
    """One gzip file a step, one line a trajectory; whole or not at all, and written again when a step is repeated."""
    path = folder / f"step-{step:08d}.jsonl.gz"
    temporary = path.with_name(f".{path.name}.new")
    try:
        with gzip.open(temporary, "wt", encoding="utf-8", errors="replace", compresslevel=3) as file:
            for group in groups:
                for trajectory in group.trajectories:
                    file.write(json.dumps(trajectory_to_json(trajectory), ensure_ascii=False) + "\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunFolderError.of(path, error, "write trajectories") from error
    return path
