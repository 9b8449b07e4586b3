"""KL estimators: their values on samples, and their gradients as expectations, by enumeration of a small vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learner.losses.kl import KLEstimator, kl_loss, kl_value
from tests.unit import loss_oracle as oracle

ESTIMATORS: tuple[KLEstimator, ...] = ("k1", "k2", "k3", "low_var_kl")


def policies(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [6] with gradient, and the reference's log-probabilities [6]."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=6)).requires_grad_()
    return logits, torch.log_softmax(torch.from_numpy(rng.normal(size=6)), 0)


def expected_gradient(estimator: KLEstimator, seed: int) -> torch.Tensor:
    """E over a ~ π of the gradient of the estimate of a: what training on samples follows."""
    logits, reference = policies(seed)
    logprobs = torch.log_softmax(logits, 0)
    (logprobs.detach().exp() * kl_loss(logprobs, reference, estimator)).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return logits.grad


def exact_gradient(seed: int, *, forward: bool) -> torch.Tensor:
    """Of KL(π || ref), or with `forward` of KL(ref || π)."""
    logits, reference = policies(seed)
    logprobs = torch.log_softmax(logits, 0)
    if forward:
        (reference.exp() * (reference - logprobs)).sum().backward()  # type: ignore[no-untyped-call]
    else:
        (logprobs.exp() * (logprobs - reference)).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return logits.grad


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_values_equal_the_oracle(estimator: KLEstimator) -> None:
    rng = np.random.default_rng(0)
    logprobs = torch.from_numpy(-rng.exponential(2.0, size=200))
    reference = logprobs + torch.from_numpy(rng.normal(size=200) * 8)
    expected = [oracle.kl(p, q, estimator) for p, q in zip(logprobs.tolist(), reference.tolist(), strict=True)]
    np.testing.assert_allclose(kl_value(logprobs, reference, estimator), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(kl_loss(logprobs, reference, estimator), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
@pytest.mark.parametrize("seed", range(3))
def test_k1_and_k3_are_unbiased(estimator: KLEstimator, seed: int) -> None:
    logits, reference = policies(seed)
    logprobs = torch.log_softmax(logits, 0).detach()
    exact = float((logprobs.exp() * (logprobs - reference)).sum())
    assert float((logprobs.exp() * kl_value(logprobs, reference, estimator)).sum()) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("seed", range(3))
def test_the_expected_gradient_is_that_of_the_kl(estimator: KLEstimator, seed: int) -> None:
    torch.testing.assert_close(expected_gradient(estimator, seed), exact_gradient(seed, forward=False))


@pytest.mark.parametrize("seed", range(3))
def test_k3_as_published_follows_the_other_kl(seed: int) -> None:
    ours = expected_gradient("low_var_kl", seed)
    torch.testing.assert_close(ours, exact_gradient(seed, forward=True))
    assert not torch.allclose(ours, exact_gradient(seed, forward=False), rtol=1e-2)


def test_k1_as_it_stands_would_restrain_nothing() -> None:
    """Why `kl_loss` does not differentiate k1: its expected gradient is 0 for any two policies."""
    logits, reference = policies(0)
    logprobs = torch.log_softmax(logits, 0)
    (logprobs.detach().exp() * (logprobs - reference)).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logits.grad, torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("estimator", ["k2", "low_var_kl"])
def test_gradients_are_right_numerically(estimator: KLEstimator) -> None:
    rng = np.random.default_rng(1)
    logprobs = torch.from_numpy(-rng.exponential(2.0, size=30)).requires_grad_()
    reference = (logprobs + torch.from_numpy(rng.normal(size=30))).detach()
    assert torch.autograd.gradcheck(lambda p: kl_loss(p, reference, estimator).sum(), (logprobs,))


def test_values_have_no_gradient() -> None:
    logprobs = torch.zeros(3, requires_grad=True)
    assert not kl_value(logprobs, torch.ones(3), "k2").requires_grad


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("distance", [1e4, -1e4])
def test_extremes_stay_finite(estimator: KLEstimator, distance: float) -> None:
    logprobs = torch.zeros(2, requires_grad=True)
    loss = kl_loss(logprobs, torch.full((2,), distance), estimator).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()
