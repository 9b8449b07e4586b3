"""The policy loss against a token-by-token float64 oracle; its gradient numerically."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from learner.loss import LossSums, k3, policy_loss
from learner.settings import LearnerSettings

SETTINGS = LearnerSettings(clip_low=0.2, clip_high=0.3, dual_clip=3.0)


def oracle(logprobs, behaviour, advantages, mask, normaliser, settings, entropy=None, reference=None) -> float:
    total = 0.0
    for i in range(len(logprobs)):
        if not mask[i]:
            continue
        ratio = math.exp(logprobs[i] - behaviour[i])
        a = advantages[i]
        objective = min(ratio * a, min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high) * a)
        if a < 0:
            objective = max(objective, settings.dual_clip * a)
        term = -objective
        if settings.kl_coef:
            delta = reference[i] - logprobs[i]
            term += settings.kl_coef * (math.exp(delta) - 1 - delta)
        if settings.entropy_coef:
            term -= settings.entropy_coef * entropy[i]
        total += term
    return total / normaliser


def case(seed: int, size: int = 200, spread: float = 1.0):
    rng = np.random.default_rng(seed)
    logprobs = torch.tensor(-rng.exponential(2.0, size=size))
    behaviour = logprobs + torch.tensor(rng.normal(size=size) * spread)
    advantages = torch.tensor(rng.normal(size=size) * 5)
    mask = torch.tensor(rng.random(size) < 0.8)
    entropy = torch.tensor(rng.random(size))
    reference = logprobs + torch.tensor(rng.normal(size=size))
    return logprobs, behaviour, advantages, mask, entropy, reference


@pytest.mark.parametrize("kl_coef", [0.0, 0.01])
@pytest.mark.parametrize("entropy_coef", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_equals_oracle(seed: int, kl_coef: float, entropy_coef: float) -> None:
    settings = SETTINGS.model_copy(update={"kl_coef": kl_coef, "entropy_coef": entropy_coef})
    logprobs, behaviour, advantages, mask, entropy, reference = case(seed)
    loss = policy_loss(
        logprobs, behaviour, advantages, mask, 137.0, settings, entropy=entropy, reference_logprobs=reference
    )
    expected = oracle(
        *(t.tolist() for t in (logprobs, behaviour, advantages, mask)), 137.0, settings, entropy.tolist(),
        reference.tolist(),
    )  # fmt: skip
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_right_numerically() -> None:
    settings = SETTINGS.model_copy(update={"kl_coef": 0.1, "entropy_coef": 0.1})
    logprobs, behaviour, advantages, mask, entropy, reference = case(3, size=40)
    logprobs.requires_grad_()
    entropy.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda lp, e: policy_loss(
            lp, behaviour, advantages, mask, 40.0, settings, entropy=e, reference_logprobs=reference
        ),
        (logprobs, entropy),
    )


def test_on_policy_gradient_is_the_plain_policy_gradient() -> None:
    logprobs, _, advantages, mask, _, _ = case(0)
    logprobs.requires_grad_()
    policy_loss(logprobs, logprobs.detach().clone(), advantages, mask, 10.0, SETTINGS).backward()
    torch.testing.assert_close(logprobs.grad, torch.where(mask, -advantages / 10.0, torch.zeros_like(advantages)))


def test_forced_tokens_get_no_gradient_and_no_weight() -> None:
    logprobs, behaviour, advantages, mask, _, _ = case(1)
    behaviour = torch.where(mask, behaviour, torch.full_like(behaviour, float("nan")))
    logprobs.requires_grad_()
    loss = policy_loss(logprobs, behaviour, advantages, mask, 10.0, SETTINGS)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logprobs.grad is not None
    assert torch.all(logprobs.grad[~mask] == 0.0)
    assert torch.isfinite(logprobs.grad).all()


def test_extreme_ratios_stay_finite() -> None:
    logprobs = torch.tensor([-1e4, 0.0, -1e4, 0.0], requires_grad=True)
    behaviour = torch.tensor([0.0, -1e4, 0.0, -1e4])
    loss = policy_loss(logprobs, behaviour, torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.ones(4).bool(), 4.0, SETTINGS)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()


def test_micro_batches_sum_to_the_whole() -> None:
    logprobs, behaviour, advantages, mask, _, _ = case(2)
    whole = policy_loss(logprobs, behaviour, advantages, mask, 77.0, SETTINGS)
    parts = sum(
        policy_loss(logprobs[a:b], behaviour[a:b], advantages[a:b], mask[a:b], 77.0, SETTINGS)
        for a, b in ((0, 13), (13, 14), (14, 200))
    )
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=0)


def test_k3_is_an_unbiased_kl_that_is_never_negative() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))
    log_ratio = torch.tensor(np.log(q / p))
    assert torch.all(k3(log_ratio) >= 0)
    assert float((torch.tensor(p) * k3(log_ratio)).sum()) == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-9)


def test_sums_over_micro_batches_are_token_means() -> None:
    logprobs, behaviour, advantages, mask, entropy, _ = case(4)
    split, whole = LossSums(), LossSums()
    whole.add(logprobs, behaviour, advantages, mask, SETTINGS, entropy)
    for a, b in ((0, 50), (50, 51), (51, 200)):
        split.add(logprobs[a:b], behaviour[a:b], advantages[a:b], mask[a:b], SETTINGS, entropy[a:b])
    assert split.tokens == whole.tokens == int(mask.sum())
    assert split.means() == pytest.approx(whole.means(), rel=1e-9)
    log_ratio = (logprobs - behaviour)[mask]
    assert whole.means()["log_ratio_mean"] == pytest.approx(log_ratio.mean().item())
    high = ((log_ratio.exp() > 1.3) & (advantages[mask] > 0)).double().mean().item()
    assert whole.means()["clip_high_share"] == pytest.approx(high)


def test_no_tokens_no_means() -> None:
    sums = LossSums()
    sums.add(torch.zeros(3), torch.zeros(3), torch.ones(3), torch.zeros(3).bool(), SETTINGS)
    assert sums.means() == {}
