"""The loss of one micro-batch: the policy's, with its correction, KL and entropy, each token with its weight.

Owns: `objective`. Called by the learner. Must not know: models, packing, ranks.
"""

from __future__ import annotations

import torch

from learner.losses.kl import kl_loss
from learner.losses.registry import find_loss
from learner.losses.tokens import LossTokens, masked
from learner.settings import LossSettings


def objective(
    tokens: LossTokens,
    weights: torch.Tensor,
    settings: LossSettings,
    *,
    corrections: torch.Tensor | None = None,
    entropy: torch.Tensor | None = None,
    reference_logprobs: torch.Tensor | None = None,
) -> torch.Tensor:
    """Σ_t w_t (c_t l_t + kl_coef KL_t - entropy_coef H_t) over the tokens that `tokens.mask` trains: a scalar.

    `weights` [N]: `token_weights` of the whole minibatch, so micro-batches and ranks add up. `corrections` [N]: weights
    of `learner.losses.correction`; they act on the policy's loss alone. `entropy` [N], nats, with gradient, is needed
    for entropy_coef > 0; `reference_logprobs` [N], without gradient, for kl_coef > 0 in the loss. ValueError where one
    is missing. Sources: `learner.losses.ratio`, `.kl`, `.correction`, `.aggregation`; entropy bonus, Williams and Peng
    1991.
    """
    per_token = find_loss(settings.policy)(tokens, settings)
    if corrections is not None:
        per_token = per_token * masked(corrections.to(per_token.dtype), tokens.mask)
    if settings.kl_coef > 0 and settings.kl_in == "loss":
        if reference_logprobs is None:
            raise ValueError("objective: kl_coef > 0 needs reference_logprobs")
        reference = torch.where(tokens.mask, reference_logprobs, tokens.logprobs.detach())
        divergence = kl_loss(tokens.logprobs, reference, settings.kl_estimator)
        per_token = per_token + settings.kl_coef * masked(divergence, tokens.mask)
    if settings.entropy_coef > 0:
        if entropy is None:
            raise ValueError("objective: entropy_coef > 0 needs entropy")
        per_token = per_token - settings.entropy_coef * masked(entropy, tokens.mask)
    return (masked(per_token, tokens.mask) * masked(weights.to(per_token.dtype), tokens.mask)).sum()
