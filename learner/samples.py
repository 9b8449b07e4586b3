"""From groups of trajectories to what is trained on, and what the groups say about the policy.

Owns: `build_samples` and the rollout metrics. Called by `learner.learner`. Must not know: torch, models,
queues.

One sample a turn (METHOD section 5): the accepted candidate only, forced tokens masked, the turn's
advantage on every response token. Rejected candidates count in the metrics and are not trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from envs.records import TrainingSample, Trajectory, TrajectoryGroup, Turn
from learner.advantage import gigpo
from learner.settings import AdvantageSettings


def build_samples(
    groups: Sequence[TrajectoryGroup], advantage: AdvantageSettings
) -> tuple[list[TrainingSample], dict[str, float]]:
    """TrainingSamples of all turns with at least one sampled token, in the order of the groups, and metrics."""
    if not groups:
        raise ValueError("build_samples: no groups; a step needs at least one")
    samples: list[TrainingSample] = []
    for group in groups:
        advantages = group_advantages(group, advantage)
        for trajectory, values in zip(group.trajectories, advantages, strict=True):
            for index, (turn, value) in enumerate(zip(trajectory.turns, values, strict=True)):
                if bool(np.all(turn.accepted.forced)):
                    continue
                samples.append(_sample(turn, float(value), f"{trajectory.id} turn {index}"))
    metrics = rollout_metrics(groups)
    per_turn = np.array([float(sample.advantages[0]) for sample in samples])
    if len(per_turn):
        metrics["advantage_abs_mean"] = float(np.abs(per_turn).mean())
        metrics["advantage_max"] = float(per_turn.max())
        metrics["advantage_min"] = float(per_turn.min())
    return samples, metrics


def group_advantages(group: TrajectoryGroup, settings: AdvantageSettings) -> list[np.ndarray]:
    """One advantage a turn: G arrays [T_i]."""
    turns = [trajectory.turns for trajectory in group.trajectories]
    try:
        return gigpo(
            [np.array([turn.reward for turn in ts], dtype=np.float64) for ts in turns],
            [np.array([not turn.valid for turn in ts], dtype=np.bool_) for ts in turns],
            [[turn.observation for turn in ts] for ts in turns],
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


def rollout_metrics(groups: Sequence[TrajectoryGroup]) -> dict[str, float]:
    """What the step's groups look like. Rates are shares of turns unless the name says otherwise."""
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    accepted = [turn.accepted for turn in turns]
    sampled = [~candidate.forced for candidate in accepted]
    rewards = np.array([trajectory.total_reward for trajectory in trajectories])
    metrics = {
        "groups": float(len(groups)),
        "trajectories": float(len(trajectories)),
        "turns": float(len(turns)),
        "success": _mean(trajectory.won for trajectory in trajectories),
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "groups_without_signal": _mean(_without_signal(group.trajectories) for group in groups),
        "turns_per_trajectory": len(turns) / len(trajectories),
        "turns_per_success": _mean(len(trajectory.turns) for trajectory in trajectories if trajectory.won),
        "tokens_per_trajectory": sum(len(candidate.token_ids) for candidate in accepted) / len(trajectories),
        "response_tokens_per_turn": _mean(len(candidate.token_ids) for candidate in accepted),
        "think_tokens_per_turn": _mean(candidate.num_think_tokens for candidate in accepted),
        "prompt_tokens_per_turn": _mean(len(turn.prompt_ids) for turn in turns),
        "invalid_rate": _mean(not turn.valid for turn in turns),
        "format_invalid_rate": _mean(not turn.format_valid for turn in turns),
        "truncated_rate": _mean(candidate.finish_reason == "length" for candidate in accepted),
        "tti_rate": _mean(candidate.fired == "uncertainty" for candidate in accepted),
        "think_cap_rate": _mean(candidate.fired == "cap" for candidate in accepted),
        "resamples_per_turn": _mean(len(turn.rejected) for turn in turns),
        "resampled_rate": _mean(len(turn.rejected) > 0 for turn in turns),
        "rejected_tokens_share": _rejected_share(turns),
        "phi_mean": _finite_mean(np.array([candidate.phi for candidate in accepted])),
        "gamma_mean": _finite_mean(np.array([candidate.gamma for candidate in accepted])),
    }
    if accepted:
        forced = np.concatenate([candidate.forced for candidate in accepted])
        metrics["forced_tokens_share"] = float(forced.mean()) if len(forced) else 0.0
        metrics["entropy_rollout"] = _finite_mean(
            np.concatenate([c.entropy[mask] for c, mask in zip(accepted, sampled, strict=True)])
        )
        metrics["uncertainty_mean"] = _finite_mean(
            np.concatenate([c.uncertainty[mask] for c, mask in zip(accepted, sampled, strict=True)])
        )
    # A metric without a measurement is left out: zero would be a claim.
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _without_signal(trajectories: Sequence[Trajectory]) -> bool:
    rewards = [trajectory.total_reward for trajectory in trajectories]
    return max(rewards) - min(rewards) < 1e-9


def _rejected_share(turns: Sequence[Turn]) -> float:
    rejected = sum(len(candidate.token_ids) for turn in turns for candidate in turn.rejected)
    accepted = sum(len(turn.accepted.token_ids) for turn in turns)
    return rejected / max(rejected + accepted, 1)


def _mean(values: Iterable[float]) -> float:
    listed = [float(value) for value in values]
    return sum(listed) / len(listed) if listed else float("nan")


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
