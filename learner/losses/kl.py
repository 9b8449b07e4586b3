"""KL of the trained policy to a reference policy, from one sampled token each: value and loss.

Owns: `kl_value`, `kl_loss`. Called by `learner.losses.objective`, `learner.losses.measures` and, for KL in the reward,
by the learner. Must not know: whose policy the reference is.

With x = ln π(a) - ln ref(a) and a sampled from π, in nats (Schulman 2020, "Approximating KL divergence"):
    k1 = x                 unbiased for KL(π || ref), of either sign
    k2 = x²/2              biased, small variance
    k3 = exp(-x) - 1 + x   unbiased, never negative

An unbiased value is not an unbiased gradient: differentiating an estimate leaves out that the samples depend on π too.
The gradient of KL(π || ref) is E[x ∇ln π]. Differentiated as they stand,
    k1 gives E[∇ln π] = 0: noise that restrains nothing,
    k2 gives E[x ∇ln π]: the right one,
    k3 gives E[(1 - exp(-x)) ∇ln π]: the gradient of KL(ref || π), equal to first order in x.
So `kl_loss` has the value of the estimator that is asked for and, for k1, k2 and k3, k2's gradient. `low_var_kl` is k3
with its own gradient, as published for GRPO (arXiv 2402.03300, equation 4) and in METHOD section 6. All of this is for
samples from π itself; for stale ones the gradient is off by their importance ratio. In the reward only values count,
and there k1 is the unbiased choice.
"""

from __future__ import annotations

from typing import Literal

import torch

from learner.losses.tokens import MAX_LOG_RATIO

KLEstimator = Literal["k1", "k2", "k3", "low_var_kl"]


def k3(log_ratio: torch.Tensor) -> torch.Tensor:
    """exp(y) - 1 - y [N], y = ln q(a) - ln p(a) with a sampled from p, cut off at ±20: unbiased for KL(p || q), ≥ 0."""
    bounded = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(bounded) - bounded


@torch.no_grad()
def kl_value(logprobs: torch.Tensor, reference_logprobs: torch.Tensor, estimator: KLEstimator) -> torch.Tensor:
    """The estimate of each token [N], nats, without gradient."""
    return _estimate(logprobs - reference_logprobs, estimator)


def kl_loss(logprobs: torch.Tensor, reference_logprobs: torch.Tensor, estimator: KLEstimator) -> torch.Tensor:
    """The estimate of each token [N], nats, with the gradient that the module's text gives; `reference_logprobs` has
    none."""
    difference = logprobs - reference_logprobs.detach()
    if estimator == "low_var_kl":
        return _estimate(difference, estimator)
    half_square = 0.5 * difference.square()
    return _estimate(difference.detach(), estimator) + (half_square - half_square.detach())


def _estimate(difference: torch.Tensor, estimator: KLEstimator) -> torch.Tensor:
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference.square()
    return k3(-difference)
