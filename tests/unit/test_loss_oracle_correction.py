"""Importance weights, their cut-off and masks against the oracle; what is measured of them; what they are for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from learner.losses.correction import Correction, correct, correction_metrics, measure_correction
from learner.losses.measures import TokenSums
from learner.losses.objective import objective
from learner.settings import CorrectionSettings, LossSettings
from tests.unit import loss_oracle as oracle
from tests.unit.test_loss_oracle_policy import column, tokens_of


def settings_of(**values: object) -> CorrectionSettings:
    return CorrectionSettings.model_validate({"proximal": "recomputed", **values})


def corrected(case: list[list[oracle.Token]], settings: CorrectionSettings) -> Correction:
    tokens = tokens_of(case)
    return correct(
        tokens.proximal_logprobs, column(case, "behaviour"), tokens.mask, tokens.sequence, len(case), settings
    )


@pytest.mark.parametrize("weight", ["off", "token", "sequence"])
@pytest.mark.parametrize("mask", ["off", "token", "sequence", "geometric"])
@pytest.mark.parametrize("spread", [0.0, 0.3, 2.0, 300.0])
def test_weights_and_masks_equal_the_oracle(weight: str, mask: str, spread: float) -> None:
    settings = settings_of(weight=weight, mask=mask, weight_max=1.7, mask_low=0.6, mask_high=1.5)
    for forced in (0.0, 0.3, 1.0):
        case = oracle.random_case(3, [1, 4, 50, 9, 2], spread, forced)
        ours = corrected(case, settings)
        expected = oracle.correction(case, weight, 1.7, mask, 0.6, 1.5)
        np.testing.assert_allclose(ours.weights, [factor for factor, _ in expected], rtol=1e-9, atol=1e-12)
        assert ours.kept.tolist() == [kept for _, kept in expected]
        assert not ours.weights.requires_grad


def test_equal_policies_change_nothing() -> None:
    case = oracle.random_case(0, [5, 9], spread=0.0)
    ours = corrected(case, settings_of(weight="sequence", mask="geometric", mask_low=0.999, mask_high=1.001))
    assert torch.equal(ours.kept, column(case, "mask"))
    torch.testing.assert_close(ours.weights, column(case, "mask").double())


@pytest.mark.parametrize("side", [-1e-6, 1e-6])
@pytest.mark.parametrize("bound", [0.5, 2.0])
def test_what_lies_beyond_a_bound_is_left_out(bound: float, side: float) -> None:
    case = oracle.random_case(0, [1], forced=0.0)
    case[0][0].update(proximal=math.log(bound + side), behaviour=0.0)
    assert corrected(case, settings_of(mask="token")).kept.item() is (0.5 <= bound + side <= 2.0)


def test_nan_at_forced_tokens_stays_out() -> None:
    case = oracle.random_case(1, [6, 3], forced=0.0)
    case[0][2].update(mask=False, behaviour=math.nan, proximal=math.nan)
    ours = corrected(case, settings_of(weight="sequence", mask="geometric"))
    assert torch.isfinite(ours.weights).all()
    assert ours.weights[2] == 0.0


def test_no_gradient_reaches_the_policy_through_a_weight() -> None:
    case = oracle.random_case(1, [6])
    logprobs = column(case, "logprob").requires_grad_()
    tokens = tokens_of(case)
    ours = correct(logprobs, column(case, "behaviour"), tokens.mask, tokens.sequence, 1, settings_of(weight="token"))
    assert not ours.weights.requires_grad


def test_the_decoupled_loss_is_the_weight_times_the_clipped_ratio() -> None:
    """E_μ[π_prox/μ * min(ρA, clip(ρ)A)], ρ = π/π_prox; its gradient at π = π_prox is that of the plain importance
    weighted policy gradient, -π/μ A ∇ln π."""
    case = oracle.random_case(6, [8, 5])
    tokens = tokens_of(case)
    ours = corrected(case, settings_of(weight="token", weight_max=1e9))
    weights = torch.full_like(tokens.logprobs, 1 / 13)
    value = objective(tokens, weights, LossSettings(dual_clip=0.0), corrections=ours.weights)
    flat = [token for sequence in case for token in sequence]
    expected = math.fsum(
        math.exp(t["proximal"] - t["behaviour"]) * loss / 13
        for t, loss in zip(flat, oracle.losses(case, "token_ratio", 0.2, 0.2, 0.0), strict=True)
        if t["mask"]
    )
    assert value.item() == pytest.approx(expected, rel=1e-12)
    logprobs = column(case, "proximal").requires_grad_()
    objective(tokens_of(case, logprobs), weights, LossSettings(), corrections=ours.weights).backward()  # type: ignore[no-untyped-call]
    ratio = (column(case, "proximal") - column(case, "behaviour")).exp()
    plain = torch.where(tokens.mask, -ratio * tokens.advantages / 13, 0.0)
    torch.testing.assert_close(logprobs.grad, plain)


def test_sequence_weights_make_an_expectation_unbiased() -> None:
    """All replies of two tokens over three symbols, drawn from μ: Σ μ(y) w(y) f(y) = Σ π(y) f(y)."""
    rng = np.random.default_rng(0)
    mu, pi = (rng.dirichlet(np.ones(3), size=4) for _ in range(2))  # row 0: first token; row 1 + a: second after a
    total, exact = 0.0, 0.0
    for a in range(3):
        for b in range(3):
            logs = [np.log([table[0][a], table[1 + a][b]]) for table in (pi, mu)]
            ours = correct(
                torch.from_numpy(logs[0]), torch.from_numpy(logs[1]), torch.ones(2, dtype=torch.bool),
                torch.zeros(2, dtype=torch.int64), 1, settings_of(weight="sequence", weight_max=1e9),
            )  # fmt: skip
            total += float(np.exp(logs[1].sum()) * ours.weights[0] * (a * 3 + b))
            exact += float(np.exp(logs[0].sum()) * (a * 3 + b))
    assert total == pytest.approx(exact, rel=1e-12)


def test_metrics_equal_the_oracle_however_they_are_split() -> None:
    settings = settings_of(weight="token", mask="token", weight_max=1.2, mask_low=0.8, mask_high=1.5)
    case = oracle.random_case(8, [9, 30, 1, 14], spread=0.4)
    whole, split = TokenSums(), TokenSums()
    measure_correction(whole, corrected(case, settings), settings)
    for part in (case[:1], case[1:3], case[3:]):
        other = TokenSums()
        measure_correction(other, corrected(part, settings), settings)
        split.merge(other)
    x = [t["proximal"] - t["behaviour"] for sequence in case for t in sequence if t["mask"]]
    w = [math.exp(value) for value in x]
    n = len(w)
    expected = {
        "mismatch_kl": math.fsum(b - 1 - a for a, b in zip(x, w, strict=True)) / n,
        "mismatch_log_ratio": math.fsum(x) / n,
        "weight_mean": math.fsum(w) / n,
        "weight_ess": math.fsum(w) ** 2 / (n * math.fsum(value**2 for value in w)),
        "weight_max": max(w),
        "weight_high_share": sum(value > 1.5 for value in w) / n,
        "weight_low_share": sum(value < 0.8 for value in w) / n,
        "weight_cut_share": sum(value > 1.2 for value in w) / n,
        "masked_share": sum(not 0.8 <= value <= 1.5 for value in w) / n,
    }
    assert correction_metrics(whole) == pytest.approx(expected, rel=1e-9)
    assert correction_metrics(split) == pytest.approx(expected, rel=1e-9)
    assert correction_metrics(TokenSums()) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mask_low": 2.0, "mask_high": 2.0}, "must be below mask_high"),
        ({"weight": "token", "proximal": "behaviour"}, "is the importance weight already"),
    ],
)
def test_settings_that_contradict_themselves(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings_of(**values)


@pytest.mark.parametrize("bound", [0.5, 1.0])
def test_a_dual_clip_that_acts_everywhere_is_refused(bound: float) -> None:
    with pytest.raises(ValidationError, match="must be above 1, or 0"):
        LossSettings(dual_clip=bound)
