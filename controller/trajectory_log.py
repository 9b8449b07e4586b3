"""What the agent did, for people: the trajectories that each step trained on, as JSON lines.

Owns: the files of `trajectories/`. Called by `controller.update`. Must not know: training. Only the first groups of a
step are written with their tokens and M, which `t2po report` shades: all of them would be most of a run's bytes.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from controller.durable_files import RunFolderError
from envs.codec import trajectory_to_json
from envs.records import TrajectoryGroup


def write_trajectories(folder: Path, step: int, groups: Iterable[TrajectoryGroup], token_groups: int = 0) -> Path:
    """One gzip file a step, one line a trajectory; whole or not at all, and written again when a step is repeated.

    The first `token_groups` groups with their tokens.
    """
    path = folder / f"step-{step:08d}.jsonl.gz"
    temporary = path.with_name(f".{path.name}.new")
    try:
        with gzip.open(temporary, "wt", encoding="utf-8", errors="replace", compresslevel=3) as file:
            for number, group in enumerate(groups):
                for trajectory in group.trajectories:
                    line = trajectory_to_json(trajectory, with_tokens=number < token_groups)
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunFolderError.of(path, error, "write trajectories") from error
    return path
