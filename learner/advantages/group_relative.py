"""Advantages of whole trajectories against their siblings: REINFORCE, RLOO, GRPO, Dr. GRPO.

Owns: these estimators. Called through `learner.advantages.registry`; `gigpo` adds a step part to `grpo`. Must not know:
tokens, torch, records.

All of them judge a turn by its score s_{i,t} = Σ_k r_{i,k} - penalty * 1[turn t of trajectory i is invalid] (METHOD
section 5): the undiscounted sum of the whole trajectory, as published for replies of one turn, carried over to turns as
GiGPO's episode part does it. Results are G arrays [T_i], in units of reward or (grpo with std) in standard deviations.
"""

from __future__ import annotations

import numpy as np

from learner.advantages.group_turns import Float64, GroupTurns, penalties
from learner.settings import AdvantageSettings

STD_FLOOR = 1e-6
"""Added to a standard deviation, so that one of 0 does not divide (verl's and GiGPO's value)."""


def reinforce(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    """A = s, without a baseline. Source: Williams 1992, "Simple statistical gradient-following algorithms"."""
    return episode_scores(group, settings)


def reinforce_mean(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    """A = s - mean of the group, as `settings.group_mean` weighs it.

    The mean holds the trajectory's own score, which shrinks the gradient by (G - 1)/G and does not turn it; `rloo` is
    free of that. A trajectory alone gets 0. Source: Williams 1992 (reinforcement baseline).
    """
    return _against_mean(episode_scores(group, settings), settings.group_mean, with_std=False)


def rloo(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    """A_{i,t} = s_{i,t} - mean of the scores of the other trajectories; 0 for a trajectory alone.

    Left out of the mean is the whole trajectory, with "per_turn" as well: its other turns share its outcome, and a
    baseline that knows the outcome is biased. Source: Ahmadian et al. 2024 (arXiv 2402.14740), RLOO.
    """
    scores = episode_scores(group, settings)
    if len(scores) < 2:
        return [np.zeros_like(score) for score in scores]
    advantages = []
    for index, score in enumerate(scores):
        others = scores[:index] + scores[index + 1 :]
        if settings.group_mean == "per_turn":
            baseline = float(np.mean(np.concatenate(others)))
        else:
            baseline = float(np.mean([np.mean(other) for other in others]))
        advantages.append(_without_rounding(score - baseline, np.concatenate(scores)))
    return advantages


def grpo(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    """A = (s - μ)/F, F = 1 ("mean_norm") or the group's standard deviation + 1e-6 ("mean_std_norm").

    μ and the standard deviation run over turns ("per_turn") or give every trajectory the same weight
    ("per_trajectory"); it has Bessel's correction over turns or trajectories. A trajectory alone gets 0. Source: Shao
    et al. 2024 (arXiv 2402.03300), outcome supervision; for turns, GiGPO's episode part (arXiv 2505.10978).
    """
    return _against_mean(
        episode_scores(group, settings), settings.group_mean, with_std=settings.normalise == "mean_std_norm"
    )


def dr_grpo(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    """`grpo` without the division, whatever `settings.normalise` says: dividing by the standard deviation gives tasks
    that are nearly always or nearly never solved more weight. Source: Liu et al. 2025 (arXiv 2503.20783)."""
    return reinforce_mean(group, settings)


def episode_scores(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    """s: G arrays [T_i], in units of reward (METHOD section 5)."""
    return [
        total - penalty for total, penalty in zip(group.totals, penalties(group, settings.invalid_penalty), strict=True)
    ]


def _against_mean(scores: list[Float64], group_mean: str, *, with_std: bool) -> list[Float64]:
    if len(scores) < 2:
        return [np.zeros_like(score) for score in scores]
    flat = np.concatenate(scores)
    if group_mean == "per_turn":
        weights, count = np.ones(len(flat)), len(flat)
    else:
        weights = np.concatenate([np.full(len(score), 1.0 / len(score)) for score in scores])
        count = len(scores)
    mean = float(np.sum(weights * flat) / count)
    scale = 1.0
    if with_std:
        scale = float(np.sqrt(np.sum(weights * (flat - mean) ** 2) / (count - 1))) + STD_FLOOR
    return [_without_rounding(score - mean, flat) / scale for score in scores]


def _without_rounding(centred: Float64, values: Float64) -> Float64:
    """Exactly 0 where all of `values` are equal: a mean of equal numbers may be off by the last bit."""
    return np.zeros_like(centred) if np.all(values == values[0]) else centred
