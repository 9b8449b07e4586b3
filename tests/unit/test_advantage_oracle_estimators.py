"""Each advantage estimator against the slow float64 oracle of `advantage_oracle`."""

from __future__ import annotations

import numpy as np
import pytest

from learner.advantages.gae import value_targets, whiten
from learner.advantages.group_turns import GroupTurns, discounted_returns, with_kl_in_reward
from learner.advantages.registry import ESTIMATORS, estimate
from learner.settings import AdvantageSettings
from tests.unit import advantage_oracle as oracle

SHAPES = {
    "singleton": [5],
    "one turn alone": [1],
    "one turn each": [1, 1, 1, 1],
    "fifty turns": [50, 50, 1],
    "mixed": [3, 1, 17, 50, 8, 2, 1, 30],
    "pair": [4, 9],
}
RELATIVE = ("reinforce", "reinforce_mean", "rloo", "grpo", "dr_grpo", "gigpo")


def turns_of(group: list[oracle.Trajectory], *, ended: bool = True, final: float = 0.0) -> GroupTurns:
    return GroupTurns(
        rewards=[np.array(t["rewards"], dtype=np.float64) for t in group],
        invalid=[np.array(t["invalid"], dtype=np.bool_) for t in group],
        anchors=[t["anchors"] for t in group],
        won=[sum(t["rewards"]) > 0 for t in group],
        ended=[ended] * len(group),
        values=[np.array(t["values"], dtype=np.float64) for t in group],
        final_values=None if ended else [final] * len(group),
    )


def expected(name: str, group: list[oracle.Trajectory], settings: AdvantageSettings) -> list[list[float]]:
    penalty, mean = settings.invalid_penalty, settings.group_mean
    with_std = settings.normalise == "mean_std_norm"
    if name == "reinforce":
        return oracle.reinforce(group, penalty)
    if name == "rloo":
        return oracle.rloo(group, penalty, mean)
    if name == "gigpo":
        return oracle.gigpo(group, penalty, mean, with_std, settings.gamma, settings.step_weight)
    return oracle.grpo(group, penalty, mean, with_std and name == "grpo")


def assert_close(ours: list[np.ndarray], theirs: list[list[float]]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", RELATIVE)
@pytest.mark.parametrize("group_mean", ["per_turn", "per_trajectory"])
@pytest.mark.parametrize("normalise", ["mean_norm", "mean_std_norm"])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_groups_equal_the_oracle(name: str, group_mean: str, normalise: str, shape: str) -> None:
    settings = AdvantageSettings.model_validate(
        {"estimator": name, "group_mean": group_mean, "normalise": normalise, "gamma": 0.9, "step_weight": 0.7}
    )
    rng = np.random.default_rng(len(shape))
    for kind in ("random", "sparse"):
        group = oracle.random_group(rng, SHAPES[shape], kind=kind)
        assert_close(estimate(turns_of(group), settings), expected(name, group, settings))


@pytest.mark.parametrize("name", [name for name in RELATIVE if name != "reinforce"])
@pytest.mark.parametrize("normalise", ["mean_norm", "mean_std_norm"])
def test_equal_rewards_without_invalid_turns_give_exactly_zero(name: str, normalise: str) -> None:
    """A mean of equal numbers may be off by the last bit, and a standard deviation of that would make it large."""
    settings = AdvantageSettings.model_validate({"estimator": name, "normalise": normalise, "invalid_penalty": 0.0})
    group = oracle.random_group(np.random.default_rng(0), [1] * 7, kind="equal")
    assert all(np.all(values == 0.0) for values in estimate(turns_of(group), settings))


@pytest.mark.parametrize("gamma, lam", [(0.95, 0.95), (1.0, 1.0), (0.99, 0.9), (0.9, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("shape", SHAPES)
def test_gae_is_the_mixture_of_n_step_advantages(gamma: float, lam: float, shape: str) -> None:
    settings = AdvantageSettings(estimator="gae", gamma=gamma, gae_lambda=lam)
    group = oracle.random_group(np.random.default_rng(3), SHAPES[shape])
    for ended, final in ((True, 0.0), (False, 2.5)):
        turns = turns_of(group, ended=ended, final=final)
        wanted = [oracle.gae(t, settings.invalid_penalty, gamma, lam, final) for t in group]
        assert_close(estimate(turns, settings), wanted)
        bare = [oracle.gae(t, 0.0, gamma, lam, final) for t in group]
        targets = [[v + a for v, a in zip(t["values"], b, strict=True)] for t, b in zip(group, bare, strict=True)]
        assert_close(value_targets(turns, settings), targets)


def test_gae_with_lambda_one_is_the_return_less_the_value() -> None:
    settings = AdvantageSettings(estimator="gae", gamma=0.9, gae_lambda=1.0, invalid_penalty=0.0)
    group = turns_of(oracle.random_group(np.random.default_rng(1), [50, 3]))
    assert group.values is not None
    for ours, rewards, values in zip(estimate(group, settings), group.rewards, group.values, strict=True):
        np.testing.assert_allclose(ours, discounted_returns(rewards, 0.9) - values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_the_penalty_touches_its_own_turn_alone_in_the_return(name: str) -> None:
    """Of two groups that differ in one flag: the flagged turn is `invalid_penalty` worse against every other turn of
    its own trajectory, and those do not move against each other."""
    group = oracle.random_group(np.random.default_rng(5), [6, 4, 3])
    for number, trajectory in enumerate(group):
        trajectory["invalid"] = [False] * len(trajectory["invalid"])
        trajectory["anchors"] = [f"{number}.{turn}" for turn in range(len(trajectory["anchors"]))]
    settings = AdvantageSettings.model_validate({"estimator": name, "invalid_penalty": 0.1})
    before = estimate(turns_of(group), settings)[0]
    group[0]["invalid"][3] = True
    change = estimate(turns_of(group), settings)[0] - before
    np.testing.assert_allclose(change - change[0], [0, 0, 0, -0.1, 0, 0], atol=1e-12)


def test_rloo_and_the_mean_differ_by_the_known_factor() -> None:
    """A_rloo = G/(G-1) A_mean for trajectories of one turn."""
    group = turns_of(oracle.random_group(np.random.default_rng(2), [1] * 5))
    rloo = estimate(group, AdvantageSettings(estimator="rloo"))
    mean = estimate(group, AdvantageSettings(estimator="reinforce_mean"))
    np.testing.assert_allclose(np.concatenate(rloo), 5 / 4 * np.concatenate(mean), rtol=1e-12)


def test_whitening_is_over_all_turns_and_leaves_equal_ones_at_zero() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(3.0, 5.0, size=n) for n in (1, 50, 7)]
    flat = [value for array in arrays for value in array.tolist()]
    mean = sum(flat) / len(flat)
    std = (sum((value - mean) ** 2 for value in flat) / len(flat)) ** 0.5
    for ours, array in zip(whiten(arrays), arrays, strict=True):
        np.testing.assert_allclose(ours, (array - mean) / (std + 1e-8), rtol=1e-9)
    assert all(np.all(values == 0.0) for values in whiten([np.full(3, 0.1), np.full(4, 0.1)]))
    assert whiten([]) == []


def test_kl_in_the_reward_is_taken_from_its_turn() -> None:
    group = turns_of(oracle.random_group(np.random.default_rng(0), [3, 2]))
    kl = [np.array([1.0, 2.0, 3.0]), np.array([4.0, -5.0])]
    changed = with_kl_in_reward(group, kl, 0.5)
    for before, after, cost in zip(group.rewards, changed.rewards, kl, strict=True):
        np.testing.assert_allclose(after, before - 0.5 * cost)
    assert changed.won == group.won
    with pytest.raises(ValueError, match="one a turn is needed"):
        with_kl_in_reward(group, [np.zeros(3)], 0.5)
