"""What the agent did, for people: the trajectories that each step trained on, as JSON lines.

Owns: the file format of `trajectories/`. Called by `controller.update`. Must not know: training. Token ids
and per-token arrays are left out; the replay queue holds those while they are needed.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from envs.records import Candidate, Trajectory, TrajectoryGroup, Turn


def write_trajectories(folder: Path, step: int, groups: Iterable[TrajectoryGroup]) -> Path:
    """One gzip file a step, one line a trajectory; whole or not at all, and written again when a step is repeated."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}.jsonl.gz"
    temporary = path.with_suffix(".tmp")
    with gzip.open(temporary, "wt", encoding="utf-8", compresslevel=3) as file:
        for group in groups:
            for trajectory in group.trajectories:
                file.write(json.dumps(_trajectory(trajectory), ensure_ascii=False) + "\n")
    temporary.replace(path)
    return path


def _trajectory(trajectory: Trajectory) -> dict[str, Any]:
    return {
        "id": trajectory.id,
        "task": trajectory.task.id,
        "kind": trajectory.task.kind,
        "won": trajectory.won,
        "reward": trajectory.total_reward,
        "turns": [_turn(turn) for turn in trajectory.turns],
    }


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "observation": turn.observation,
        "action": turn.action,
        "valid": turn.valid,
        "reward": turn.reward,
        **_candidate(turn.accepted),
        "rejected": [_candidate(candidate) for candidate in turn.rejected],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "reply": candidate.text,
        "tokens": len(candidate.token_ids),
        "phi": _finite(candidate.phi),
        "gamma": _finite(candidate.gamma),
        "fired": candidate.fired,
        "versions": [candidate.min_version, candidate.max_version],
    }


def _finite(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
