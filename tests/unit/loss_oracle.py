"""Slow losses in plain Python, token by token, written from the formulas: what `learner.losses` is compared with.

A case is a list of sequences; a sequence is a list of tokens; a token a dictionary of numbers. Nothing is shared with
the code under test but the documented bound e^±20.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Token = dict[str, Any]
BOUND = 20.0


def bounded_exp(x: float) -> float:
    return math.exp(min(max(x, -BOUND), BOUND))


def surrogate(ratio: float, advantage: float, low: float, high: float, dual: float) -> float:
    """The loss: minus PPO's objective."""
    objective = min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
    if advantage < 0 and dual:
        objective = max(objective, dual * advantage)
    return -objective


def losses(case: list[list[Token]], policy: str, low: float, high: float, dual: float) -> list[float]:
    """The loss of each token, sequence after sequence; 0 where forced."""
    result = []
    for sequence in case:
        trained = [t for t in sequence if t["mask"]]
        mean = math.fsum(t["logprob"] - t["proximal"] for t in trained) / len(trained) if trained else 0.0
        for token in sequence:
            if not token["mask"]:
                result.append(0.0)
                continue
            ratio = bounded_exp(mean if policy == "sequence_ratio" else token["logprob"] - token["proximal"])
            if policy == "unclipped":
                result.append(-ratio * token["advantage"])
            else:
                result.append(surrogate(ratio, token["advantage"], low, high, dual))
    return result


def kl(logprob: float, reference: float, estimator: str) -> float:
    x = logprob - reference
    if estimator == "k1":
        return x
    if estimator == "k2":
        return x * x / 2
    y = min(max(-x, -BOUND), BOUND)
    return math.exp(y) - 1 - y


def weights(case: list[list[Token]], aggregation: str, budget: int, trajectories: list[str]) -> list[float]:
    """The loss written as nested means, read off token by token."""
    counts = [sum(t["mask"] for t in sequence) for sequence in case]
    turns = sum(count > 0 for count in counts)
    alive = {name for name, count in zip(trajectories, counts, strict=True) if count}
    result = []
    for index, sequence in enumerate(case):
        for token in sequence:
            if not token["mask"]:
                result.append(0.0)
            elif aggregation == "token_mean":
                result.append(1 / sum(counts))
            elif aggregation == "sequence_mean":
                result.append(1 / turns / counts[index])
            elif aggregation == "constant":
                result.append(1 / turns / budget)
            else:
                mine = sum(c for name, c in zip(trajectories, counts, strict=True) if name == trajectories[index])
                result.append(1 / len(alive) / mine)
    return result


def correction(
    case: list[list[Token]], weight: str, weight_max: float, mask: str, low: float, high: float
) -> list[tuple[float, bool]]:
    """(factor, kept) of each token."""
    result = []
    for sequence in case:
        trained = [t["proximal"] - t["behaviour"] for t in sequence if t["mask"]]
        total = math.fsum(trained)
        levels = {"sequence": bounded_exp(total), "geometric": bounded_exp(total / max(len(trained), 1))}
        for token in sequence:
            if not token["mask"]:
                result.append((0.0, False))
                continue
            levels["token"] = bounded_exp(token["proximal"] - token["behaviour"])
            kept = mask == "off" or low <= levels[mask] <= high
            factor = 1.0 if weight == "off" else min(levels[weight], weight_max)
            result.append((factor if kept else 0.0, kept))
    return result


def random_case(seed: int, lengths: list[int], spread: float = 0.3, forced: float = 0.2) -> list[list[Token]]:
    """Random tokens; `spread`: of the log-ratios; `forced`: share of forced tokens (1: all)."""
    rng = np.random.default_rng(seed)
    case = []
    for length in lengths:
        sequence = []
        for _ in range(length):
            proximal = -float(rng.exponential(2.0))
            sequence.append(
                {
                    "proximal": proximal,
                    "logprob": proximal + spread * float(rng.normal()),
                    "behaviour": proximal + spread * float(rng.normal()),
                    "reference": proximal + float(rng.normal()),
                    "entropy": float(rng.random()),
                    "advantage": 5 * float(rng.normal()),
                    "mask": bool(rng.random() >= forced),
                }
            )
        case.append(sequence)
    return case
