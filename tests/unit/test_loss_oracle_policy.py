"""Policy losses and the whole objective against the oracle, and their gradients against numerical ones."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from learner.losses.aggregation import token_weights
from learner.losses.measures import TokenSums, measure_policy
from learner.losses.objective import objective
from learner.losses.registry import LOSSES, find_loss
from learner.losses.tokens import LossTokens
from learner.losses.value import value_losses
from learner.named_function import UnknownFunction
from learner.settings import LossSettings
from tests.unit import loss_oracle as oracle

LENGTHS = {"one token": [1], "turns": [3, 17, 1, 50, 8], "fifty turns": [2] * 50}


def column(case: list[list[oracle.Token]], name: str) -> torch.Tensor:
    values = [token[name] for sequence in case for token in sequence]
    return torch.tensor(values, dtype=torch.bool if name == "mask" else torch.float64)


def tokens_of(case: list[list[oracle.Token]], logprobs: torch.Tensor | None = None) -> LossTokens:
    return LossTokens(
        logprobs=column(case, "logprob") if logprobs is None else logprobs,
        proximal_logprobs=column(case, "proximal"),
        advantages=column(case, "advantage"),
        mask=column(case, "mask"),
        sequence=torch.tensor([index for index, sequence in enumerate(case) for _ in sequence]),
        num_sequences=len(case),
    )


@pytest.mark.parametrize("policy", sorted(LOSSES))
@pytest.mark.parametrize("shape", LENGTHS)
@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 200.0])
@pytest.mark.parametrize("dual", [0.0, 3.0])
def test_losses_equal_the_oracle(policy: str, shape: str, spread: float, dual: float) -> None:
    settings = LossSettings(policy=policy, clip_low=0.2, clip_high=0.3, dual_clip=dual)
    for forced in (0.0, 0.3, 1.0):
        case = oracle.random_case(7, LENGTHS[shape], spread, forced)
        ours = find_loss(policy)(tokens_of(case), settings)
        np.testing.assert_allclose(ours, oracle.losses(case, policy, 0.2, 0.3, dual), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("policy", sorted(LOSSES))
@pytest.mark.parametrize("kl_estimator", ["k1", "k2", "k3", "low_var_kl"])
def test_the_objective_equals_the_oracle(policy: str, kl_estimator: str) -> None:
    settings = LossSettings.model_validate(
        {"policy": policy, "kl_coef": 0.3, "kl_estimator": kl_estimator, "entropy_coef": 0.1, "dual_clip": 3.0}
    )
    case = oracle.random_case(3, [5, 1, 30])
    weights = oracle.weights(case, "sequence_mean", 0, ["a", "b", "a"])
    factors = [factor for factor, _ in oracle.correction(case, "token", 1.5, "off", 0.0, 9.0)]
    flat = [token for sequence in case for token in sequence]
    expected = math.fsum(
        w * (c * loss + 0.3 * oracle.kl(t["logprob"], t["reference"], kl_estimator) - 0.1 * t["entropy"])
        for w, c, loss, t in zip(weights, factors, oracle.losses(case, policy, 0.2, 0.2, 3.0), flat, strict=True)
        if t["mask"]
    )
    ours = objective(
        tokens_of(case), torch.tensor(weights, dtype=torch.float64), settings,
        corrections=torch.tensor(factors, dtype=torch.float64), entropy=column(case, "entropy"),
        reference_logprobs=column(case, "reference"),
    )  # fmt: skip
    assert ours.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("policy", sorted(LOSSES))
@pytest.mark.parametrize("kl_estimator", ["k2", "low_var_kl"])
def test_gradients_are_right_numerically(policy: str, kl_estimator: str) -> None:
    settings = LossSettings.model_validate(
        {"policy": policy, "clip_low": 0.2, "clip_high": 0.3, "kl_coef": 0.1, "kl_estimator": kl_estimator,
         "entropy_coef": 0.1}
    )  # fmt: skip
    case = oracle.random_case(11, [4, 1, 20, 6], spread=0.5)
    weights = torch.tensor(oracle.weights(case, "token_mean", 0, ["a"] * 4), dtype=torch.float64)
    corrections = torch.rand(31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(logprobs: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
        return objective(
            tokens_of(case, logprobs), weights, settings, corrections=corrections, entropy=entropy,
            reference_logprobs=column(case, "reference"),
        )  # fmt: skip

    inputs = (column(case, "logprob").requires_grad_(), column(case, "entropy").requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("policy", ["token_ratio", "sequence_ratio"])
@pytest.mark.parametrize("border", [0.8, 1.3, 3.0])
@pytest.mark.parametrize("side", [-1e-4, 1e-4])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_gradients_on_both_sides_of_each_border(policy: str, border: float, side: float, advantage: float) -> None:
    """Central differences too small to cross the border, of a turn whose three sampled tokens have one ratio."""
    settings = LossSettings(policy=policy, clip_low=0.2, clip_high=0.3, dual_clip=3.0)
    start = math.log(border + side)
    case = oracle.random_case(0, [4], forced=0.0)
    for number, token in enumerate(case[0]):
        token.update(proximal=-3.0, logprob=-3.0 + start, advantage=advantage, mask=number != 2)
    logprobs = column(case, "logprob").requires_grad_()
    weights = torch.full((4,), 1 / 3, dtype=torch.float64)
    objective(tokens_of(case, logprobs), weights, settings).backward()  # type: ignore[no-untyped-call]
    assert logprobs.grad is not None
    step = 1e-7
    for number in range(4):
        ends = []
        for sign in (1, -1):
            moved = [[dict(token) for token in case[0]]]
            moved[0][number]["logprob"] += sign * step
            ends.append(math.fsum(oracle.losses(moved, policy, 0.2, 0.3, 3.0)) / 3)
        assert logprobs.grad[number].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7)
    flat = (border + side > 1.3) if advantage > 0 else (border + side < 0.8 or border + side > 3.0)
    assert (float(logprobs.grad.abs().max()) == 0.0) is flat


@pytest.mark.parametrize("policy", sorted(LOSSES))
def test_the_gradient_on_policy_is_the_policy_gradient(policy: str) -> None:
    case = oracle.random_case(5, [6, 3], spread=0.0)
    for number, sequence in enumerate(case):  # one advantage a turn
        for token in sequence:
            token["advantage"] = [2.0, -1.0][number]
    logprobs = column(case, "logprob").requires_grad_()
    weights = torch.tensor(oracle.weights(case, "sequence_mean", 0, ["a", "b"]), dtype=torch.float64)
    objective(tokens_of(case, logprobs), weights, LossSettings(policy=policy)).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logprobs.grad, -weights * column(case, "advantage"))


def test_the_sequence_ratio_has_gspo_s_gradient() -> None:
    """Σ_i (1/S) s_i A_i (1/n_i) Σ_t ∇ln π(t) where nothing is clipped (GSPO, the gradient of its objective)."""
    settings = LossSettings(policy="sequence_ratio", clip_low=0.9, clip_high=9.0, dual_clip=0.0)
    case = oracle.random_case(9, [7, 2, 12])
    for number, sequence in enumerate(case):
        for token in sequence:
            token["advantage"] = [1.5, 2.0, 0.5][number]
    logprobs = column(case, "logprob").requires_grad_()
    weights = oracle.weights(case, "sequence_mean", 0, ["a", "b", "c"])
    objective(tokens_of(case, logprobs), torch.tensor(weights, dtype=torch.float64), settings).backward()  # type: ignore[no-untyped-call]
    expected = []
    for number, sequence in enumerate(case):
        trained = [t for t in sequence if t["mask"]]
        ratio = math.exp(math.fsum(t["logprob"] - t["proximal"] for t in trained) / len(trained))
        share = ratio * [1.5, 2.0, 0.5][number] / len(trained) / 3
        expected += [-share if t["mask"] else 0.0 for t in sequence]
    np.testing.assert_allclose(logprobs.grad, expected, rtol=1e-12)


@pytest.mark.parametrize("policy", sorted(LOSSES))
@pytest.mark.parametrize("ratio", [1e4, -1e4])
def test_extremes_and_what_stands_at_forced_tokens_stay_out(policy: str, ratio: float) -> None:
    settings = LossSettings(policy=policy, kl_coef=0.1, entropy_coef=0.1)
    case = oracle.random_case(1, [6, 4], forced=0.0)
    for number, token in enumerate([*case[0], *case[1]]):
        token["logprob"] = token["proximal"] + ratio
        if number % 3 == 0:
            token.update(mask=False, proximal=math.nan, advantage=math.nan, reference=math.nan, entropy=math.nan)
    logprobs = torch.where(column(case, "mask"), column(case, "logprob"), 0.0).requires_grad_()
    nan = torch.where(column(case, "mask"), 1.0, math.nan)
    loss = objective(
        tokens_of(case, logprobs), nan, settings, corrections=nan, entropy=column(case, "entropy"),
        reference_logprobs=column(case, "reference"),
    )  # fmt: skip
    loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(loss.item())
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()
    assert torch.all(logprobs.grad[~column(case, "mask")] == 0.0)


@pytest.mark.parametrize("policy", sorted(LOSSES))
@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant", "trajectory_mean"])
def test_the_loss_and_its_gradient_do_not_depend_on_packing(policy: str, aggregation: str) -> None:
    """Any split of the turns into micro-batches, in any order: one sum, to 1e-12."""
    settings = LossSettings(policy=policy)
    case = oracle.random_case(2, [5, 1, 30, 2, 9, 14, 3, 8])
    case[3] = oracle.random_case(2, [2], forced=1.0)[0]
    masks = [np.array([token["mask"] for token in sequence]) for sequence in case]
    weights = token_weights(masks, aggregation, max_response_tokens=64, trajectories=list("aabbcdde"))
    np.testing.assert_allclose(
        np.concatenate(weights), oracle.weights(case, aggregation, 64, list("aabbcdde")), rtol=1e-12
    )
    whole = column(case, "logprob").requires_grad_()
    expected = objective(tokens_of(case, whole), torch.from_numpy(np.concatenate(weights)), settings)
    expected.backward()  # type: ignore[no-untyped-call]
    assert whole.grad is not None
    gradients = dict(enumerate(torch.split(whole.grad, [len(sequence) for sequence in case])))
    rng = np.random.default_rng(4)
    for _ in range(5):
        total = 0.0
        cuts = sorted(rng.choice(np.arange(1, 8), size=3, replace=False).tolist())
        for members in np.split(rng.permutation(8), cuts):
            part = [case[member] for member in members.tolist()]
            logprobs = column(part, "logprob").requires_grad_()
            packed = torch.from_numpy(np.concatenate([weights[member] for member in members.tolist()]))
            loss = objective(tokens_of(part, logprobs), packed, settings)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            wanted = torch.cat([gradients[member] for member in members.tolist()])
            assert logprobs.grad is not None
            torch.testing.assert_close(logprobs.grad, wanted, rtol=1e-12, atol=1e-14)
        assert total == pytest.approx(expected.item(), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(("settings", "missing"), [({"kl_coef": 0.1}, "reference"), ({"entropy_coef": 0.1}, "entropy")])
def test_what_is_missing_is_named(settings: dict[str, float], missing: str) -> None:
    with pytest.raises(ValueError, match=f"needs {missing}"):
        objective(tokens_of(oracle.random_case(0, [2])), torch.ones(2), LossSettings.model_validate(settings))


def test_kl_in_the_reward_is_not_in_the_loss() -> None:
    case = oracle.random_case(0, [5])
    plain = objective(tokens_of(case), torch.ones(5), LossSettings())
    rewarded = objective(tokens_of(case), torch.ones(5), LossSettings(kl_coef=0.5, kl_in="reward"))
    assert plain.item() == rewarded.item()


@pytest.mark.parametrize("value_clip", [0.0, 0.5])
def test_value_losses_equal_the_oracle_and_their_gradient(value_clip: float) -> None:
    rng = np.random.default_rng(0)
    values, old, targets = (torch.from_numpy(rng.normal(size=40)) for _ in range(3))
    ours = value_losses(values, old, targets, value_clip)
    for v, o, r, loss in zip(values.tolist(), old.tolist(), targets.tolist(), ours.tolist(), strict=True):
        squares = [(v - r) ** 2]
        if value_clip:
            squares.append((min(max(v, o - value_clip), o + value_clip) - r) ** 2)
        assert loss == pytest.approx(max(squares) / 2, rel=1e-12)
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: value_losses(v, old, targets, value_clip).sum(), (values,))


def test_measures_are_means_over_tokens_however_they_are_split() -> None:
    case = oracle.random_case(4, [9, 20, 5, 1], spread=1.0)
    for policy in ("token_ratio", "sequence_ratio"):
        settings = LossSettings(policy=policy, clip_low=0.2, clip_high=0.3)
        whole, first, second = TokenSums(), TokenSums(), TokenSums()
        measure_policy(whole, tokens_of(case), settings, column(case, "entropy"), column(case, "reference"))
        for sums, part in ((first, case[:2]), (second, case[2:])):
            measure_policy(sums, tokens_of(part), settings, column(part, "entropy"), column(part, "reference"))
        first.merge(second)
        assert first.means() == pytest.approx(whole.means(), rel=1e-12)
        assert first.tokens == sum(token["mask"] for sequence in case for token in sequence)
        clipped = 0
        for sequence in case:
            trained = [t for t in sequence if t["mask"]]
            for t in trained:
                chosen = trained if policy == "sequence_ratio" else [t]
                ratio = math.exp(sum(u["logprob"] - u["proximal"] for u in chosen) / len(chosen))
                clipped += t["advantage"] > 0 and ratio > 1.3
        assert whole.means()["clip_high_share"] == pytest.approx(clipped / whole.tokens)
    assert TokenSums().means() == {}


def test_aggregation_without_what_it_needs() -> None:
    masks = [np.array([True, False]), np.array([False])]
    with pytest.raises(ValueError, match="constant needs max_response_tokens"):
        token_weights(masks, "constant")
    with pytest.raises(ValueError, match="0 trajectory ids for 2 turns"):
        token_weights(masks, "trajectory_mean")
    with pytest.raises(ValueError, match="'median' is unknown"):
        token_weights(masks, "median")


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant", "trajectory_mean"])
def test_no_trained_token_no_weight(aggregation: str) -> None:
    weights = token_weights([np.zeros(3, bool)], aggregation, max_response_tokens=8, trajectories=["a"])
    np.testing.assert_array_equal(weights[0], np.zeros(3))
    assert token_weights([], aggregation, max_response_tokens=8) == []


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    text = "def plain(tokens, settings):\n    return -tokens.logprobs * tokens.advantages\n"
    (tmp_path / "own_losses.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_losses"
    sys.modules.pop("own_losses", None)


def test_one_s_own_loss_is_one_function(own_module: str) -> None:
    case = oracle.random_case(0, [5, 2])
    ours = objective(tokens_of(case), torch.ones(7), LossSettings(policy=f"{own_module}:plain"))
    flat = [token for sequence in case for token in sequence if token["mask"]]
    assert ours.item() == pytest.approx(-math.fsum(t["logprob"] * t["advantage"] for t in flat), rel=1e-12)


def test_a_name_that_leads_nowhere(own_module: str) -> None:
    with pytest.raises(ValidationError, match="did you mean token_ratio"):
        LossSettings(policy="token_ration")
    with pytest.raises(UnknownFunction, match="cannot be loaded"):
        find_loss(f"{own_module}:missing")


def test_no_token_no_measure() -> None:
    tokens = tokens_of(oracle.random_case(0, [3], forced=1.0))
    sums = TokenSums()
    measure_policy(sums, tokens, LossSettings())
    assert sums.means() == {}
