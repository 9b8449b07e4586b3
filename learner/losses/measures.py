"""What is measured of a loss while it is trained on.

Owns: `TokenSums` and `measure_policy`. Called by the learner, micro-batch by micro-batch. Must not know: what the
measures are for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from learner.losses.kl import k3
from learner.losses.tokens import LossTokens, bounded_exp, sequence_means
from learner.settings import LossSettings

TAIL_RATIO = 2.0
"""A token's ratio above this or below its inverse counts as tail."""


class TokenSums:
    """Sums over trained tokens in float64; `means()` at the end. Ranks join theirs with `merge`."""

    def __init__(self) -> None:
        self.tokens = 0
        self.totals: dict[str, float] = {}
        self.maxima: dict[str, float] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, torch.Tensor], maxima: Mapping[str, torch.Tensor]) -> None:
        """All tensors [n], one entry a trained token; nothing happens for n = 0."""
        count = max((len(value) for value in values.values()), default=0)
        if count == 0:
            return
        self.tokens += count
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + float(value.double().sum())
        for name, value in maxima.items():
            self._raise(name, float(value.max()))

    def merge(self, other: TokenSums) -> None:
        """Take up another's sums, as if its tokens had been added here."""
        self.tokens += other.tokens
        for name, total in other.totals.items():
            self.totals[name] = self.totals.get(name, 0.0) + total
        for name, value in other.maxima.items():
            self._raise(name, value)

    def means(self) -> dict[str, float]:
        """Means over the tokens, and the maxima; nothing when no token was added."""
        if self.tokens == 0:
            return {}
        return {**{name: total / self.tokens for name, total in self.totals.items()}, **self.maxima}

    def _raise(self, name: str, value: float) -> None:
        self.maxima[name] = max(self.maxima.get(name, value), value)


@torch.no_grad()
def measure_policy(
    sums: TokenSums,
    tokens: LossTokens,
    settings: LossSettings,
    entropy: torch.Tensor | None = None,
    reference_logprobs: torch.Tensor | None = None,
) -> None:
    """Add to `sums`, all against the proximal policy: `approx_kl` (k3, nats a token), `log_ratio_mean`, `ratio_mean`,
    `ratio_tail_share`, `log_ratio_abs_max`, `logprob_mean` of tokens; for clipped losses `clip_high_share`,
    `clip_low_share`, `dual_clip_share` of the ratio that the loss clips; `entropy`, `reference_kl` (nats) where given.
    """
    mask = tokens.mask
    log_ratio = tokens.log_ratio().double()
    ratio = bounded_exp(log_ratio)[mask]
    values = {
        "approx_kl": k3(log_ratio[mask]),
        "log_ratio_mean": log_ratio[mask],
        "ratio_mean": ratio,
        "ratio_tail_share": (ratio > TAIL_RATIO) | (ratio < 1.0 / TAIL_RATIO),
        "logprob_mean": tokens.logprobs[mask],
    }
    if settings.policy in ("token_ratio", "sequence_ratio"):
        signed = tokens.advantages[mask]
        if settings.policy == "sequence_ratio":
            means = sequence_means(log_ratio, mask, tokens.sequence, tokens.num_sequences)
            ratio = bounded_exp(means)[tokens.sequence][mask]
        values["clip_high_share"] = (signed > 0) & (ratio > 1.0 + settings.clip_high)
        values["clip_low_share"] = (signed < 0) & (ratio < 1.0 - settings.clip_low)
        if settings.dual_clip:
            values["dual_clip_share"] = (signed < 0) & (ratio > settings.dual_clip)
    if entropy is not None:
        values["entropy"] = entropy[mask]
    if reference_logprobs is not None:
        values["reference_kl"] = k3((reference_logprobs - tokens.logprobs)[mask])
    sums.add(values, {"log_ratio_abs_max": log_ratio[mask].abs()})
