"""From groups of trajectories to what is trained on.

Owns: which groups are kept, `judge` (advantages and value targets), `build_samples`. Called by `learner.preparation`.
Must not know: torch, models, queues, and what else the groups say about the policy (`controller.metrics` reduces that).

One sample a turn (METHOD section 5): the accepted candidate only, forced tokens masked, the turn's
advantage on every response token. Rejected candidates are not trained on.

The void-turn filter (SimpleTIR, arXiv 2509.02479; an ablation in the T²PO paper) leaves out whole trajectories with a
turn that holds no action; they still count in their group's statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from envs.environment import find_environment
from envs.records import TrainingSample, Trajectory, TrajectoryGroup, Turn
from learner.advantages.gae import value_targets, whiten
from learner.advantages.group_filter import is_kept
from learner.advantages.group_turns import Float64, GroupTurns, with_kl_in_reward
from learner.advantages.registry import estimate
from learner.anchors import anchor_states
from learner.settings import AdvantageSettings


@dataclass(frozen=True, slots=True)
class Judged:
    """`advantages`: one array [T] a trajectory, group after group. `targets` [K]: what the critic learns of all K
    turns in the same order; empty without values."""

    advantages: list[Float64]
    targets: Float64


def split_groups(
    groups: Sequence[TrajectoryGroup], settings: AdvantageSettings
) -> tuple[list[TrajectoryGroup], list[TrajectoryGroup]]:
    """Those that `settings.keep_groups` keeps, and the others."""
    kept: list[TrajectoryGroup] = []
    dropped: list[TrajectoryGroup] = []
    for group in groups:
        is_dropped = settings.keep_groups != "all" and not is_kept(_turns_of(group), settings)
        (dropped if is_dropped else kept).append(group)
    return kept, dropped


def judge(
    groups: Sequence[TrajectoryGroup],
    settings: AdvantageSettings,
    *,
    values: Float64 | None = None,
    turn_kl: Float64 | None = None,
    kl_coef: float = 0.0,
) -> Judged:
    """Advantages of every turn. `values` [K]: the critic's, of all turns of all groups in order; `turn_kl` [K]: nats,
    taken from the rewards times `kl_coef`. ValueError names the group."""
    advantages: list[Float64] = []
    targets: list[Float64] = []
    begin = 0
    for group in groups:
        ends = begin + np.cumsum([len(trajectory.turns) for trajectory in group.trajectories])
        parts = {name: _split(flat, begin, ends) for name, flat in (("values", values), ("kl", turn_kl))}
        begin = int(ends[-1])
        observations = [[turn.observation for turn in trajectory.turns] for trajectory in group.trajectories]
        try:
            turns = _turns_of(group, anchor_states(observations, settings.anchor_similarity), parts["values"])
            if parts["kl"] is not None:
                turns = with_kl_in_reward(turns, parts["kl"], kl_coef)
            advantages += estimate(turns, settings)
            if values is not None:
                targets += value_targets(turns, settings)
        except ValueError as error:
            raise ValueError(f"group {group.id}: {error}") from error
    if settings.whiten:
        advantages = whiten(advantages)
    return Judged(advantages, np.concatenate(targets) if targets else np.zeros(0))


def build_samples(
    groups: Sequence[TrajectoryGroup],
    advantage: AdvantageSettings,
    *,
    filter_void_turns: bool = False,
    judged: Judged | None = None,
) -> tuple[list[TrainingSample], dict[str, float]]:
    """TrainingSamples of all turns with at least one sampled token, in the order of the groups, and what there is to
    say about their advantages. `judged` None: `judge` without a critic."""
    if not groups:
        raise ValueError("build_samples: no groups; a step needs at least one")
    advantages = (judged or judge(groups, advantage)).advantages
    trajectories = list(_trajectories(groups))
    void = {trajectory.id for trajectory in trajectories if is_void(trajectory)} if filter_void_turns else set()
    samples = [
        _sample(trajectory, index, float(value))
        for trajectory, values in zip(trajectories, advantages, strict=True)
        for index, value in enumerate(values)
        if trajectory.id not in void and _is_sampled(trajectory.turns[index])
    ]
    metrics = {}
    if filter_void_turns:
        metrics["void_trajectories"] = len(void) / len(trajectories)
    per_turn = np.array([float(sample.advantages[0]) for sample in samples])
    if len(per_turn):  # a metric without a measurement is left out: zero would be a claim
        metrics["advantage_abs_mean"] = float(np.abs(per_turn).mean())
        metrics["advantage_max"] = float(per_turn.max())
        metrics["advantage_min"] = float(per_turn.min())
    return samples, metrics


def turn_samples(groups: Sequence[TrajectoryGroup]) -> list[TrainingSample]:
    """All turns with a sampled token, before there are advantages (they are 0): to be scored."""
    return [
        _sample(trajectory, index, 0.0)
        for trajectory in _trajectories(groups)
        for index, turn in enumerate(trajectory.turns)
        if _is_sampled(turn)
    ]


def turn_names(groups: Sequence[TrajectoryGroup]) -> list[tuple[str, int]]:
    """(trajectory, number) of all turns, in order."""
    return [(trajectory.id, i) for trajectory in _trajectories(groups) for i in range(len(trajectory.turns))]


def is_void(trajectory: Trajectory) -> bool:
    """Whether a turn of it holds no action."""
    parse = find_environment(trajectory.task.env).parse
    return any(not parse(turn.accepted.text).has_action for turn in trajectory.turns)


def _trajectories(groups: Sequence[TrajectoryGroup]) -> Iterator[Trajectory]:
    return (trajectory for group in groups for trajectory in group.trajectories)


def _turns_of(
    group: TrajectoryGroup, anchors: Sequence[Sequence[str]] | None = None, values: Sequence[Float64] | None = None
) -> GroupTurns:
    """Without `anchors`: all turns in one state. Every trajectory has ended (`learner.advantages.gae`)."""
    turns = [trajectory.turns for trajectory in group.trajectories]
    return GroupTurns(
        rewards=[np.array([turn.reward for turn in ts], dtype=np.float64) for ts in turns],
        invalid=[np.array([not turn.valid for turn in ts], dtype=np.bool_) for ts in turns],
        anchors=[[""] * len(ts) for ts in turns] if anchors is None else anchors,
        won=[trajectory.won for trajectory in group.trajectories],
        ended=[True] * len(turns),
        values=values,
    )


def _split(flat: Float64 | None, begin: int, ends: np.ndarray) -> list[Float64] | None:
    return None if flat is None else np.split(flat[begin : ends[-1]], ends[:-1] - begin)


def _is_sampled(turn: Turn) -> bool:
    return not bool(np.all(turn.accepted.forced))


def _sample(trajectory: Trajectory, index: int, advantage: float) -> TrainingSample:
    turn = trajectory.turns[index]
    candidate = turn.accepted
    mask = ~candidate.forced
    if not np.all(np.isfinite(candidate.logprobs[mask])):
        raise ValueError(
            f"{trajectory.id} turn {index}: the behaviour log-probability of a sampled token is not finite; "
            "the inference engine returned garbage: drop the group and check the engine's weights"
        )
    return TrainingSample(
        prompt_ids=turn.prompt_ids,
        response_ids=candidate.token_ids,
        loss_mask=mask,
        behaviour_logprobs=np.where(mask, candidate.logprobs, 0.0).astype(np.float32),
        advantages=np.full(len(candidate.token_ids), advantage, dtype=np.float32),
        policy_version=candidate.min_version,
        trajectory=trajectory.id,
        turn=index,
    )
