"""The critic of PPO: a value for the prompt of every turn, learned beside the policy.

Owns: `Critic`, `ValueScorer`. Called by `learner.learner` and, for values, `learner.preparation`. Must not know: the
policy, advantages, how targets were made.

A transformer of its own, begun as a copy of the policy's starting weights, with a scalar head that begins at zero:
before the first update every value is 0. It is read at the last token of the prompt, where the turn's state is complete
and nothing of the reply is known, so only prompts are fed in. All its weights are trained, also when the policy has
LoRA. Its engine is the policy's kind (ZeRO stage, number format, offload), with its own learning rate, decay and clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from envs.records import Int32
from learner.advantages.group_turns import Float64
from learner.engine import (
    DTYPES,
    backward,
    guarded_step,
    in_lockstep,
    of_all_ranks,
    set_learning_rate,
    start_engine,
)
from learner.losses.value import value_losses
from learner.packing import PackedBatch, pack_for_rank
from learner.schedule import learning_rate
from learner.scoring import load_policy, recompute_activations
from learner.settings import CriticSettings, LearnerSettings
from learner.snapshot import load_snapshot, save_snapshot

MINIBATCH_STREAM = 0x6372
"""Keeps the random order of the critic's minibatches apart from other uses of the run's seed."""
_NEXT = np.zeros(1, dtype=np.int32)
"""A token after the prompt: never fed in, it makes the prompt's last token the one that is scored."""


class ValueHead(nn.Linear):
    """hidden [N, H] -> values [N], computed in fp32 whatever the format of the weights."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.float()
        return nn.functional.linear(hidden.float(), self.weight.float(), bias).squeeze(-1)


class ValueScorer(nn.Module):
    """input_ids [B, L], positions [N] in the flattened grid -> values [N] fp32, in units of reward."""

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.body = policy.get_decoder()
        self.head = ValueHead(policy.config.hidden_size, 1).to(policy.dtype)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        hidden = self.body(input_ids=input_ids, use_cache=False).last_hidden_state
        values: torch.Tensor = self.head(hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions))
        return values


class Critic:
    """One rank's part of it. Every method is called by all ranks, with the same arguments, in the same order."""

    def __init__(self, model_path: str, learner: LearnerSettings, settings: CriticSettings, seed: int) -> None:
        """`model_path`: the policy's Hugging Face folder."""
        self._learner = learner.model_copy(update={"lr": settings.lr})
        self._settings = settings
        self._seed = seed
        self._updates = 0
        policy = load_policy(model_path, DTYPES[learner.dtype])
        if learner.activation_checkpointing:
            recompute_activations(policy)
        self._engine = start_engine(
            ValueScorer(policy), lr=settings.lr, weight_decay=settings.weight_decay, grad_clip=settings.grad_clip,
            dtype=learner.dtype, zero_stage=learner.zero_stage, offload=learner.offload,
        )  # fmt: skip
        self._rank, self._num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()

    @property
    def updates(self) -> int:
        """Optimizer updates so far, skipped ones not counted."""
        return self._updates

    @torch.no_grad()
    def values(self, prompts: Sequence[Int32]) -> Float64:
        """[K], in units of reward, under the present weights, on every rank."""
        mine: dict[int, float] = {}
        for batch in self._batches(prompts, train=False):
            mine.update(zip(batch.members, self._forward(batch).tolist(), strict=True))
        known = {index: value for part in of_all_ranks(mine) for index, value in part.items()}
        return np.array([known[index] for index in range(len(prompts))], dtype=np.float64)

    def train(
        self, prompts: Sequence[Int32], old: Float64, targets: Float64, *, version: int, progress: float
    ) -> dict[str, float]:
        """`critic.epochs` passes over all K turns, in `learner.minibatches` updates each. `old` [K]: `values` before.

        Metrics: `value_loss`, mean over turns and passes; `value_mean` and `explained_variance`,
        1 - Var(targets - old)/Var(targets), before the updates (left out where all targets are equal);
        `critic_grad_norm`, `critic_updates_skipped`.
        """
        total, count, norms, skipped = 0.0, 0, [], 0
        for epoch in range(self._settings.epochs):
            rng = np.random.default_rng([self._seed, MINIBATCH_STREAM, version, epoch])
            for part in np.array_split(rng.permutation(len(prompts)), self._learner.minibatches):
                if not len(part):
                    continue
                total += self._accumulate([prompts[i] for i in part], old[part], targets[part])
                count += len(part)
                set_learning_rate(self._engine, learning_rate(self._learner, self._updates, progress))
                step = guarded_step(self._engine)
                self._updates += step.applied
                skipped += not step.applied
                norms += [step.grad_norm] if step.applied else []
        metrics = {
            "value_loss": sum(of_all_ranks(total)) / max(count, 1),
            "value_mean": float(old.mean()),
            "critic_updates_skipped": float(skipped),
        }
        if norms:
            metrics["critic_grad_norm"] = float(np.mean(norms))
        if float(targets.var()) > 0:
            metrics["explained_variance"] = 1.0 - float((targets - old).var() / targets.var())
        return metrics

    def save(self, folder: Path) -> None:
        """Everything needed to go on bit by bit."""
        save_snapshot(self._engine, folder, {"updates": self._updates})

    def load(self, folder: Path) -> None:
        """What `save` wrote, on any number of ranks; SnapshotError when it is incomplete or does not fit."""
        self._updates = load_snapshot(self._engine, folder, self._touch)["updates"]

    def _accumulate(self, prompts: Sequence[Int32], old: Float64, targets: Float64) -> float:
        """Gradients of one minibatch's mean loss; this rank's part of the sum of its losses."""
        total = 0.0
        for batch in self._batches(prompts, train=True):
            members = list(batch.members)
            before, wanted = (
                torch.from_numpy(part[members]).float().to(self._engine.device) for part in (old, targets)
            )
            losses = value_losses(self._forward(batch), before, wanted, self._settings.value_clip)
            backward(self._engine, losses.sum() / len(prompts))
            total += float(losses.detach().double().sum())
        return total

    def _batches(self, prompts: Sequence[Int32], *, train: bool) -> list[PackedBatch]:
        return pack_for_rank(
            [(prompt, _NEXT) for prompt in prompts], self._learner.micro_batch_tokens, self._rank, self._num_ranks,
            equal_count=in_lockstep(self._engine)[train],
        )  # fmt: skip

    def _forward(self, batch: PackedBatch) -> torch.Tensor:
        device = self._engine.device
        values: torch.Tensor = self._engine(batch.input_ids.to(device), batch.positions.to(device))
        return values

    def _touch(self) -> None:
        """A backward pass with a gradient of zero: an optimizer that steps afterwards has its states."""
        nothing = torch.zeros(0, dtype=torch.long, device=self._engine.device)
        ids = torch.zeros(1, 1, dtype=torch.long, device=self._engine.device)
        backward(self._engine, self._engine(ids, nothing).sum())
