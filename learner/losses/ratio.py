"""Policy losses by the ratio of the trained to the proximal policy: of a token, of a whole turn, unclipped.

Owns: these losses. Called through `learner.losses.registry`. Must not know: how tokens are weighed, KL, entropy.

Each returns the loss of each token [N], 0 where masked; `learner.losses.objective` sums them with weights. The unit is
that of the advantages.
"""

from __future__ import annotations

import torch

from learner.losses.tokens import LossTokens, bounded_exp, masked, sequence_means
from learner.settings import LossSettings


def token_ratio(tokens: LossTokens, settings: LossSettings) -> torch.Tensor:
    """-min(ρA, clip(ρ, 1 - clip_low, 1 + clip_high) A), for A < 0 at most -dual_clip A; ρ_t = π(t)/π_prox(t).

    Sources: PPO (arXiv 1707.06347), equation 7; two clips (clip-higher), DAPO (arXiv 2503.14476); dual clip, Ye et al.
    2020 (arXiv 1912.09729).
    """
    return masked(clipped(bounded_exp(tokens.log_ratio()), tokens.trained_advantages(), settings), tokens.mask)


def sequence_ratio(tokens: LossTokens, settings: LossSettings) -> torch.Tensor:
    """The same with one ratio for all tokens of a turn: s_i = exp(mean over its sampled tokens of ln π - ln π_prox).

    Forced tokens are in neither the mean nor the loss. The gradient is that of the formula: each sampled token of turn
    i gets s_i/n_i of it, whichever token's loss it comes through. With one advantage and one weight a turn this is
    GSPO's, Σ_t s_i A_i ∇ln π(t)/n_i, and that of its per-token form with a stopped gradient. Sources: GSPO (arXiv
    2507.18071), sequence ratio and its gradient; SAMPO (METHOD section 5) with A = A_episode + ω A_step. Neither
    publishes a dual clip: `dual_clip` = 0.
    """
    means = sequence_means(tokens.log_ratio(), tokens.mask, tokens.sequence, tokens.num_sequences)
    return masked(clipped(bounded_exp(means)[tokens.sequence], tokens.trained_advantages(), settings), tokens.mask)


def unclipped(tokens: LossTokens, settings: LossSettings) -> torch.Tensor:
    """-ρA: REINFORCE (Williams 1992) with the importance weight of the sampled token; on-policy its gradient is
    -A ∇ln π. Nothing bounds ρ but e^±20: for one update a step, or with a cut-off in `correction`."""
    return masked(-bounded_exp(tokens.log_ratio()) * tokens.trained_advantages(), tokens.mask)


def clipped(ratio: torch.Tensor, advantages: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """max(-ρA, -clip(ρ)A), and for A < 0 not more than -dual_clip A (0: no such bound); all [N]."""
    inside = ratio.clamp(1.0 - settings.clip_low, 1.0 + settings.clip_high)
    loss = torch.maximum(-ratio * advantages, -inside * advantages)
    if settings.dual_clip:
        loss = torch.where(advantages < 0, torch.minimum(loss, -settings.dual_clip * advantages), loss)
    return loss
