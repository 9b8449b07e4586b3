"""Slow advantages in plain Python, written from the formulas: what `learner.advantages` is compared with.

Trajectories are dictionaries of lists: rewards, invalid, anchors, values. Nothing is shared with the code under test.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np

Trajectory = dict[str, Any]


def score(trajectory: Trajectory, turn: int, penalty: float) -> float:
    return math.fsum(trajectory["rewards"]) - (penalty if trajectory["invalid"][turn] else 0.0)


def scores(trajectory: Trajectory, penalty: float) -> list[float]:
    return [score(trajectory, turn, penalty) for turn in range(len(trajectory["rewards"]))]


def reinforce(group: list[Trajectory], penalty: float) -> list[list[float]]:
    return [scores(trajectory, penalty) for trajectory in group]


def rloo(group: list[Trajectory], penalty: float, group_mean: str) -> list[list[float]]:
    result = []
    for trajectory in group:
        others = [scores(other, penalty) for other in group if other is not trajectory]
        if not others:
            result.append([0.0] * len(trajectory["rewards"]))
            continue
        if group_mean == "per_turn":
            baseline = statistics.fmean(value for values in others for value in values)
        else:
            baseline = statistics.fmean(statistics.fmean(values) for values in others)
        result.append([value - baseline for value in scores(trajectory, penalty)])
    return result


def grpo(group: list[Trajectory], penalty: float, group_mean: str, with_std: bool) -> list[list[float]]:
    if len(group) == 1:
        return [[0.0] * len(group[0]["rewards"])]
    table = [scores(trajectory, penalty) for trajectory in group]
    if group_mean == "per_turn":
        population = [value for values in table for value in values]
        mean, std = statistics.fmean(population), statistics.stdev(population)
    else:
        mean = statistics.fmean(statistics.fmean(values) for values in table)
        spread = math.fsum(statistics.fmean((value - mean) ** 2 for value in values) for values in table)
        std = math.sqrt(spread / (len(group) - 1))
    return [[(value - mean) / (std + 1e-6 if with_std else 1.0) for value in values] for values in table]


def gigpo(
    group: list[Trajectory], penalty: float, group_mean: str, with_std: bool, gamma: float, weight: float
) -> list[list[float]]:
    def rest(trajectory: Trajectory, turn: int) -> float:
        later = range(turn, len(trajectory["rewards"]))
        discounted = math.fsum(gamma ** (k - turn) * trajectory["rewards"][k] for k in later)
        return discounted - (penalty if trajectory["invalid"][turn] else 0.0)

    result = grpo(group, penalty, group_mean, with_std)
    for i, trajectory in enumerate(group):
        for t, anchor in enumerate(trajectory["anchors"]):
            cluster = [rest(other, u) for other in group for u, state in enumerate(other["anchors"]) if state == anchor]
            if len(cluster) > 1:
                scale = statistics.stdev(cluster) + 1e-6 if with_std else 1.0
                result[i][t] += weight * (rest(trajectory, t) - statistics.fmean(cluster)) / scale
    return result


def gae(trajectory: Trajectory, penalty: float, gamma: float, lam: float, final: float) -> list[float]:
    """The mixture of n-step advantages that defines GAE, not the recursion that computes it: with
    A^(n)_t = Σ_{k<n} γ^k r_{t+k} + γ^n V(s_{t+n}) - V(s_t), weights (1-λ)λ^(n-1), the last n having the rest."""
    rewards, values = trajectory["rewards"], [*trajectory["values"], final]
    total = len(rewards)
    result = []
    for t in range(total):
        longest = total - t
        advantage = 0.0
        for n in range(1, longest + 1):
            n_step = math.fsum(gamma**k * rewards[t + k] for k in range(n)) + gamma**n * values[t + n] - values[t]
            advantage += (lam ** (n - 1) if n == longest else (1 - lam) * lam ** (n - 1)) * n_step
        result.append(advantage - (penalty if trajectory["invalid"][t] else 0.0))
    return result


def random_group(rng: np.random.Generator, lengths: list[int], *, kind: str = "random") -> list[Trajectory]:
    """`kind`: "random" rewards of any turn, "sparse" (10 or 0 at the end), "equal" (the same total everywhere)."""
    group = []
    for length in lengths:
        if kind == "random":
            rewards = np.where(rng.random(length) < 0.4, rng.normal(size=length) * 5, 0.0).tolist()
        elif kind == "sparse":
            rewards = [0.0] * (length - 1) + [10.0 * float(rng.random() < 0.5)]
        else:
            rewards = [0.0] * (length - 1) + [0.1]
        group.append(
            {
                "rewards": rewards,
                "invalid": [bool(flag) for flag in rng.random(length) < 0.3],
                "anchors": [f"room {rng.integers(6)}" for _ in range(length)],
                "values": rng.normal(size=length).tolist(),
            }
        )
    return group
