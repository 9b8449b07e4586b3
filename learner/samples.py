"""From groups of trajectories to what is trained on.

Owns: `build_samples`. Called by `learner.learner`. Must not know: torch, models, queues, and what else the
groups say about the policy (`controller.metrics` reduces that).

One sample a turn (METHOD section 5): the accepted candidate only, forced tokens masked, the turn's
advantage on every response token. Rejected candidates are not trained on.

The void-turn filter (SimpleTIR, arXiv 2509.02479; an ablation in the T²PO paper) leaves out whole trajectories with a
turn that holds no action; they still count in their group's statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.environment import find_environment
from envs.records import TrainingSample, Trajectory, TrajectoryGroup, Turn
from learner.advantage import gigpo
from learner.anchors import anchor_states
from learner.settings import AdvantageSettings


def build_samples(
    groups: Sequence[TrajectoryGroup], advantage: AdvantageSettings, *, filter_void_turns: bool = False
) -> tuple[list[TrainingSample], dict[str, float]]:
    """TrainingSamples of all turns with at least one sampled token, in the order of the groups, and what there is to
    say about their advantages."""
    if not groups:
        raise ValueError("build_samples: no groups; a step needs at least one")
    samples: list[TrainingSample] = []
    num_void = 0
    for group in groups:
        advantages = group_advantages(group, advantage)
        for trajectory, values in zip(group.trajectories, advantages, strict=True):
            if filter_void_turns and is_void(trajectory):
                num_void += 1
                continue
            for index, (turn, value) in enumerate(zip(trajectory.turns, values, strict=True)):
                if bool(np.all(turn.accepted.forced)):
                    continue
                samples.append(_sample(turn, float(value), f"{trajectory.id} turn {index}"))
    metrics = {}
    if filter_void_turns:
        metrics["void_trajectories"] = num_void / sum(len(group.trajectories) for group in groups)
    per_turn = np.array([float(sample.advantages[0]) for sample in samples])
    if len(per_turn):  # a metric without a measurement is left out: zero would be a claim
        metrics["advantage_abs_mean"] = float(np.abs(per_turn).mean())
        metrics["advantage_max"] = float(per_turn.max())
        metrics["advantage_min"] = float(per_turn.min())
    return samples, metrics


def is_void(trajectory: Trajectory) -> bool:
    """Whether a turn of it holds no action."""
    parse = find_environment(trajectory.task.env).parse
    return any(not parse(turn.accepted.text).has_action for turn in trajectory.turns)


def group_advantages(group: TrajectoryGroup, settings: AdvantageSettings) -> list[np.ndarray]:
    """One advantage a turn: G arrays [T_i]."""
    turns = [trajectory.turns for trajectory in group.trajectories]
    try:
        return gigpo(
            [np.array([turn.reward for turn in ts], dtype=np.float64) for ts in turns],
            [np.array([not turn.valid for turn in ts], dtype=np.bool_) for ts in turns],
            anchor_states([[turn.observation for turn in ts] for ts in turns], settings.anchor_similarity),
            settings,
        )
    except ValueError as error:
        raise ValueError(f"group {group.id}: {error}") from error


def _sample(turn: Turn, advantage: float, place: str) -> TrainingSample:
    candidate = turn.accepted
    mask = ~candidate.forced
    if not np.all(np.isfinite(candidate.logprobs[mask])):
        raise ValueError(
            f"{place}: the behaviour log-probability of a sampled token is not finite; "
            "the inference engine returned garbage: drop the group and check the engine's weights"
        )
    return TrainingSample(
        prompt_ids=turn.prompt_ids,
        response_ids=candidate.token_ids,
        loss_mask=mask,
        behaviour_logprobs=np.where(mask, candidate.logprobs, 0.0).astype(np.float32),
        advantages=np.full(len(candidate.token_ids), advantage, dtype=np.float32),
        policy_version=candidate.min_version,
    )
