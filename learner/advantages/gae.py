"""PPO's advantages: generalised advantage estimation over turns, and whitening over a batch.

Owns: `gae`, `value_targets`, `whiten`. Called through `learner.advantages.registry` and by `learner.samples`. Must not
know: tokens, torch, the critic.

A turn is the action, as in Turn-PPO (arXiv 2512.17008): the critic values the prompt of a turn, every token of the
reply shares the turn's advantage, and discounting is from turn to turn.

What comes after the last turn (Pardo et al. 2018, arXiv 1712.00378):
- the environment ended the episode: nothing, V = 0;
- `env.max_turns` ended it: nothing, V = 0 too (`ended` is True). The limit is part of the task here, not of the
  training: evaluation stops at the same turn and counts a failure, so a return that went on beyond it would be one that
  nobody gets. V then depends on the turns left. The prompt style "full" shows the number of turns taken; "compact"
  does not, so there the critic learns a mean over times, which costs variance and leaves the advantages' expectation;
- something outside the task cut it short (a time limit of training alone, a trajectory taken before its end): `ended`
  is False and `final_values` holds V of the state that would have come next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learner.advantages.group_turns import Float64, GroupTurns, penalties
from learner.settings import AdvantageSettings

WHITEN_FLOOR = 1e-8
"""Added to the standard deviation of a batch's advantages."""


def gae(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    """A_k = Σ_l (gamma * gae_lambda)^l δ_{k+l}, δ_k = r_k + gamma V(s_{k+1}) - V(s_k): G arrays [T_i], units of reward.

    An invalid turn's penalty is taken from its own A_k (METHOD section 5), not from r_k: turns before it do not answer
    for it, and V stays the value of the environment's rewards. ValueError without `group.values`. Source: Schulman et
    al. 2016 (arXiv 1506.02438), equation 16; over turns, Turn-PPO, arXiv 2512.17008.
    """
    return [
        advantages - penalty
        for advantages, penalty in zip(
            _without_penalty(group, settings), penalties(group, settings.invalid_penalty), strict=True
        )
    ]


def value_targets(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    """What the critic learns: V(s_k) + A_k without the penalty, the λ-return. G arrays [T_i], units of reward."""
    raw = _without_penalty(group, settings)
    return [values + advantages for values, advantages in zip(group.values or (), raw, strict=True)]


def whiten(advantages: Sequence[Float64]) -> list[Float64]:
    """(A - mean)/(std + 1e-8) over all turns of all arrays, each turn weighing the same; std without Bessel.

    To be given the whole step's advantages at once: over a part of them the result would depend on how they were
    split. All equal: all 0. Source: Andrychowicz et al. 2020 (arXiv 2006.05990), there over a minibatch.
    """
    if not advantages:
        return []
    flat = np.concatenate(list(advantages))
    if np.all(flat == flat[0]):
        return [np.zeros_like(values) for values in advantages]
    mean, scale = float(flat.mean()), float(flat.std()) + WHITEN_FLOOR
    return [(values - mean) / scale for values in advantages]


def _without_penalty(group: GroupTurns, settings: AdvantageSettings) -> list[Float64]:
    if group.values is None:
        raise ValueError('advantage.estimator = "gae" needs a critic: no values came with the group')
    result = []
    for index, (rewards, values) in enumerate(zip(group.rewards, group.values, strict=True)):
        following_value, following = _final_value(group, index), 0.0
        advantages = np.zeros(len(rewards), dtype=np.float64)
        for turn in range(len(rewards) - 1, -1, -1):
            delta = float(rewards[turn]) + settings.gamma * following_value - float(values[turn])
            following = delta + settings.gamma * settings.gae_lambda * following
            advantages[turn] = following
            following_value = float(values[turn])
        result.append(advantages)
    return result


def _final_value(group: GroupTurns, index: int) -> float:
    if group.ended[index]:
        return 0.0
    if group.final_values is None or not np.isfinite(group.final_values[index]):
        raise ValueError(
            f"gae: trajectory {index} was cut short (ended is False), so the finite value of what would have come next "
            f"is needed; final_values is {None if group.final_values is None else group.final_values[index]}"
        )
    return float(group.final_values[index])
