"""What an evaluation found: success with its interval, in words and in a file.

Owns: `EvalResult`, its wording, its file's name and content. Called by `controller.evaluate` and `controller.train`.
Must not know: how tasks are played.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from controller.config import RunConfig
from controller.durable_files import write_whole
from controller.interval import wilson_interval
from envs.records import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """Success on a panel. `by_kind`: task type -> (won, played); turns, tokens and score are means a trajectory;
    `settings` are those that decide the result (`eval_settings`)."""

    panel: str
    panel_hash: str
    version: int
    settings: dict[str, Any]
    won: int
    played: int
    by_kind: dict[str, tuple[int, int]]
    turns: float
    tokens: float
    invalid_share: float
    duration_s: float
    score: float

    @property
    def success(self) -> float:
        return self.won / self.played if self.played else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.won, self.played)


def eval_settings(config: RunConfig) -> dict[str, Any]:
    """What of a configuration decides an evaluation's result: two with the same settings repeat each other."""
    acting = {"tti": config.tti.model_dump(), "tds": config.tds.model_dump()} if config.eval.interventions else {}
    return {
        **config.eval.model_dump(exclude={"every_steps"}),
        "seed": config.seed,
        "env": config.env.model_dump(include={"name", "max_turns", "memory", "prompt", config.env.name}),
        "inference": config.inference.model_dump(include={"prompt_tokens", "response_tokens", "dtype"}),
        **acting,
    }


def summarise(
    trajectories: Sequence[Trajectory],
    *,
    panel: str,
    panel_hash: str,
    version: int,
    settings: dict[str, Any],
    duration_s: float,
) -> EvalResult:
    """Trajectories -> EvalResult."""
    by_kind: dict[str, tuple[int, int]] = {}
    for trajectory in sorted(trajectories, key=lambda one: one.task.kind):
        won, played = by_kind.get(trajectory.task.kind, (0, 0))
        by_kind[trajectory.task.kind] = (won + trajectory.won, played + 1)
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    count = max(1, len(trajectories))
    return EvalResult(
        panel=panel,
        panel_hash=panel_hash,
        version=version,
        settings=settings,
        won=sum(trajectory.won for trajectory in trajectories),
        played=len(trajectories),
        by_kind=by_kind,
        turns=len(turns) / count,
        tokens=sum(len(turn.accepted.token_ids) for turn in turns) / count,
        invalid_share=sum(not turn.valid for turn in turns) / max(1, len(turns)),
        duration_s=duration_s,
        score=sum(trajectory.score for trajectory in trajectories) / count,
    )


def lines_of(result: EvalResult, label: str) -> list[str]:
    """The result for a person: the total first, then one line a task type."""
    low, high = result.interval
    score = "" if abs(result.score - result.success) < 1e-9 else f"score {result.score:.3f}, "
    lines = [
        f"{label}: {result.panel} {result.success:.1%} [{low:.1%}, {high:.1%}] "
        f"({result.won}/{result.played} tasks, {score}{result.turns:.1f} turns, {result.tokens:.0f} tokens, "
        f"{result.invalid_share:.1%} invalid turns, {result.duration_s:.0f} s)"
    ]
    for kind, (won, played) in result.by_kind.items():
        low, high = wilson_interval(won, played)
        lines.append(f"  {kind:<40} {won / played:6.1%} [{low:.1%}, {high:.1%}] ({won}/{played})")
    return lines


def write_result(result: EvalResult, folder: Path, label: str, tag: str = "") -> Path:
    """One JSON file an evaluation, named for panel, version, label and tag."""
    path = folder / ("-".join([result.panel, f"v{result.version:06d}", label, *([tag] if tag else [])]) + ".json")
    low, high = result.interval
    row = asdict(result)
    row |= row.pop("settings")
    row |= {"label": label, "success": result.success, "interval": [low, high], "time": time.time()}
    write_whole(path, json.dumps(row, indent=2, sort_keys=True).encode() + b"\n")
    return path


def settings_tag(settings: dict[str, Any]) -> str:
    """A short name of the settings: a file with it in its name overwrites no result that was had in another way."""
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=4).hexdigest()


def was_evaluated(folder: Path, panel: str, label: str) -> bool:
    """Whether a result under this label is there already: a resumed run does not measure its start again."""
    return any(folder.glob(f"{panel}-v*-{label}.json"))


def comparison(folder: Path, panel: str) -> str:
    """Before and after the run in one line; the newest result of each label counts."""
    parts = []
    for label in ("before", "after"):
        files = sorted(folder.glob(f"{panel}-v*-{label}.json"))
        if files:
            row = json.loads(files[-1].read_text(encoding="utf-8"))
            low, high = row["interval"]
            parts.append(f"{row['success']:.1%} [{low:.1%}, {high:.1%}] {label}")
    return f"success on {panel} ({row['played']} tasks): {', '.join(parts)}" if parts else f"{panel} was not evaluated"
