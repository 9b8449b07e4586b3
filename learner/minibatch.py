"""One minibatch: divided over ranks and micro-batches, its gradient accumulated exactly; and scoring without one.

Owns: `Minibatches`, `StepSums`. Called by `learner.learner`. Must not know: groups, advantages' making, when the
optimizer steps, files.

Exactness: every trained token has a weight that follows from the whole minibatch (`learner.losses.aggregation`),
computed before anything is divided. The loss is the sum of weight x loss over tokens, so its gradient does not depend
on which micro-batch or rank a sample came to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from envs.records import TrainingSample
from learner.engine import backward, in_lockstep, of_all_ranks
from learner.lora import without_adapters
from learner.losses.aggregation import token_weights
from learner.losses.correction import Correction, correct, measure_correction
from learner.losses.measures import TokenSums, measure_policy
from learner.losses.objective import objective
from learner.losses.registry import LOSSES
from learner.losses.tokens import LossTokens
from learner.packing import PackedBatch, pack_for_rank
from learner.scoring import TokenScorer
from learner.settings import Algorithm, LearnerSettings

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine


@dataclass(slots=True)
class StepSums:
    """What one rank has seen in a step. `all`: of the policy's loss; `first`: of what sampled against what is trained,
    before the first update; `fresh`: of these, samples of the version that is trained. `loss`: the sum of the
    minibatches' losses. `tokens`: prompt and reply; `fed`: those fed in, `cells`: with padding."""

    all: TokenSums = field(default_factory=TokenSums)
    first: TokenSums = field(default_factory=TokenSums)
    fresh: TokenSums = field(default_factory=TokenSums)
    loss: float = 0.0
    tokens: int = 0
    fed: int = 0
    cells: int = 0

    def count(self, batch: PackedBatch) -> None:
        self.tokens += batch.num_sequence_tokens
        self.fed += batch.num_tokens
        self.cells += batch.input_ids.numel()

    def over_ranks(self) -> StepSums:
        """The sums of all ranks, on every rank."""
        total = StepSums()
        for one in of_all_ranks(self):
            for mine, theirs in ((total.all, one.all), (total.first, one.first), (total.fresh, one.fresh)):
                mine.merge(theirs)
            total.loss += one.loss
            total.tokens += one.tokens
            total.fed += one.fed
            total.cells += one.cells
        return total


class Minibatches:
    """Forward and backward passes of one rank. Every method is called by all ranks, with the same samples."""

    def __init__(
        self,
        engine: DeepSpeedEngine,
        settings: LearnerSettings,
        algorithm: Algorithm,
        reference: TokenScorer | None,
    ) -> None:
        """`reference` None with kl_coef > 0: the policy without its adapters."""
        self._engine = engine
        self._settings = settings
        self._algorithm = algorithm
        self._reference = reference
        self._rank, self._num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def accumulate(
        self, minibatch: Sequence[TrainingSample], sums: StepSums, version: int, *, before_updates: bool
    ) -> bool:
        """Gradients of one minibatch; whether any sample had one.

        Samples whose advantage is exactly 0 have none unless KL or entropy are in the loss, or it is one's own: they
        are only measured, forward, which saves two thirds of their cost and changes nothing in the sum.
        """
        loss = self._algorithm.loss
        every_sample_counts = self._kl_in_loss or loss.entropy_coef > 0 or loss.policy not in LOSSES
        weights = token_weights(
            [sample.loss_mask for sample in minibatch],
            loss.aggregation,
            max_response_tokens=self._algorithm.max_response_tokens,
            trajectories=[sample.trajectory for sample in minibatch],
        )
        parts: dict[bool, list[int]] = {True: [], False: []}
        for index, sample in enumerate(minibatch):
            counts = every_sample_counts or bool(np.any(sample.advantages[sample.loss_mask] != 0.0))
            parts[counts].append(index)
        for train, part in parts.items():
            samples, own_weights = [minibatch[index] for index in part], [weights[index] for index in part]
            for batch in self._batches(samples, train=train):
                self._micro_batch(batch, samples, own_weights, train, sums, version, before_updates)
                sums.count(batch)
        return bool(parts[True])

    @torch.no_grad()
    def score(self, samples: Sequence[TrainingSample]) -> list[np.ndarray]:
        """Log-probability of every response token under the present weights, float32 [R] a sample, for all samples on
        every rank; each rank does its part of the work."""
        return self._scored(samples, lambda *inputs: self._engine(*inputs)[0])

    @torch.no_grad()
    def score_reference(self, samples: Sequence[TrainingSample]) -> list[np.ndarray]:
        """The same under the reference policy."""
        return self._scored(samples, lambda *inputs: self._reference_logprobs(inputs))

    def _scored(self, samples: Sequence[TrainingSample], logprobs_of: Callable[..., torch.Tensor]) -> list[np.ndarray]:
        mine: dict[int, np.ndarray] = {}
        for batch in self._batches(samples, train=False):
            logprobs = logprobs_of(*self._inputs(batch))
            lengths = [len(samples[member].response_ids) for member in batch.members]
            ends = np.cumsum(lengths)[:-1]
            mine.update(zip(batch.members, np.split(logprobs.float().cpu().numpy(), ends), strict=False))
        known = {index: values for part in of_all_ranks(mine) for index, values in part.items()}
        return [known[index] for index in range(len(samples))]

    def touch(self) -> None:
        """A backward pass with a gradient of zero: an optimizer that steps afterwards has its states."""
        nothing = torch.zeros(0, dtype=torch.long, device=self._engine.device)
        ids = torch.zeros(1, 1, dtype=torch.long, device=self._engine.device)
        logprobs, _ = self._engine(ids, nothing, nothing)
        backward(self._engine, logprobs.sum())

    def _batches(self, samples: Sequence[TrainingSample], *, train: bool) -> list[PackedBatch]:
        return pack_for_rank(
            [(sample.prompt_ids, sample.response_ids) for sample in samples],
            self._settings.micro_batch_tokens,
            self._rank,
            self._num_ranks,
            equal_count=in_lockstep(self._engine)[train],
        )

    def _inputs(self, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        device = self._engine.device
        return batch.input_ids.to(device), batch.positions.to(device), batch.targets.to(device)

    def _micro_batch(
        self,
        batch: PackedBatch,
        samples: Sequence[TrainingSample],
        weights: Sequence[np.ndarray],
        train: bool,
        sums: StepSums,
        version: int,
        before_updates: bool,
    ) -> None:
        loss_settings, device = self._algorithm.loss, self._engine.device
        behaviour = batch.in_order([s.behaviour_logprobs for s in samples]).to(device)
        inputs = self._inputs(batch)
        reference = self._reference_logprobs(inputs) if self._kl_in_loss else None
        with torch.set_grad_enabled(train):
            logprobs, entropy = self._engine(*inputs, "loss" if loss_settings.entropy_coef > 0 else "metric")
        tokens = LossTokens(
            logprobs=logprobs,
            proximal_logprobs=behaviour,
            advantages=batch.in_order([s.advantages for s in samples]).to(device),
            mask=batch.in_order([s.loss_mask for s in samples]).to(device),
            sequence=_owners(batch, samples).to(device),
            num_sequences=len(batch.members),
        )
        corrections = None
        if self._algorithm.correction.proximal == "recomputed":
            tokens, corrections = self._with_proximal(tokens, batch, samples)
        else:
            tokens = self._with_mask(tokens, batch, samples, sums, version, before_updates)
        if train:
            loss = objective(
                tokens, batch.in_order(weights).to(device), loss_settings,
                corrections=corrections, entropy=entropy, reference_logprobs=reference,
            )  # fmt: skip
            backward(self._engine, loss)
            sums.loss += float(loss.detach())
        measure_policy(sums.all, tokens, loss_settings, entropy, reference)

    def _with_proximal(
        self, tokens: LossTokens, batch: PackedBatch, samples: Sequence[TrainingSample]
    ) -> tuple[LossTokens, torch.Tensor | None]:
        """Decoupled PPO: the ratio starts from the policy at the start of the step. Masks acted already."""
        device = self._engine.device
        proximal = batch.in_order([_added(s.proximal_logprobs) for s in samples]).to(device)
        corrections = None
        if self._algorithm.correction.weight != "off":
            corrections = batch.in_order([_added(s.corrections) for s in samples]).to(device)
        return dataclasses.replace(tokens, proximal_logprobs=proximal), corrections

    def _with_mask(
        self,
        tokens: LossTokens,
        batch: PackedBatch,
        samples: Sequence[TrainingSample],
        sums: StepSums,
        version: int,
        before_updates: bool,
    ) -> LossTokens:
        """The ratio is the importance weight: tokens where it is out of bounds have no loss. Which ones is known only
        now, so they still count in what the loss is divided by, as published."""
        settings = self._algorithm.correction
        if settings.mask == "off" and not before_updates:
            return tokens
        behaviour, mask = tokens.proximal_logprobs, tokens.mask

        def corrected(mask: torch.Tensor) -> Correction:
            return correct(tokens.logprobs.detach(), behaviour, mask, tokens.sequence, tokens.num_sequences, settings)

        correction = corrected(mask)
        if before_updates:
            is_fresh = batch.in_order(
                [np.full(len(s.response_ids), s.policy_version == version, dtype=np.bool_) for s in samples]
            ).to(mask.device)
            measure_correction(sums.first, correction, settings)
            measure_correction(sums.fresh, corrected(mask & is_fresh), settings)
        return dataclasses.replace(tokens, mask=correction.kept)

    @property
    def _kl_in_loss(self) -> bool:
        loss = self._algorithm.loss
        return loss.kl_coef > 0 and loss.kl_in == "loss"

    @torch.no_grad()
    def _reference_logprobs(self, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        logprobs: torch.Tensor
        if self._reference is not None:
            logprobs, _ = self._reference(*inputs)
        else:
            with without_adapters(self._engine.module):
                logprobs, _ = self._engine(*inputs)
        return logprobs


def _owners(batch: PackedBatch, samples: Sequence[TrainingSample]) -> torch.Tensor:
    """The row of each scored token [N]."""
    lengths = torch.tensor([len(samples[member].response_ids) for member in batch.members], dtype=torch.int64)
    return torch.repeat_interleave(torch.arange(len(lengths)), lengths)


def _added(values: np.ndarray | None) -> np.ndarray:
    """What `learner.preparation` adds to a sample."""
    assert values is not None
    return values
