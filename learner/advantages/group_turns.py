"""What an advantage estimator sees of a group: rewards, flags, anchors and values of its turns.

Owns: `GroupTurns` and what is common to all estimators: returns, the penalty of invalid turns, KL in the reward. Called
by every estimator and by `learner.samples`, which fills it. Must not know: tokens, torch, how a group was played.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTurns:
    """G trajectories of one task, trajectory i with T_i ≥ 1 turns. ValueError where parts do not fit or are not finite.

    `rewards`: G arrays [T_i], the environment's, in its own unit. `invalid`: G arrays [T_i], whether the turn's reply
    was invalid. `anchors`: G sequences [T_i], the state that each turn began in (`learner.anchors`). `won` [G]: whether
    the task was solved. `ended` [G]: whether nothing comes after the last turn (see `learner.advantages.gae`).
    `values`: G arrays [T_i], the critic's V of each turn's prompt, in units of reward, or None without a critic.
    `final_values` [G]: V of what comes after the last turn, read only where `ended` is False.
    """

    rewards: Sequence[Float64]
    invalid: Sequence[Flags]
    anchors: Sequence[Sequence[str]]
    won: Sequence[bool]
    ended: Sequence[bool]
    values: Sequence[Float64] | None = None
    final_values: Sequence[float] | None = None

    def __post_init__(self) -> None:
        parts = {name: getattr(self, name) for name in self.__slots__}
        counts = {name: len(part) for name, part in parts.items() if part is not None}
        if len(set(counts.values())) > 1 or not self.rewards:
            raise ValueError(f"group: one entry a trajectory is needed, and at least one trajectory; got {counts}")
        for index in range(len(self.rewards)):
            per_turn = {
                "rewards": self.rewards,
                "invalid": self.invalid,
                "anchors": self.anchors,
                "values": self.values,
            }
            lengths = {name: len(part[index]) for name, part in per_turn.items() if part is not None}
            if len(set(lengths.values())) > 1 or not lengths["rewards"]:
                raise ValueError(
                    f"group: trajectory {index} has {lengths}; one of each per turn is needed, and at least one turn"
                )
            _check_finite(index, "reward", self.rewards[index], "drop the group and look at the environment")
            if self.values is not None:
                _check_finite(index, "value", self.values[index], "the critic has diverged: go back to a checkpoint")

    @property
    def num_turns(self) -> list[int]:
        """T_i of each trajectory."""
        return [len(rewards) for rewards in self.rewards]

    @property
    def totals(self) -> list[float]:
        """Σ_k r_{i,k} of each trajectory."""
        return [float(np.sum(rewards, dtype=np.float64)) for rewards in self.rewards]


def penalties(group: GroupTurns, penalty: float) -> list[Float64]:
    """`penalty` on each invalid turn, else 0: G arrays [T_i], in units of reward (METHOD section 5).

    It is taken from that turn's own score or advantage alone: turns before it did not write the invalid reply.
    """
    return [penalty * flags.astype(np.float64) for flags in group.invalid]


def discounted_returns(rewards: Float64, gamma: float) -> Float64:
    """rewards [T] -> R [T] with R_t = Σ_{k≥t} gamma^(k-t) rewards_k (METHOD section 5)."""
    returns = np.zeros(len(rewards), dtype=np.float64)
    following = 0.0
    for turn in range(len(rewards) - 1, -1, -1):
        following = float(rewards[turn]) + gamma * following
        returns[turn] = following
    return returns


def with_kl_in_reward(group: GroupTurns, turn_kl: Sequence[Float64], coef: float) -> GroupTurns:
    """The same group with r_k - coef * KL_k as rewards.

    `turn_kl`: G arrays [T_i], Σ over the turn's sampled tokens of an estimate of KL(π || reference) at the time of
    training (`learner.losses.kl.kl_value`), nats. The penalty is part of the return, so turns before it answer for it
    too, and `won` stays as it is. Source: Ouyang et al. 2022 (arXiv 2203.02155), equation 2, a turn instead of a token.
    """
    if [len(values) for values in turn_kl] != group.num_turns:
        raise ValueError(
            f"with_kl_in_reward: {[len(values) for values in turn_kl]} KL values for trajectories of "
            f"{group.num_turns} turns; one a turn is needed"
        )
    return dataclasses.replace(
        group, rewards=[rewards - coef * kl for rewards, kl in zip(group.rewards, turn_kl, strict=True)]
    )


def _check_finite(trajectory: int, what: str, values: Float64, remedy: str) -> None:
    if not np.all(np.isfinite(values)):
        turn = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(
            f"group: trajectory {trajectory}, turn {turn} has {what} {values[turn]}; {what}s must be finite: {remedy}"
        )
