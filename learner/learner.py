"""The learner: groups in, one update of the policy, weights out; saved and loaded exactly.

Owns: `Learner`. Called by `learner.learner_actor` (in a Ray process) and by tests (directly). Must not
know: Ray, queues, environments, inference engines.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from envs.records import TrainingSample, TrajectoryGroup
from learner.engine import DTYPES, StepResult, gathered, guarded_step, join_ranks, set_learning_rate, start_engine
from learner.export import write_model_folder
from learner.loss import LossSums, policy_loss
from learner.packing import PackedBatch, pack
from learner.samples import build_samples
from learner.scoring import TokenScorer, load_policy
from learner.settings import AdvantageSettings, LearnerSettings
from learner.snapshot import load_snapshot, save_snapshot

MINIBATCH_STREAM = 0x6D62
"""Keeps the random order of minibatches apart from other uses of the run's seed."""


class Learner:
    """One rank of the learner around one DeepSpeed engine.

    `model_path` is a Hugging Face folder; with kl_coef > 0 it is also the reference policy, so it must
    stay where it is when a run goes on.
    """

    def __init__(
        self,
        model_path: str,
        settings: LearnerSettings,
        advantage: AdvantageSettings,
        seed: int,
        *,
        filter_void_turns: bool = False,
        rank: int = 0,
        world_size: int = 1,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        torch.set_num_threads(settings.num_threads)
        torch.manual_seed(seed)
        self._model_path = model_path
        self._settings = settings
        self._advantage = advantage
        self._filter_void_turns = filter_void_turns
        self._seed = seed
        self._updates = 0
        self._updates_skipped = 0
        join_ranks(rank, world_size, address, port)
        dtype = DTYPES[settings.dtype]
        self._policy = load_policy(model_path, dtype)
        self._tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
        self._engine = start_engine(
            TokenScorer(self._policy), lr=settings.lr, weight_decay=settings.weight_decay,
            grad_clip=settings.grad_clip, dtype=settings.dtype, zero_stage=settings.zero_stage,
        )  # fmt: skip
        self._reference: TokenScorer | None = None
        if settings.kl_coef > 0:
            self._reference = TokenScorer(load_policy(model_path, dtype)).requires_grad_(False)
            self._reference.to(self._engine.device)

    @property
    def updates(self) -> int:
        """Optimizer updates so far, skipped ones not counted."""
        return self._updates

    def train_step(self, groups: Sequence[TrajectoryGroup], version: int) -> dict[str, float]:
        """Train on `groups`; `version` is the policy version that the learner holds (the next one is + 1).

        Metrics: those of the advantages (`learner.samples`), of the loss (`learner.loss`), and
        `mismatch_kl`, `mismatch_log_ratio` (KL(behaviour || learner) by k3 and the plain mean log-ratio,
        nats a token, before the first update; `mismatch_kl_fresh` on samples of this version only),
        `grad_norm`, `lr`, `updates`, `updates_skipped`, `padding_share`, `train_tokens`, `train_s`,
        `train_tokens_per_s`.
        """
        start = time.monotonic()
        samples, metrics = build_samples(groups, self._advantage, filter_void_turns=self._filter_void_turns)
        sums, first, fresh = LossSums(), LossSums(), LossSums()
        steps: list[StepResult] = []
        tokens, cells, real = 0, 0, 0
        for epoch in range(self._settings.epochs):
            rng = np.random.default_rng([self._seed, MINIBATCH_STREAM, version, epoch])
            for members in np.array_split(rng.permutation(len(samples)), self._settings.minibatches):
                if len(members) == 0:
                    continue
                minibatch = [samples[index] for index in members.tolist()]
                before_updates = not steps and epoch == 0 and sums.tokens == 0
                batches, has_signal = self._accumulate(
                    minibatch, sums, first if before_updates else None, fresh if before_updates else None, version
                )
                tokens += sum(batch.num_sequence_tokens for batch in batches)
                cells += sum(batch.input_ids.numel() for batch in batches)
                real += sum(batch.num_tokens for batch in batches)
                if has_signal:
                    steps.append(self._update())
        duration = time.monotonic() - start
        loss_means = sums.means()
        metrics.update(loss_means)
        for prefix, source in (("", first.means()), ("_fresh", fresh.means())):
            if source:
                metrics[f"mismatch_kl{prefix}"] = source["approx_kl"]
                metrics[f"mismatch_log_ratio{prefix}"] = source["log_ratio_mean"]
        if steps:
            metrics["grad_norm"] = float(np.mean([step.grad_norm for step in steps]))
        metrics.update(
            lr=self._learning_rate(),
            updates=float(sum(step.applied for step in steps)),
            updates_skipped=float(sum(not step.applied for step in steps)),
            updates_skipped_total=float(self._updates_skipped),
            samples=float(len(samples)),
            train_tokens=float(tokens),
            padding_share=1.0 - real / max(cells, 1),
            train_s=duration,
            train_tokens_per_s=tokens / max(duration, 1e-9),
        )
        return metrics

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the weights that the forward pass uses: Hugging Face names, settings.dtype, CPU; no tied head."""
        with gathered(self._engine):
            state = {
                name: tensor.detach().to("cpu", copy=True).contiguous()
                for name, tensor in self._policy.state_dict().items()
            }
        if self._policy.config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        return state

    def save(self, folder: Path) -> None:
        """Write everything needed to go on bit by bit: weights, optimizer, counters, random states."""
        counters = {"updates": self._updates, "updates_skipped": self._updates_skipped}
        save_snapshot(self._engine, Path(folder), counters)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote; SnapshotError when it is incomplete or from another model."""
        counters = load_snapshot(self._engine, Path(folder))
        self._updates = counters["updates"]
        self._updates_skipped = counters["updates_skipped"]

    def export(self, folder: Path) -> None:
        """Write a plain Hugging Face folder with the tokenizer, completely or not at all."""
        with gathered(self._engine):
            write_model_folder(Path(folder), self._policy, self._tokenizer)

    def _accumulate(
        self,
        minibatch: list[TrainingSample],
        sums: LossSums,
        first: LossSums | None,
        fresh: LossSums | None,
        version: int,
    ) -> tuple[list[PackedBatch], bool]:
        """Gradients of one minibatch. Returns its batches and whether any sample had a gradient.

        Samples whose advantage is exactly 0 have none unless KL or entropy are in the loss: they are
        only measured, forward, which saves two thirds of their cost and changes nothing in the sum.
        """
        settings = self._settings
        every_sample_counts = settings.kl_coef > 0 or settings.entropy_coef > 0
        parts: dict[bool, list[TrainingSample]] = {True: [], False: []}
        for sample in minibatch:
            parts[every_sample_counts or bool(np.any(sample.advantages[sample.loss_mask] != 0.0))].append(sample)
        normaliser = float(sum(int(sample.loss_mask.sum()) for sample in minibatch))
        done: list[PackedBatch] = []
        for train, part in parts.items():
            for batch in pack([(s.prompt_ids, s.response_ids) for s in part], settings.micro_batch_tokens):
                self._micro_batch(batch, part, normaliser, train, sums, first, fresh, version)
                done.append(batch)
        return done, bool(parts[True])

    def _micro_batch(
        self,
        batch: PackedBatch,
        samples: list[TrainingSample],
        normaliser: float,
        train: bool,
        sums: LossSums,
        first: LossSums | None,
        fresh: LossSums | None,
        version: int,
    ) -> None:
        settings, device = self._settings, self._engine.device
        behaviour = batch.in_order([s.behaviour_logprobs for s in samples]).to(device)
        advantages = batch.in_order([s.advantages for s in samples]).to(device)
        mask = batch.in_order([s.loss_mask for s in samples]).to(device)
        inputs = (batch.input_ids.to(device), batch.positions.to(device), batch.targets.to(device))
        reference = None
        if self._reference is not None:
            with torch.no_grad():
                reference, _ = self._reference(*inputs)
        with torch.set_grad_enabled(train):
            logprobs, entropy = self._engine(*inputs, "loss" if settings.entropy_coef > 0 else "metric")
        if train:
            loss = policy_loss(
                logprobs, behaviour, advantages, mask, normaliser, settings,
                entropy=entropy, reference_logprobs=reference,
            )  # fmt: skip
            self._engine.backward(loss, scale_wrt_gas=False)
        for target in (sums, first):
            if target is not None:
                target.add(logprobs, behaviour, advantages, mask, settings, entropy, reference)
        if fresh is not None:
            is_fresh = batch.in_order(
                [np.full(len(s.response_ids), s.policy_version == version, dtype=np.bool_) for s in samples]
            ).to(device)
            fresh.add(logprobs, behaviour, advantages, mask & is_fresh, settings)

    def _update(self) -> StepResult:
        set_learning_rate(self._engine, self._learning_rate())
        result = guarded_step(self._engine)
        self._updates += result.applied
        self._updates_skipped += not result.applied
        return result

    def _learning_rate(self) -> float:
        """Of the next update: linear warm-up, then constant."""
        warmup = self._settings.lr_warmup_steps
        return self._settings.lr * min(1.0, (self._updates + 1) / (warmup + 1))
