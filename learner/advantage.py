"""GiGPO advantages: how much better a turn went than its siblings' turns.

Owns: `discounted_returns`, `gigpo`. Called by `learner.samples`. Must not know: tokens, torch, records.

Source: METHOD section 5 (GiGPO, arXiv 2505.10978, with the invalid-action penalty of T²PO's setup).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from learner.settings import AdvantageSettings

Float64 = NDArray[np.float64]

STD_FLOOR = 1e-6


def discounted_returns(rewards: Float64, gamma: float) -> Float64:
    """rewards [T] -> R [T] with R_t = Σ_{k≥t} gamma^(k-t) rewards_k (METHOD section 5)."""
    returns = np.zeros(len(rewards), dtype=np.float64)
    following = 0.0
    for turn in range(len(rewards) - 1, -1, -1):
        following = float(rewards[turn]) + gamma * following
        returns[turn] = following
    return returns


def gigpo(
    rewards: Sequence[Float64],
    invalid: Sequence[NDArray[np.bool_]],
    anchors: Sequence[Sequence[str]],
    settings: AdvantageSettings,
) -> list[Float64]:
    """Advantages of every turn of one group; METHOD section 5.

    For each of the G trajectories: `rewards` [T_i], `invalid` [T_i], `anchors` [T_i], the raw
    observation of each turn. Returns G arrays [T_i], in units of reward ("mean_norm") or in standard
    deviations ("mean_std_norm"): A = A_episode + step_weight * A_step.

    A_episode compares Σ_k r_k - penalty * invalid_t with the group's mean over trajectories (each
    weighs the same) or over turns; it is 0 when the group has one trajectory. A_step compares the
    discounted return, less the same penalty, with the mean of all turns of the group with the same
    anchor; a turn alone with its anchor gets 0. Standard deviations have Bessel's correction.
    """
    _check(rewards, invalid, anchors)
    penalties = [settings.invalid_penalty * flags.astype(np.float64) for flags in invalid]
    scores = [np.sum(r, dtype=np.float64) - penalty for r, penalty in zip(rewards, penalties, strict=True)]
    returns = [discounted_returns(r, settings.gamma) - p for r, p in zip(rewards, penalties, strict=True)]
    episode = _episode_part(scores, settings)
    step = _step_part(returns, anchors, settings)
    return [e + settings.step_weight * s for e, s in zip(episode, step, strict=True)]


def _episode_part(scores: list[Float64], settings: AdvantageSettings) -> list[Float64]:
    if len(scores) < 2:
        return [np.zeros_like(score) for score in scores]
    flat = np.concatenate(scores)
    if settings.group_mean == "per_turn":
        weights, count = np.ones(len(flat)), len(flat)
    else:
        weights = np.concatenate([np.full(len(score), 1.0 / len(score)) for score in scores])
        count = len(scores)
    mean = float(np.sum(weights * flat) / count)
    scale = 1.0
    if settings.normalise == "mean_std_norm":
        scale = float(np.sqrt(np.sum(weights * (flat - mean) ** 2) / (count - 1))) + STD_FLOOR
    return [_without_rounding(score - mean, flat) / scale for score in scores]


def _step_part(returns: list[Float64], anchors: Sequence[Sequence[str]], settings: AdvantageSettings) -> list[Float64]:
    clusters: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for trajectory, states in enumerate(anchors):
        for turn, state in enumerate(states):
            clusters[state].append((trajectory, turn))
    step = [np.zeros_like(value) for value in returns]
    for places in clusters.values():
        if len(places) < 2:
            continue
        values = np.array([returns[trajectory][turn] for trajectory, turn in places])
        scale = float(values.std(ddof=1)) + STD_FLOOR if settings.normalise == "mean_std_norm" else 1.0
        centred = _without_rounding(values - values.mean(), values) / scale
        for (trajectory, turn), value in zip(places, centred, strict=True):
            step[trajectory][turn] = value
    return step


def _without_rounding(centred: Float64, values: Float64) -> Float64:
    """Exactly 0 where all of `values` are equal: a mean of equal numbers may be off by the last bit."""
    return np.zeros_like(centred) if np.all(values == values[0]) else centred


def _check(rewards: Sequence[Float64], invalid: Sequence[NDArray[np.bool_]], anchors: Sequence[Sequence[str]]) -> None:
    if not len(rewards) == len(invalid) == len(anchors):
        raise ValueError(
            f"gigpo: {len(rewards)} rewards, {len(invalid)} invalid flags and {len(anchors)} anchors; "
            "one of each per trajectory is needed"
        )
    for index, (r, flags, states) in enumerate(zip(rewards, invalid, anchors, strict=True)):
        if not len(r) == len(flags) == len(states) or len(r) == 0:
            raise ValueError(
                f"gigpo: trajectory {index} has {len(r)} rewards, {len(flags)} invalid flags, {len(states)} anchors; "
                "one of each per turn is needed, and at least one turn"
            )
        if not np.all(np.isfinite(r)):
            turn = int(np.flatnonzero(~np.isfinite(r))[0])
            raise ValueError(
                f"gigpo: trajectory {index}, turn {turn} has reward {r[turn]}; rewards must be finite: "
                "drop the group and look at the environment"
            )
