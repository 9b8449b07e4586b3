"""The learner: groups in, one update of the policy, weights out; saved and loaded exactly.

Owns: `Learner`, one rank of it. Called by `learner.learner_actor` (in a Ray process) and by tests (directly). Must not
know: Ray, queues, environments, inference engines, how a minibatch is divided.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from envs.records import TrainingSample, TrajectoryGroup
from learner.advantages.registry import needs_values
from learner.critic import Critic
from learner.engine import (
    DTYPES,
    StepResult,
    gathered,
    guarded_step,
    join_ranks,
    of_all_ranks,
    set_learning_rate,
    start_engine,
)
from learner.export import write_model_folder
from learner.lora import add_adapters, merged_weights
from learner.losses.correction import correction_metrics
from learner.losses.registry import find_loss
from learner.minibatch import Minibatches, StepSums
from learner.preparation import MISMATCH, Prepared, prepare
from learner.schedule import learning_rate
from learner.scoring import TokenScorer, load_policy, recompute_activations
from learner.settings import Algorithm, LearnerSettings
from learner.snapshot import load_snapshot, save_snapshot

MINIBATCH_STREAM = 0x6D62
"""Keeps the random order of minibatches apart from other uses of the run's seed."""
CRITIC_FOLDER = "critic"
"""Of the critic in a learner's checkpoint."""


class Learner:
    """One rank of the learner around the policy's DeepSpeed engine and, for estimators that need values, the critic's.

    `model_path` is a Hugging Face folder; with loss.kl_coef > 0 it is also the reference policy, and with LoRA the
    frozen part, so it must stay where it is when a run goes on. `num_steps`: of the whole run, for the learning rate.

    With several ranks every method is called on all of them, with the same arguments, in the same order; what comes
    back is the same on all of them, and files are written for all of them.
    """

    def __init__(
        self,
        model_path: str,
        settings: LearnerSettings,
        algorithm: Algorithm,
        seed: int,
        *,
        num_steps: int = 0,
        rank: int = 0,
        world_size: int = 1,
        address: str = "127.0.0.1",
        port: int = 0,
        store: torch.distributed.Store | None = None,
    ) -> None:
        torch.set_num_threads(settings.num_threads)
        torch.manual_seed(seed)
        self._settings = settings
        self._algorithm = algorithm
        find_loss(algorithm.loss.policy)  # one's own that cannot be loaded is said before anything is played
        self._num_steps = num_steps
        self._seed = seed
        self._updates = 0
        self._updates_skipped = 0
        join_ranks(rank, world_size, address, port, store)
        dtype = DTYPES[settings.dtype]
        self._policy = load_policy(model_path, dtype)
        self._tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
        if settings.activation_checkpointing:
            recompute_activations(self._policy)
        if settings.lora_rank:
            add_adapters(self._policy, settings)
        self._engine = start_engine(
            TokenScorer(self._policy), lr=settings.lr, weight_decay=settings.weight_decay,
            grad_clip=settings.grad_clip, dtype=settings.dtype, zero_stage=settings.zero_stage,
            offload=settings.offload,
        )  # fmt: skip
        reference: TokenScorer | None = None
        if algorithm.loss.kl_coef > 0 and not settings.lora_rank:
            reference = TokenScorer(load_policy(model_path, dtype)).requires_grad_(False)
            reference.to(self._engine.device)
        self._minibatches = Minibatches(self._engine, settings, algorithm, reference)
        has_critic = needs_values(algorithm.advantage.estimator)
        self._critic = Critic(model_path, settings, algorithm.critic, seed) if has_critic else None

    @property
    def updates(self) -> int:
        """Optimizer updates so far, skipped ones not counted."""
        return self._updates

    def train_step(self, groups: Sequence[TrajectoryGroup], version: int) -> dict[str, float]:
        """Train on `groups`; `version` is the policy version that the learner holds (the next one is + 1).

        Metrics, of all ranks together: those of what was prepared (`learner.preparation`), of the loss
        (`learner.losses.measures`), of the critic (`learner.critic`), and `policy_loss`, the mean of the minibatches';
        those of the correction (`learner.losses.correction`; before the first update, `mismatch_kl_fresh` and
        `mismatch_log_ratio_fresh` on samples of this version only), `grad_norm`, `lr`, `updates`, `updates_skipped`,
        `padding_share`, `train_tokens`, `train_s`, `train_tokens_per_s`.
        """
        start = time.monotonic()
        prepared = prepare(groups, self._algorithm, self._minibatches, self._critic, version)
        metrics = dict(prepared.metrics)
        sums, steps, lr = self._train_policy(prepared, version)
        if self._critic is not None and prepared.prompts:
            metrics |= self._critic.train(
                prepared.prompts, prepared.values, prepared.targets, version=version, progress=self._progress(version)
            )
        duration = time.monotonic() - start
        metrics |= sums.all.means()
        metrics |= correction_metrics(sums.first)
        fresh = correction_metrics(sums.fresh)
        metrics |= {f"{name}_fresh": fresh[name] for name in MISMATCH if name in fresh}
        if steps:
            metrics["policy_loss"] = sums.loss / len(steps)
        if applied := [step.grad_norm for step in steps if step.applied]:
            metrics["grad_norm"] = float(np.mean(applied))
        metrics.update(
            lr=lr,
            updates=float(len(applied)),
            updates_skipped=float(len(steps) - len(applied)),
            updates_skipped_total=float(self._updates_skipped),
            samples=float(len(prepared.samples)),
            train_tokens=float(sums.tokens),
            padding_share=1.0 - sums.fed / max(sums.cells, 1),
            train_s=duration,
            train_tokens_per_s=sums.tokens / max(duration, 1e-9),
        )
        return metrics

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the weights that the forward pass uses: Hugging Face names, settings.dtype, CPU; no tied head.

        Empty on all ranks but the first: ZeRO stage 3 needs them to gather the weights, nobody needs their copies.
        """
        with gathered(self._engine):
            if torch.distributed.get_rank() > 0:
                return {}
            state = {
                name: tensor.detach().to("cpu", copy=True).contiguous()
                for name, tensor in merged_weights(self._policy).items()
            }
        if self._policy.config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        return state

    def save(self, folder: Path) -> None:
        """Write everything needed to go on bit by bit: weights, optimizer, counters, random states."""
        if self._critic is not None:
            self._critic.save(Path(folder) / CRITIC_FOLDER)
        counters = {"updates": self._updates, "updates_skipped": self._updates_skipped}
        save_snapshot(self._engine, Path(folder), counters)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote, on any number of ranks; SnapshotError when it is incomplete or does not fit."""
        if self._critic is not None:
            self._critic.load(Path(folder) / CRITIC_FOLDER)
        counters = load_snapshot(self._engine, Path(folder), self._minibatches.touch)
        self._updates = counters["updates"]
        self._updates_skipped = counters["updates_skipped"]

    def export(self, folder: Path) -> None:
        """Write a plain Hugging Face folder with the tokenizer, completely or not at all."""
        with gathered(self._engine):
            if torch.distributed.get_rank() == 0:
                write_model_folder(Path(folder), self._policy, self._tokenizer, merged_weights(self._policy))
        of_all_ranks(None)

    def _train_policy(self, prepared: Prepared, version: int) -> tuple[StepSums, list[StepResult], float]:
        """The updates of one step: what was seen, what became of each, the last learning rate. None while the critic
        warms up."""
        own, steps = StepSums(), []
        is_first, lr = True, learning_rate(self._settings, self._updates, self._progress(version))
        warms_up = self._critic is not None and version < self._algorithm.critic.warmup_steps
        for epoch in range(0 if warms_up else self._settings.epochs):
            for minibatch in self._minibatches_of(prepared.samples, version, epoch):
                if self._minibatches.accumulate(minibatch, own, version, before_updates=is_first):
                    lr = learning_rate(self._settings, self._updates, self._progress(version))
                    steps.append(self._update(lr))
                is_first = False
        return own.over_ranks(), steps, lr

    def _minibatches_of(
        self, samples: Sequence[TrainingSample], version: int, epoch: int
    ) -> list[list[TrainingSample]]:
        """The samples in random order, the same on every rank, in `minibatches` parts."""
        rng = np.random.default_rng([self._seed, MINIBATCH_STREAM, version, epoch])
        parts = np.array_split(rng.permutation(len(samples)), self._settings.minibatches)
        return [[samples[index] for index in part.tolist()] for part in parts if len(part)]

    def _update(self, lr: float) -> StepResult:
        set_learning_rate(self._engine, lr)
        result = guarded_step(self._engine)
        self._updates += result.applied
        self._updates_skipped += not result.applied
        return result

    def _progress(self, version: int) -> float:
        """Share of the run that is behind when step `version` begins; the last step is at 1."""
        return version / (self._num_steps - 1) if self._num_steps > 1 else 0.0
