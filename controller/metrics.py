"""Where a step's metrics are reduced and written down.

Owns: the reduction of trajectory groups to numbers, the moving success, the JSON lines file. Called by the
training loop, evaluation and `t2po status`. Must not know: Ray, Prometheus, the terminal.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from controller.tokens_saved import tokens_saved
from envs.records import Candidate, TrajectoryGroup


class MetricsError(RuntimeError):
    """Metrics cannot be written or served; the message names the place and the remedy."""


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """The numbers of one optimizer step; `time` in seconds since 1970."""

    step: int
    values: dict[str, float]
    time: float = field(default_factory=time.time)


class MovingMean:
    """Mean of the last `window` values that were measured."""

    def __init__(self, window: int = 10) -> None:
        self._values: deque[float] = deque(maxlen=window)

    def add(self, value: float) -> float:
        if math.isfinite(value):
            self._values.append(value)
        return self.value

    @property
    def value(self) -> float:
        return sum(self._values) / len(self._values) if self._values else math.nan


def rollout_metrics(groups: Sequence[TrajectoryGroup], version: int) -> dict[str, float]:
    """Everything that the trajectories themselves tell, for a step that trains policy `version`.

    A mean without anything measured is NaN, never 0.
    """
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    accepted = [turn.accepted for turn in turns]
    rejected = [candidate for turn in turns for candidate in turn.rejected]
    staleness = [version - candidate.min_version for candidate in accepted]
    count = max(len(turns), 1)
    return {
        "success": mean(trajectory.won for trajectory in trajectories),
        "score": mean(trajectory.score for trajectory in trajectories),
        "reward": mean(trajectory.total_reward for trajectory in trajectories),
        "groups_without_signal": mean(_without_signal(group) for group in groups),
        "turns": mean(len(trajectory.turns) for trajectory in trajectories),
        "turns_of_success": mean(len(trajectory.turns) for trajectory in trajectories if trajectory.won),
        "trajectory_tokens": mean(_tokens(t.accepted for t in trajectory.turns) for trajectory in trajectories),
        "invalid": mean(not turn.valid for turn in turns),
        "format_invalid": mean(not turn.format_valid for turn in turns),
        "entropy": mean_of_arrays([candidate.entropy for candidate in accepted]),
        "uncertainty": mean_of_arrays([candidate.uncertainty for candidate in accepted]),
        "phi": mean(candidate.phi for candidate in accepted),
        "gamma": mean(candidate.gamma for candidate in accepted),
        "think_tokens": mean(candidate.num_think_tokens for candidate in accepted),
        "tokens_saved": _tokens_saved(accepted),
        "cut_share": _cut_share(accepted),
        "forced_share": mean(bool(candidate.fired) for candidate in accepted),
        "forced_by_cap": mean(candidate.fired == "cap" for candidate in accepted),
        "interventions": sum(bool(candidate.fired) for candidate in accepted + rejected) / count,
        "resamples": len(rejected) / count,
        "resampled_turns": mean(bool(turn.rejected) for turn in turns),
        "rejected_tokens": _tokens(rejected) / count,
        "truncated": mean(candidate.finish_reason == "length" for candidate in accepted),
        "staleness": mean(staleness),
        "staleness_max": float(max(staleness, default=0)),
        "trajectories": float(len(trajectories)),
        "accepted_turns": float(len(turns)),
        "sampled_tokens": float(_tokens(accepted) + _tokens(rejected)),
    }


def _tokens_saved(candidates: Sequence[Candidate]) -> float:
    """Thinking tokens a turn that were never sampled because TTI ended the thought (an estimate)."""
    lengths = np.array([candidate.num_think_tokens for candidate in candidates], dtype=np.int64)
    cut = np.array([candidate.fired == "uncertainty" for candidate in candidates], dtype=np.bool_)
    return tokens_saved(lengths, cut) / max(len(candidates), 1)


def _cut_share(candidates: Sequence[Candidate]) -> float:
    """Share of the thinking tokens of a step that TTI cut (an estimate)."""
    saved = _tokens_saved(candidates) * len(candidates)
    sampled = sum(candidate.num_think_tokens for candidate in candidates)
    return saved / (saved + sampled) if saved + sampled else math.nan


def _without_signal(group: TrajectoryGroup) -> bool:
    rewards = [trajectory.total_reward for trajectory in group.trajectories]
    return max(rewards) - min(rewards) < 1e-9


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are finite; NaN when there is none."""
    finite = [float(value) for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def mean_of_arrays(arrays: Sequence[np.ndarray]) -> float:
    """Mean over all finite elements of all arrays: every token weighs the same."""
    total, count = 0.0, 0
    for array in arrays:
        finite = array[np.isfinite(array)]
        total += float(finite.sum(dtype=np.float64))
        count += len(finite)
    return total / count if count else math.nan


def _tokens(candidates: Iterable[Candidate]) -> int:
    return sum(len(candidate.token_ids) for candidate in candidates)


class MetricsLog:
    """JSON lines, one a step: `{"step": 3, "time": …, "success": 0.25, …}`; not measured is null.

    A resumed run passes the step of its checkpoint: later lines, and one cut short by a kill, are dropped,
    so that no step stands there twice.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if resume_step is not None and path.exists():
                kept = [encode(step) for step in read_metrics(path) if step.step <= resume_step]
                scratch = path.with_suffix(".tmp")
                scratch.write_text("".join(kept), encoding="utf-8")
                scratch.replace(path)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._error(error) from error

    def write(self, step: StepMetrics) -> None:
        try:
            self._file.write(encode(step))
            self._file.flush()
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        self._file.close()

    def _error(self, error: OSError) -> MetricsError:
        return MetricsError(
            f"metrics cannot be written to {self._path}: {error.strerror or error}; free some space or choose "
            "another folder with runs_dir"
        )


def encode(step: StepMetrics) -> str:
    """One line. Strict JSON: what is not finite is null."""
    values = {name: float(value) if math.isfinite(value) else None for name, value in step.values.items()}
    return json.dumps({"step": step.step, "time": round(step.time, 3), **values}) + "\n"


def read_metrics(path: Path) -> list[StepMetrics]:
    """All whole lines of a metrics file, in order; a last line that was cut short is left out."""
    steps = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            step, when = int(values.pop("step")), float(values.pop("time"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                break
            raise MetricsError(f"{path}:{number}: not a line of metrics ({error}); delete that line") from error
        numbers = {name: math.nan if value is None else float(value) for name, value in values.items()}
        steps.append(StepMetrics(step=step, values=numbers, time=when))
    return steps
