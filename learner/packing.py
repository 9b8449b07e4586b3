"""Packing: many sequences of different length -> few batches of about equal token count.

Owns: `pack`, `pack_for_rank` and `PackedBatch`. Called by `learner.minibatch` and `learner.finetune`. Must not know:
what a sequence means, losses, optimizers, who the other ranks are.

Sequences are sorted by length and padded on the right, and no attention mask is built: attention is causal,
so a real token never sees the padding behind it, and the padding's own outputs are never used (their
gradient is exactly zero). A mask would cost more than the padding (bench/learner.py measures both).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from envs.records import Int32


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One forward and backward pass.

    `input_ids` [B, L] int64, padded on the right with 0. `positions` [N] int64: places in the flattened
    [B * L] grid whose next token is scored; `targets` [N] int64: those next tokens. `members` [B]: the
    index of each row's sequence in the list that was packed; the N scored tokens are those of
    members[0], then members[1], … in their own order (see `in_order`). `num_tokens`: tokens fed in
    without the padding. `num_sequence_tokens`: prompt and reply tokens.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    members: tuple[int, ...]
    num_tokens: int
    num_sequence_tokens: int

    @property
    def padding_share(self) -> float:
        """Share of the grid that is padding, 0 to 1."""
        return 1.0 - self.num_tokens / self.input_ids.numel()

    def in_order(self, per_sequence: Sequence[np.ndarray]) -> torch.Tensor:
        """Per-token values given per sequence -> [N], in the order of `targets`."""
        parts = [per_sequence[member] for member in self.members] or [per_sequence[0][:0]]
        values = torch.from_numpy(np.concatenate(parts))
        if len(values) != len(self.targets):
            raise ValueError(f"in_order: {len(values)} values for {len(self.targets)} scored tokens")
        return values


def pack(sequences: Sequence[tuple[Int32, Int32]], max_tokens: int, *, score_prompt: bool = False) -> list[PackedBatch]:
    """Pack (prompt_ids [P], reply_ids [R]) pairs into batches of at most `max_tokens` grid cells.

    Scored are the R reply tokens, with `score_prompt` also the P - 1 prompt tokens after the first. A
    sequence longer than `max_tokens` gets a batch of its own. Every sequence is in exactly one batch.
    """
    lengths = _lengths(sequences)
    plan = _plan(lengths, np.arange(len(sequences)), max_tokens)
    return [_batch(sequences, lengths, members, score_prompt) for members in plan]


def pack_for_rank(
    sequences: Sequence[tuple[Int32, Int32]], max_tokens: int, rank: int, num_ranks: int, *,
    score_prompt: bool = False, equal_count: bool = False,
) -> list[PackedBatch]:  # fmt: skip
    """This rank's part of `sequences`, packed; together the ranks have each sequence once. Members are indices into
    `sequences`.

    Ranks get about the same number of tokens. A rank without a sequence gets one empty batch (no scored token, so no
    loss and a gradient of zero); with `equal_count` every rank gets as many batches as the one with the most. Every
    rank computes the same division, from lengths alone.
    """
    if not sequences:
        return []
    lengths = _lengths(sequences)
    plans = [_plan(lengths, share, max_tokens) for share in share_out(lengths, num_ranks)]
    batches = [_batch(sequences, lengths, members, score_prompt) for members in plans[rank]]
    wanted = max(map(len, plans)) if equal_count else 1
    return batches + [_empty_batch() for _ in range(wanted - len(batches))]


def share_out(lengths: np.ndarray, num_ranks: int) -> list[np.ndarray]:
    """Indices of `lengths` [S] in `num_ranks` parts of about equal sum: the longest first, each to the least full."""
    if num_ranks == 1:
        return [np.arange(len(lengths))]
    loads = [(0, rank) for rank in range(num_ranks)]
    parts: list[list[int]] = [[] for _ in range(num_ranks)]
    for index in np.argsort(-lengths, kind="stable").tolist():
        load, rank = loads[0]
        parts[rank].append(index)
        heapq.heapreplace(loads, (load + int(lengths[index]), rank))
    return [np.array(sorted(part), dtype=np.int64) for part in parts]


def _lengths(sequences: Sequence[tuple[Int32, Int32]]) -> np.ndarray:
    """Tokens fed in of each sequence: the last one is only a target."""
    for index, (prompt, reply) in enumerate(sequences):
        if len(prompt) == 0 or len(reply) == 0:
            raise ValueError(
                f"pack: sequence {index} has {len(prompt)} prompt and {len(reply)} reply tokens; both need at least 1"
            )
    return np.array([len(prompt) + len(reply) - 1 for prompt, reply in sequences], dtype=np.int64)


def _plan(lengths: np.ndarray, indices: np.ndarray, max_tokens: int) -> list[list[int]]:
    """`indices`, the longest first, cut into batches whose grids have at most `max_tokens` cells."""
    plan: list[list[int]] = []
    for index in indices[np.argsort(-lengths[indices], kind="stable")].tolist():
        if plan and (len(plan[-1]) + 1) * int(lengths[plan[-1][0]]) <= max_tokens:
            plan[-1].append(index)
        else:
            plan.append([index])
    return plan


def _empty_batch() -> PackedBatch:
    nothing = torch.zeros(0, dtype=torch.long)
    return PackedBatch(torch.zeros(1, 1, dtype=torch.long), nothing, nothing, (), 0, 0)


def _batch(
    sequences: Sequence[tuple[Int32, Int32]], lengths: np.ndarray, members: list[int], score_prompt: bool
) -> PackedBatch:
    width = int(lengths[members[0]])
    grid = np.zeros((len(members), width), dtype=np.int64)
    positions, targets = [], []
    for row, member in enumerate(members):
        prompt, reply = sequences[member]
        tokens = np.concatenate([prompt, reply])
        grid[row, : len(tokens) - 1] = tokens[:-1]
        first = 0 if score_prompt else len(prompt) - 1
        positions.append(row * width + np.arange(first, len(tokens) - 1))
        targets.append(tokens[first + 1 :])
    return PackedBatch(
        input_ids=torch.from_numpy(grid),
        positions=torch.from_numpy(np.concatenate(positions)),
        targets=torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        members=tuple(members),
        num_tokens=int(lengths[members].sum()),
        num_sequence_tokens=int(lengths[members].sum()) + len(members),
    )
