"""Supervised fine-tuning of a causal LM on demonstrations (prompt, reply), before RL.

Owns: `finetune` (one rank of it) and its schedule. Called by `learner.finetune_ranks`, in a process of its
own. Must not know: where demonstrations come from, who started the other ranks, environments, Ray, what a
snapshot holds (`learner.finetune_place`).

It runs on the same DeepSpeed engine as RL: measured within a few per cent of a plain torch loop
(bench/learner.py), so a second update path is not worth having.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import AutoTokenizer

from envs.records import Bool, Float32, Int32
from learner.engine import DTYPES, backward, guarded_step, join_ranks, set_learning_rate, start_engine
from learner.export import write_model_folder
from learner.finetune_place import Place, checksum, held, save_place, take_up_place
from learner.packing import pack_for_rank
from learner.scoring import TokenScorer, load_policy
from learner.settings import ColdstartSettings

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine

WARMUP_SHARE = 0.05
"""Share of the run in which the learning rate rises linearly."""
FINAL_LR_SHARE = 0.05
"""Learning rate at the end, as a share of the peak."""
MICRO_BATCH_TOKENS = 2048
"""Tokens of one forward and backward pass; larger ones only fall out of the processor's cache."""
MAX_SKIPPED_STEPS = 5
"""Non-finite gradients in a row after which training stops."""
SECONDS_BEFORE_PROJECTION = 5.0
"""Time trained before the deadline may shape the schedule."""


class FinetuneError(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


@dataclass(frozen=True, slots=True)
class FinetuneProgress:
    """After one optimizer step. `loss` is in nats a scored token, `progress` runs from 0 to 1."""

    step: int
    total_steps: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    elapsed_s: float
    progress: float


def learning_rate_share(progress: float) -> float:
    """Share of the peak learning rate at `progress` in [0, 1]: linear warm-up, then a cosine."""
    if progress < WARMUP_SHARE:
        return max(progress, 0.0) / WARMUP_SHARE
    angle = math.pi * min((progress - WARMUP_SHARE) / (1.0 - WARMUP_SHARE), 1.0)
    return FINAL_LR_SHARE + (1.0 - FINAL_LR_SHARE) * 0.5 * (1.0 + math.cos(angle))


def finetune(
    model_path: str | Path,
    folder: Path,
    demonstrations: Sequence[tuple[Int32, Int32]],
    settings: ColdstartSettings,
    seed: int,
    *,
    prompt_loss_weight: float = 0.0,
    masks: Sequence[Bool] | None = None,
    snapshots: Path | None = None,
    dtype: str = "float32",
    weight_decay: float = 0.01,
    grad_clip: float = 1.0,
    on_progress: Callable[[FinetuneProgress], None] | None = None,
    rank: int = 0,
    port: int = 0,
) -> dict[str, float]:
    """Train the model of `model_path` on (prompt_ids, reply_ids) pairs, write it and its tokenizer to `folder`.

    The loss is the mean negative log-probability over reply tokens, plus `prompt_loss_weight` times that of the
    prompt tokens in the same weighted mean. `masks`: by demonstration, True at the reply tokens that count; the
    others are only read. Deterministic by seed and number of ranks as long as the deadline `settings.max_duration_s`
    (counted from the call) does not bind; when the measured speed says that it will, the schedule follows the clock
    instead of the step count, so that the learning rate still comes down. Returns metrics; raises FinetuneError when
    the loss or gradients stop being finite.

    `snapshots`: a folder for what a killed call leaves; the same call goes on from it, and ends as it would have
    without the kill (bit by bit on one rank). The caller removes it. Time trained before counts for the deadline.

    With `settings.num_ranks` above 1 each rank calls this with the same arguments but its own `rank`;
    they meet at `port` of this machine and share every batch. Rank 0 writes and reports progress.
    """
    start = time.monotonic()
    if not demonstrations:
        raise ValueError("finetune: no demonstrations; collect some before training")
    if not 0.0 <= prompt_loss_weight <= 1.0:
        raise ValueError(f"finetune: prompt_loss_weight must be from 0 to 1, got {prompt_loss_weight}")
    torch.set_num_threads(settings.num_threads)
    torch.manual_seed(seed)
    weights = _weights(demonstrations, masks, prompt_loss_weight)
    join_ranks(rank, settings.num_ranks, port=port)
    policy = load_policy(model_path, DTYPES[dtype])
    _check_token_ids(demonstrations, policy.config.vocab_size)
    engine = start_engine(
        TokenScorer(policy), lr=settings.lr, weight_decay=weight_decay, grad_clip=grad_clip, dtype=dtype,
        betas=(0.9, 0.95),
    )  # fmt: skip
    trainer = _Trainer(engine, demonstrations, weights, settings, seed, prompt_loss_weight, start, on_progress)
    with nullcontext() if snapshots is None else held(snapshots):
        metrics = trainer.run(snapshots, checksum(demonstrations, masks))
        if not all(bool(torch.isfinite(parameter).all()) for parameter in policy.parameters()):
            raise FinetuneError("the trained weights are not finite; lower coldstart.lr. Nothing was written")
        if rank == 0:
            write_model_folder(folder, policy, AutoTokenizer.from_pretrained(model_path, local_files_only=True))
    return {**metrics, "duration_s": time.monotonic() - start}


class _Trainer:
    """The loop over the planned batches of one `finetune` call. Every rank plans the same batches."""

    def __init__(
        self,
        engine: DeepSpeedEngine,
        demonstrations: Sequence[tuple[Int32, Int32]],
        weights: Sequence[Float32],
        settings: ColdstartSettings,
        seed: int,
        prompt_loss_weight: float,
        start: float,
        on_progress: Callable[[FinetuneProgress], None] | None,
    ) -> None:
        self._engine = engine
        self._demonstrations = demonstrations
        self._settings = settings
        self._weights = weights
        self._prompt_loss_weight = prompt_loss_weight
        self._start = start
        self._on_progress = on_progress
        self._rank, self._num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        lengths = np.array([len(prompt) + len(reply) for prompt, reply in demonstrations])
        self._plan = [
            (epoch, members)
            for epoch in range(settings.epochs)
            for members in shuffled_batches(lengths, settings.batch_tokens, np.random.default_rng([seed, epoch]))
        ]

    def run(self, snapshots: Path | None, demonstrations: int) -> dict[str, float]:
        """Goes on from the newest snapshot, if there is one; `demonstrations` is their checksum."""
        total, settings = len(self._plan), self._settings
        place = Place(demonstrations)
        if snapshots is not None:
            place = take_up_place(self._engine, snapshots, demonstrations, self._touch)
        taken_up, trained_before_s, tokens_before = place.step, place.trained_s, place.tokens
        train_start = time.monotonic()
        allowed_s = self._of_rank_0(settings.max_duration_s - (train_start - self._start))
        saved_s = 0.0
        for epoch, members in self._plan[place.step :]:
            here_s = self._of_rank_0(time.monotonic() - train_start)
            elapsed_s = trained_before_s + here_s
            if elapsed_s >= allowed_s:
                break
            if snapshots is not None and place.step > taken_up and here_s - saved_s >= settings.save_every_s:
                save_place(self._engine, snapshots, replace(place, trained_s=elapsed_s))
                saved_s = self._of_rank_0(time.monotonic() - train_start)
            progress = max(place.progress, _progress(place.step, total, elapsed_s, allowed_s))
            lr = settings.lr * learning_rate_share(max(progress, 0.5 / total))
            set_learning_rate(self._engine, lr)
            loss, batch_tokens = self._accumulate(members)
            result = guarded_step(self._engine)
            place = replace(
                place,
                step=place.step + 1,
                tokens=place.tokens + batch_tokens,
                skipped=place.skipped + (not result.applied),
                skipped_in_row=0 if result.applied and math.isfinite(loss) else place.skipped_in_row + 1,
                loss=loss,
                progress=progress,
            )
            if place.skipped_in_row >= MAX_SKIPPED_STEPS:
                raise FinetuneError(
                    f"step {place.step} of {total}: {MAX_SKIPPED_STEPS} updates in a row had a non-finite loss or "
                    f"gradient (loss {loss}, lr {lr:.2e}); lower coldstart.lr. Nothing was written"
                )
            if self._on_progress is not None:
                elapsed_s = trained_before_s + time.monotonic() - self._start
                norm, tokens = result.grad_norm, place.tokens
                self._on_progress(
                    FinetuneProgress(place.step, total, epoch, loss, lr, norm, tokens, elapsed_s, progress)
                )
        if place.step == 0:
            raise FinetuneError(
                f"coldstart.max_duration_s = {settings.max_duration_s} was over before the first step; allow more time"
            )
        return {
            "loss": place.loss,
            "steps": float(place.step),
            "planned_steps": float(total),
            "epochs_done": place.step / total * settings.epochs,
            "tokens": float(place.tokens),
            "tokens_per_s": (place.tokens - tokens_before) / max(time.monotonic() - train_start, 1e-9),
            "skipped_steps": float(place.skipped),
            "stopped_by_deadline": float(place.step < total),
        }

    def _accumulate(self, members: list[int]) -> tuple[float, int]:
        """Forward and backward over this rank's part of an optimizer batch; the whole batch's loss and tokens."""
        batch = [self._demonstrations[index] for index in members]
        weights = [self._weights[index] for index in members]
        prompt_weight = self._prompt_loss_weight
        normaliser = sum(
            float(weight[-len(reply) :].sum()) + prompt_weight * (len(prompt) - 1)
            for weight, (prompt, reply) in zip(weights, batch, strict=True)
        )
        device = self._engine.device
        total = torch.zeros((), device=device)
        for packed in pack_for_rank(
            batch, MICRO_BATCH_TOKENS, self._rank, self._num_ranks, score_prompt=prompt_weight > 0.0
        ):
            log_probs, _ = self._engine(
                packed.input_ids.to(device), packed.positions.to(device), packed.targets.to(device)
            )
            loss = -(log_probs * packed.in_order(weights).to(device)).sum() / max(normaliser, 1.0)
            backward(self._engine, loss)
            total += loss.detach()
        if self._num_ranks > 1:
            torch.distributed.all_reduce(total)
        return float(total), sum(len(prompt) + len(reply) for prompt, reply in batch)

    def _touch(self) -> None:
        """A backward pass with a gradient of zero: an optimizer that steps afterwards has its states."""
        nothing = torch.zeros(0, dtype=torch.long, device=self._engine.device)
        log_probs, _ = self._engine(nothing.new_zeros(1, 1), nothing, nothing)
        backward(self._engine, log_probs.sum())

    def _of_rank_0(self, value: float) -> float:
        """Rank 0's value, on every rank: clocks differ, decisions must not."""
        if self._num_ranks == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self._engine.device)
        torch.distributed.broadcast(shared, src=0)
        return float(shared)


def shuffled_batches(lengths: np.ndarray, batch_tokens: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Sequence indices in random order, cut into batches of at most `batch_tokens` tokens (at least one each)."""
    members: list[int] = []
    size = 0
    for index in rng.permutation(len(lengths)).tolist():
        if members and size + int(lengths[index]) > batch_tokens:
            yield members
            members, size = [], 0
        members.append(index)
        size += int(lengths[index])
    if members:
        yield members


def _progress(step: int, total_steps: int, elapsed_s: float, allowed_s: float) -> float:
    """Share of the run that is behind: by steps, or by the clock where the deadline will come first."""
    by_steps = step / total_steps
    if elapsed_s < SECONDS_BEFORE_PROJECTION or step == 0:
        return by_steps
    projected_s = elapsed_s / step * total_steps
    return by_steps if projected_s <= allowed_s else min(elapsed_s / allowed_s, 1.0)


def _weights(
    demonstrations: Sequence[tuple[Int32, Int32]], masks: Sequence[Bool] | None, prompt_loss_weight: float
) -> list[Float32]:
    """What each scored token weighs, by demonstration: its prompt's (all but the first, if they count), its reply's."""
    weights = []
    for index, (prompt, reply) in enumerate(demonstrations):
        of_reply = np.ones(len(reply), dtype=np.float32)
        if masks is not None:
            if len(masks) != len(demonstrations) or len(masks[index]) != len(reply):
                raise ValueError(f"finetune: demonstration {index}: its mask must have a place for each reply token")
            of_reply = masks[index].astype(np.float32)
        of_prompt = np.full((len(prompt) - 1) * (prompt_loss_weight > 0.0), prompt_loss_weight, dtype=np.float32)
        weights.append(np.concatenate([of_prompt, of_reply]))
    return weights


def _check_token_ids(demonstrations: Sequence[tuple[Int32, Int32]], vocab_size: int) -> None:
    for index, pair in enumerate(demonstrations):
        for ids in pair:
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
                raise ValueError(
                    f"finetune: demonstration {index} has token id {int(ids.max())}, the model's vocabulary ends at "
                    f"{vocab_size - 1}; encode demonstrations with the tokenizer of the same folder"
                )
