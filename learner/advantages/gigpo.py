"""GiGPO advantages: a trajectory against its siblings, and a turn against turns from the same state.

Owns: `gigpo`. Called through `learner.advantages.registry`. Must not know: tokens, torch, records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from learner.advantages.group_relative import STD_FLOOR, grpo
from learner.advantages.group_turns import Float64, GroupTurns, discounted_returns, penalties
from learner.settings import AdvantageSettings


def gigpo(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    """A = A_episode + step_weight * A_step: G arrays [T_i], in units of reward or ("mean_std_norm") deviations.

    A_episode is `grpo`. A_step compares the discounted return from the turn on, less the turn's own penalty, with the
    mean over all turns of the group that have the same anchor, across trajectories and times; a turn alone with its
    anchor gets 0. Both are divided by 1 or by a standard deviation (Bessel's correction) + 1e-6. Source: Feng et al.
    2025 (arXiv 2505.10978), "episode" and "step relative advantages", with METHOD section 5's penalty; SAMPO (arXiv
    2602.21534) uses it too.
    """
    step = _step_part(group, settings)
    return [e + settings.step_weight * s for e, s in zip(grpo(group, settings), step, strict=True)]


def _step_part(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    returns = [
        discounted_returns(rewards, settings.gamma) - penalty
        for rewards, penalty in zip(group.rewards, penalties(group, settings.invalid_penalty), strict=True)
    ]
    step = [np.zeros_like(value) for value in returns]
    for places in _clusters(group.anchors):
        values = np.array([returns[trajectory][turn] for trajectory, turn in places])
        if np.all(values == values[0]):  # a turn alone, and no rounding where all are equal
            continue
        scale = float(values.std(ddof=1)) + STD_FLOOR if settings.normalise == "mean_std_norm" else 1.0
        for (trajectory, turn), value in zip(places, (values - values.mean()) / scale, strict=True):
            step[trajectory][turn] = value
    return step


def _clusters(anchors: Sequence[Sequence[str]]) -> list[list[tuple[int, int]]]:
    """The (trajectory, turn) of each state, states in order of appearance."""
    clusters: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for trajectory, states in enumerate(anchors):
        for turn, state in enumerate(states):
            clusters[state].append((trajectory, turn))
    return list(clusters.values())
