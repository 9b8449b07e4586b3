"""The policy loss: clipped ratio against the behaviour policy, token mean, optional KL and entropy terms.

Owns: `policy_loss`, `MinibatchSums` and what is measured on the way. Called by `learner.learner`. Must not
know: models, packing, how advantages were made.

Sources: clipping, PPO (arXiv 1707.06347); dual clip, arXiv 1912.09729; k3, Schulman's "Approximating KL
divergence"; METHOD sections 5 and 6.
"""

from __future__ import annotations

import torch

from learner.settings import LearnerSettings

MAX_LOG_RATIO = 20.0
"""Log-ratios are cut off here (e^20): beyond it the exponential overflows and the gradient turns NaN."""
TAIL_RATIO = 2.0
"""A ratio above this or below its inverse counts as tail."""


def k3(log_ratio: torch.Tensor) -> torch.Tensor:
    """exp(x) - 1 - x [N], x = ln q(a) - ln p(a) with a sampled from p: unbiased for KL(p || q), never negative."""
    bounded = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(bounded) - bounded


def clipped_objective(
    log_ratio: torch.Tensor, advantages: torch.Tensor, clip_low: float, clip_high: float, dual_clip: float
) -> torch.Tensor:
    """Loss of each token [N]: -min(ρA, clip(ρ, 1-clip_low, 1+clip_high)A), for A < 0 at most -dual_clip * A.

    log_ratio [N] = ln π(a) - ln μ(a), π the policy that is trained and μ the one that sampled.
    """
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = torch.maximum(-ratio * advantages, -clipped * advantages)
    return torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)


def policy_loss(
    logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    normaliser: float,
    settings: LearnerSettings,
    *,
    entropy: torch.Tensor | None = None,
    reference_logprobs: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scalar loss of one micro-batch; all tensors [N], one entry a response token.

    `mask` is False on forced tokens: they carry no ratio and no gradient. `normaliser` is the number of
    trained tokens of the whole minibatch, so that the sum over its micro-batches is the token mean
    however it was packed. `entropy` (nats, with gradient) is needed when settings.entropy_coef > 0,
    `reference_logprobs` when settings.kl_coef > 0.
    """
    zero = torch.zeros((), dtype=logprobs.dtype, device=logprobs.device)
    log_ratio = torch.where(mask, logprobs - behaviour_logprobs, zero)
    per_token = clipped_objective(log_ratio, advantages, settings.clip_low, settings.clip_high, settings.dual_clip)
    if settings.kl_coef > 0:
        if reference_logprobs is None:
            raise ValueError("policy_loss: kl_coef > 0 needs reference_logprobs")
        per_token = per_token + settings.kl_coef * k3(torch.where(mask, reference_logprobs - logprobs, zero))
    if settings.entropy_coef > 0:
        if entropy is None:
            raise ValueError("policy_loss: entropy_coef > 0 needs entropy")
        per_token = per_token - settings.entropy_coef * entropy
    return torch.where(mask, per_token, zero).sum() / normaliser


class LossSums:
    """Sums over trained tokens, micro-batch by micro-batch; `means()` at the end. Held in fp64."""

    def __init__(self) -> None:
        self.tokens = 0
        self._sums: dict[str, float] = {}
        self._max_log_ratio = 0.0

    @torch.no_grad()
    def add(
        self,
        logprobs: torch.Tensor,
        behaviour_logprobs: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        settings: LearnerSettings,
        entropy: torch.Tensor | None = None,
        reference_logprobs: torch.Tensor | None = None,
    ) -> None:
        """All tensors [N], as in `policy_loss`."""
        count = int(mask.sum())
        if count == 0:
            return
        log_ratio = (logprobs.detach().double() - behaviour_logprobs.double())[mask]
        signed = advantages[mask]
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        values = {
            "approx_kl": k3(log_ratio),
            "log_ratio_mean": log_ratio,
            "ratio_mean": ratio,
            "ratio_tail_share": (ratio > TAIL_RATIO) | (ratio < 1.0 / TAIL_RATIO),
            "clip_high_share": (signed > 0) & (ratio > 1.0 + settings.clip_high),
            "clip_low_share": (signed < 0) & (ratio < 1.0 - settings.clip_low),
            "dual_clip_share": (signed < 0) & (ratio > settings.dual_clip),
            "logprob_mean": logprobs.detach()[mask],
        }
        if entropy is not None:
            values["entropy"] = entropy.detach()[mask]
        if reference_logprobs is not None:
            values["reference_kl"] = k3((reference_logprobs - logprobs.detach())[mask])
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.double().sum())
        self._max_log_ratio = max(self._max_log_ratio, float(log_ratio.abs().max()))
        self.tokens += count

    def means(self) -> dict[str, float]:
        """Means over trained tokens; nothing when no token was added. `log_ratio_abs_max` is a maximum."""
        if self.tokens == 0:
            return {}
        means = {name: total / self.tokens for name, total in self._sums.items()}
        return {**means, "log_ratio_abs_max": self._max_log_ratio}
