"""Correction for samples that another policy drew: importance weights, their cut-off, and what is left out.

Owns: `correct`, `Correction`, and what is measured of them. Called by the learner before the loss. Must not know: the
loss, how tokens are weighed, why the policies differ (older weights, another engine's arithmetic).

μ drew the tokens, π_prox is the policy whose weight is asked for: the learner's at the start of the step in decoupled
PPO (Hilton et al. 2021, arXiv 2110.00641; AReaL, arXiv 2505.24298), whose loss is
E_μ[π_prox/μ * min(ρA, clip(ρ)A)] with ρ = π/π_prox. All of it is computed from log-probabilities and has no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from learner.losses.kl import k3
from learner.losses.measures import TokenSums
from learner.losses.tokens import bounded_exp, masked, sequence_means, sequence_sums
from learner.settings import CorrectionSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What to do with each of N tokens; no gradients.

    `weights` [N]: factor on the policy's loss, 0 where not `kept`. `kept` [N]: the loss mask without what was out of
    bounds. `mask` [N]: the loss mask. `log_ratio` [N]: ln π_prox - ln μ of the token, nats, 0 where masked.
    `judged` [N]: the weight that the bounds of `settings.mask` judge (those of tokens where it is "off").
    `cut` [N]: whether the weight was cut off at `weight_max`.
    """

    weights: torch.Tensor
    kept: torch.Tensor
    mask: torch.Tensor
    log_ratio: torch.Tensor
    judged: torch.Tensor
    cut: torch.Tensor


@torch.no_grad()
def correct(
    proximal_logprobs: torch.Tensor,
    behaviour_logprobs: torch.Tensor,
    mask: torch.Tensor,
    sequence: torch.Tensor,
    num_sequences: int,
    settings: CorrectionSettings,
) -> Correction:
    """All tensors [N]; `mask` and `sequence` as in `LossTokens`. With proximal = "behaviour", give the policy's current
    log-probabilities: the ratio of the loss is the weight then, and only masks act.

    Weights, `settings.weight`: "token", π_prox(t)/μ(t): small variance, biased because the tokens before it came from μ
    too; "sequence", the product over the turn's sampled tokens: unbiased for the turn (not for the trajectory, whose
    earlier turns μ also chose). Both are cut off at `weight_max` (truncated importance sampling, Ionides 2008; for
    engines that differ from the learner, Yao et al. 2025, with 2).
    Masks, `settings.mask`: a weight outside [mask_low, mask_high] leaves out its "token" (IcePop, arXiv 2510.18855,
    with 0.5 and 5), its whole turn by the product ("sequence", Liu et al. 2025, "When speed kills stability"), or the
    turn by the "geometric" mean of its tokens' weights, which does not grow with length (there with 0.999 and 1.001).
    Products are cut off at e^±20, sums of log-ratios are exact.
    """
    log_ratio = masked(proximal_logprobs - behaviour_logprobs, mask)

    def ratio(level: str) -> torch.Tensor:
        if level == "sequence":
            return bounded_exp(sequence_sums(log_ratio, sequence, num_sequences))[sequence]
        if level == "geometric":
            return bounded_exp(sequence_means(log_ratio, mask, sequence, num_sequences))[sequence]
        return bounded_exp(log_ratio)

    judged = ratio(settings.mask)
    kept = mask
    if settings.mask != "off":
        kept = mask & (judged >= settings.mask_low) & (judged <= settings.mask_high)
    weights = torch.ones_like(log_ratio) if settings.weight == "off" else ratio(settings.weight)
    return Correction(
        weights=masked(weights.clamp(max=settings.weight_max) if settings.weight != "off" else weights, kept),
        kept=kept,
        mask=mask,
        log_ratio=log_ratio,
        judged=judged,
        cut=mask & (weights > settings.weight_max) if settings.weight != "off" else torch.zeros_like(mask),
    )


def measure_correction(sums: TokenSums, correction: Correction, settings: CorrectionSettings) -> None:
    """Add the tokens of one correction to `sums`; `correction_metrics` reads them."""
    mask = correction.mask
    judged = correction.judged[mask]
    sums.add(
        {
            "mismatch_kl": k3(correction.log_ratio[mask]),
            "mismatch_log_ratio": correction.log_ratio[mask],
            "weight_mean": judged,
            "weight_square": judged.double().square(),
            "weight_high_share": judged > settings.mask_high,
            "weight_low_share": judged < settings.mask_low,
            "weight_cut_share": correction.cut[mask],
            "masked_share": ~correction.kept[mask],
        },
        {"weight_max": judged},
    )


def correction_metrics(sums: TokenSums) -> dict[str, float]:
    """Means over trained tokens: `mismatch_kl` (k3 for KL(μ || π_prox), nats a token), `mismatch_log_ratio` (nats),
    `weight_mean`, `weight_max`, `weight_high_share`/`weight_low_share` (outside the masks' bounds, 0 to 1, whether or
    not they act), `weight_cut_share`, `masked_share`, and `weight_ess`, the effective sample size (Σw)²/(N Σw²), 0 to
    1. Weights are the raw ones. Nothing when no token was added."""
    metrics = sums.means()
    if metrics:
        metrics["weight_ess"] = metrics["weight_mean"] ** 2 / metrics.pop("weight_square")
    return metrics
