"""What a policy loss sees: the response tokens of one micro-batch, flat.

Owns: `LossTokens`, sums over the tokens of a sequence, and the bound on log-ratios. Called by every loss. Must not
know: models, packing, how advantages were made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

MAX_LOG_RATIO = 20.0
"""Log-ratios are cut off here (e^20): beyond it the exponential overflows and the gradient turns NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTokens:
    """N response tokens of S sequences. A sequence is one TrainingSample, one turn, and is never split.

    `logprobs` [N], nats, of the policy that is trained, with gradient. `proximal_logprobs` [N]: those that the ratio
    starts from, the behaviour policy's or the learner's own at the start of the step. `advantages` [N]. `mask` [N]:
    False on forced tokens, which have no ratio and no gradient; what stands at their places elsewhere is never read,
    NaN included. `sequence` [N] int64: each token's sequence, 0 … S - 1, on the same device. `num_sequences`: S.
    """

    logprobs: torch.Tensor
    proximal_logprobs: torch.Tensor
    advantages: torch.Tensor
    mask: torch.Tensor
    sequence: torch.Tensor
    num_sequences: int

    def log_ratio(self) -> torch.Tensor:
        """ln π - ln π_prox [N], 0 where masked, not bounded."""
        return masked(self.logprobs - self.proximal_logprobs, self.mask)

    def trained_advantages(self) -> torch.Tensor:
        """The advantages [N], 0 where masked."""
        return masked(self.advantages, self.mask)


def masked(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`values` [N], 0 where `mask` is False, with no gradient through what was there."""
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))


def bounded_exp(log_ratio: torch.Tensor) -> torch.Tensor:
    """exp of a log-ratio that is cut off at ±20; no gradient beyond."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def sequence_sums(values: torch.Tensor, sequence: torch.Tensor, num_sequences: int) -> torch.Tensor:
    """Σ of `values` [N] over each sequence: [S]. (On CUDA the order of the sum is fixed only when torch is told to be
    deterministic.)"""
    zeros = torch.zeros(num_sequences, dtype=values.dtype, device=values.device)
    return zeros.index_add(0, sequence, values)


def sequence_means(
    values: torch.Tensor, mask: torch.Tensor, sequence: torch.Tensor, num_sequences: int
) -> torch.Tensor:
    """Mean of `values` [N] over the tokens of each sequence where `mask` is True: [S]; 0 for a sequence without any."""
    counts = sequence_sums(mask.to(values.dtype), sequence, num_sequences)
    return sequence_sums(masked(values, mask), sequence, num_sequences) / counts.clamp(min=1.0)
