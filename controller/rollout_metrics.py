"""What the trajectories of a step tell: success, exploration, the two interventions, as numbers.

Owns: the reduction of TrajectoryGroups. Called by `controller.update` and `controller.calibrate`. Must not know: Ray,
files, what the learner reports, which numbers are alarming (`controller.collapse`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from controller.tokens_saved import tokens_saved
from envs.records import Candidate, Trajectory, TrajectoryGroup

QUANTILES = (10, 50, 90)
"""Of M over tokens and Φ over turns, percent."""


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
        "reward_std": mean(_reward_std(group) for group in groups),
        "groups_without_signal": mean(_without_signal(group) for group in groups),
        "turns": mean(len(trajectory.turns) for trajectory in trajectories),
        "turns_of_success": mean(len(trajectory.turns) for trajectory in trajectories if trajectory.won),
        "trajectory_tokens": mean(_tokens(t.accepted for t in trajectory.turns) for trajectory in trajectories),
        "invalid": mean(not turn.valid for turn in turns),
        "format_invalid": mean(not turn.format_valid for turn in turns),
        "entropy": mean_of_arrays([candidate.entropy for candidate in accepted]),
        "uncertainty": mean_of_arrays([candidate.uncertainty for candidate in accepted]),
        **_quantiles("uncertainty", np.concatenate([np.zeros(0), *(one.uncertainty for one in accepted)])),
        "marginal_change": _marginal_change(accepted),
        "phi": mean(candidate.phi for candidate in accepted),
        **_quantiles("phi", np.array([candidate.phi for candidate in accepted])),
        "gamma": mean(candidate.gamma for candidate in accepted),
        "repeated_turns": mean(repeated for one in trajectories for repeated in _repeated(one)),
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
        "cut_observations": float(sum(turn.observation_cut > 0 for turn in turns)),
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


def _quantiles(name: str, values: NDArray[np.floating]) -> dict[str, float]:
    """Of the values that are finite; NaN when there is none."""
    finite = values[np.isfinite(values)]
    found = np.percentile(finite, QUANTILES) if len(finite) else [math.nan] * len(QUANTILES)
    return {f"{name}_p{percent}": float(value) for percent, value in zip(QUANTILES, found, strict=True)}


def _marginal_change(candidates: Sequence[Candidate]) -> float:
    """Mean Δ_t = |M_t - M_{t-1}| over neighbouring sampled tokens of thoughts (METHOD section 3)."""
    thoughts = [one.uncertainty[one.think_at :][: one.num_think_tokens] for one in candidates if one.think_at >= 0]
    return mean_of_arrays([np.abs(np.diff(thought)) for thought in thoughts])


def _repeated(trajectory: Trajectory) -> list[bool]:
    """Of each turn, whether the same action was taken in sight of the same observation before."""
    seen: set[tuple[str, str]] = set()
    repeated = []
    for turn in trajectory.turns:
        repeated.append((turn.observation, turn.action) in seen)
        seen.add((turn.observation, turn.action))
    return repeated


def _reward_std(group: TrajectoryGroup) -> float:
    return float(np.std([trajectory.total_reward for trajectory in group.trajectories]))


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
