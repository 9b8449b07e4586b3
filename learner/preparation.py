"""What is settled before the first update of a step: groups, scores, values, advantages, corrections.

Owns: `prepare`. Called by `learner.learner`, on every rank with the same groups; every rank gets the same. Must not
know: optimizers, micro-batches, how scores are computed or shared between ranks.

Only what the settings need is computed: a forward pass of the policy for correction.proximal = "recomputed" or
loss.kl_in = "reward", one of the reference policy for the latter, one of the critic for an estimator that needs values.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from envs.records import Float32, Int32, TrainingSample, TrajectoryGroup
from learner.advantages.group_turns import Float64
from learner.critic import Critic
from learner.losses.correction import Correction, correct, correction_metrics, measure_correction
from learner.losses.kl import k3, kl_value
from learner.losses.measures import TokenSums
from learner.minibatch import Minibatches
from learner.samples import build_samples, judge, split_groups, turn_names, turn_samples
from learner.settings import Algorithm, CorrectionSettings, LossSettings

logger = logging.getLogger(__name__)

MISMATCH = ("mismatch_kl", "mismatch_log_ratio")


@dataclass(slots=True)
class Prepared:
    """`samples` for the policy. `prompts`, `values`, `targets`: of all turns, for the critic; empty without one."""

    samples: list[TrainingSample] = field(default_factory=list)
    prompts: list[Int32] = field(default_factory=list)
    values: Float64 = field(default_factory=lambda: np.zeros(0))
    targets: Float64 = field(default_factory=lambda: np.zeros(0))
    metrics: dict[str, float] = field(default_factory=dict)


def prepare(
    groups: Sequence[TrajectoryGroup],
    algorithm: Algorithm,
    minibatches: Minibatches,
    critic: Critic | None,
    version: int,
) -> Prepared:
    """With metrics: `groups_dropped` where `advantage.keep_groups` may drop some, those of the advantages,
    `reference_kl` where it is in the reward, those of the correction where it is settled here. No samples when every
    group was dropped. ValueError for groups that cannot be trained on."""
    if not groups:
        raise ValueError("a step needs at least one group, it has none")
    loss, is_recomputed = algorithm.loss, algorithm.correction.proximal == "recomputed"
    prepared = Prepared()
    kept, dropped = split_groups(groups, algorithm.advantage)
    if algorithm.advantage.keep_groups != "all":
        prepared.metrics["groups_dropped"] = float(len(dropped))
        names = ", ".join(group.id for group in dropped)
        logger.info("dropped by advantage.keep_groups = %s: %s", algorithm.advantage.keep_groups, names or "none")
    if not kept:
        return prepared
    kl_in_reward = loss.kl_coef > 0 and loss.kl_in == "reward"
    scored = turn_samples(kept) if kl_in_reward or is_recomputed else []
    logprobs = minibatches.score(scored)
    turn_kl = None
    if kl_in_reward:
        per_turn, prepared.metrics["reference_kl"] = _turn_kl(
            scored, logprobs, minibatches.score_reference(scored), loss
        )
        turn_kl = np.array([per_turn.get(name, 0.0) for name in turn_names(kept)])
    if critic is not None:
        prepared.prompts = [turn.prompt_ids for group in kept for one in group.trajectories for turn in one.turns]
        prepared.values = critic.values(prepared.prompts)
    judged = judge(
        kept, algorithm.advantage, turn_kl=turn_kl, kl_coef=loss.kl_coef,
        values=prepared.values if critic is not None else None,
    )  # fmt: skip
    prepared.targets = judged.targets
    prepared.samples, metrics = build_samples(
        kept, algorithm.advantage, filter_void_turns=algorithm.filter_void_turns, judged=judged
    )
    prepared.metrics |= metrics
    if is_recomputed and prepared.samples:
        proximal = {(sample.trajectory, sample.turn): one for sample, one in zip(scored, logprobs, strict=True)}
        prepared.samples, metrics = _corrected(prepared.samples, proximal, algorithm.correction, version)
        prepared.metrics |= metrics
    return prepared


def _turn_kl(
    samples: Sequence[TrainingSample], logprobs: Sequence[Float32], reference: Sequence[Float32], loss: LossSettings
) -> tuple[dict[tuple[str, int], float], float]:
    """Σ over the sampled tokens of each turn, nats, and the mean k3 of a token."""
    per_turn, total, count = {}, 0.0, 0
    for sample, ours, theirs in zip(samples, logprobs, reference, strict=True):
        mask = sample.loss_mask
        own, other = torch.from_numpy(ours[mask]).double(), torch.from_numpy(theirs[mask]).double()
        per_turn[sample.trajectory, sample.turn] = float(kl_value(own, other, loss.kl_estimator).sum())
        total, count = total + float(k3(other - own).sum()), count + len(own)
    return per_turn, total / max(count, 1)


def _corrected(
    samples: Sequence[TrainingSample],
    proximal: dict[tuple[str, int], Float32],
    settings: CorrectionSettings,
    version: int,
) -> tuple[list[TrainingSample], dict[str, float]]:
    """The samples with their proximal log-probabilities and importance weights; tokens that are out of bounds are
    masked, so the loss is divided by what is left."""
    lengths = [len(sample.response_ids) for sample in samples]
    ours = [proximal[sample.trajectory, sample.turn] for sample in samples]
    owners = torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(lengths))
    is_fresh = torch.tensor([sample.policy_version == version for sample in samples])[owners]
    mask = torch.from_numpy(np.concatenate([sample.loss_mask for sample in samples]))

    def corrected(mask: torch.Tensor) -> Correction:
        behaviour = torch.from_numpy(np.concatenate([sample.behaviour_logprobs for sample in samples]))
        return correct(torch.from_numpy(np.concatenate(ours)), behaviour, mask, owners, len(samples), settings)

    correction = corrected(mask)
    sums, fresh = TokenSums(), TokenSums()
    measure_correction(sums, correction, settings)
    measure_correction(fresh, corrected(mask & is_fresh), settings)
    of_fresh = correction_metrics(fresh)
    metrics = correction_metrics(sums) | {f"{name}_fresh": of_fresh[name] for name in MISMATCH if name in of_fresh}
    ends = np.cumsum(lengths)[:-1]
    kept, weights = np.split(correction.kept.numpy(), ends), np.split(correction.weights.numpy(), ends)
    result = [
        dataclasses.replace(
            sample,
            proximal_logprobs=ours[index],
            loss_mask=kept[index],
            corrections=weights[index] if settings.weight != "off" else None,
        )
        for index, sample in enumerate(samples)
    ]
    return result, metrics
