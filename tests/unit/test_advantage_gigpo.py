"""GiGPO against an independent float64 oracle, and the cases where advantages go wrong quietly."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from learner.advantages.gigpo import gigpo
from learner.advantages.group_turns import GroupTurns, discounted_returns
from learner.settings import AdvantageSettings


def oracle(
    rewards: list[list[float]], invalid: list[list[bool]], anchors: list[list[str]], settings: AdvantageSettings
) -> list[list[float]]:
    """METHOD section 5 written out turn by turn, in plain Python."""
    group = len(rewards)
    pen = settings.invalid_penalty
    score = [[math.fsum(rewards[i]) - pen * invalid[i][t] for t in range(len(rewards[i]))] for i in range(group)]
    returns = [
        [
            math.fsum(settings.gamma ** (k - t) * rewards[i][k] for k in range(t, len(rewards[i])))
            - pen * invalid[i][t]
            for t in range(len(rewards[i]))
        ]
        for i in range(group)
    ]
    result = []
    for i in range(group):
        row = []
        for t in range(len(rewards[i])):
            if settings.group_mean == "per_turn":
                population = [value for values in score for value in values]
                mean, std = statistics.fmean(population), statistics.stdev(population) if len(population) > 1 else 0.0
            else:
                mean = statistics.fmean(statistics.fmean(values) for values in score)
                spread = math.fsum(statistics.fmean((v - mean) ** 2 for v in values) for values in score)
                std = math.sqrt(spread / (group - 1)) if group > 1 else 0.0
            use_std = settings.normalise == "mean_std_norm"
            episode = (score[i][t] - mean) / (std + 1e-6 if use_std else 1.0) if group > 1 else 0.0
            cluster = [
                returns[a][b] for a in range(group) for b in range(len(anchors[a])) if anchors[a][b] == anchors[i][t]
            ]
            step = 0.0
            if len(cluster) > 1:
                scale = statistics.stdev(cluster) + 1e-6 if use_std else 1.0
                step = (returns[i][t] - statistics.fmean(cluster)) / scale
            row.append(episode + settings.step_weight * step)
        result.append(row)
    return result


def run(rewards, invalid, anchors, settings):
    group = GroupTurns(
        rewards=[np.array(r, dtype=float) for r in rewards],
        invalid=[np.array(v, dtype=bool) for v in invalid],
        anchors=anchors,
        won=[sum(r) > 0 for r in rewards],
        ended=[True] * len(rewards),
    )
    return gigpo(group, settings)


ALL_SETTINGS = [
    AdvantageSettings(normalise=normalise, group_mean=group_mean, step_weight=weight)
    for normalise in ("mean_norm", "mean_std_norm")
    for group_mean in ("per_turn", "per_trajectory")
    for weight in (0.0, 1.0, 0.5)
]


@pytest.mark.parametrize("settings", ALL_SETTINGS)
@pytest.mark.parametrize("seed", range(6))
def test_random_groups_equal_oracle(settings: AdvantageSettings, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [1, 50, *rng.integers(1, 20, size=rng.integers(0, 7)).tolist()]
    rewards = [np.where(rng.random(n) < 0.3, rng.normal(size=n) * 5, 0.0).tolist() for n in lengths]
    invalid = [(rng.random(n) < 0.3).tolist() for n in lengths]
    anchors = [[f"room {rng.integers(1 + 3 * seed)}" for _ in range(n)] for n in lengths]
    for ours, theirs in zip(
        run(rewards, invalid, anchors, settings), oracle(rewards, invalid, anchors, settings), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", ALL_SETTINGS)
def test_equal_rewards_give_exactly_zero(settings: AdvantageSettings) -> None:
    rewards = [[0.1] for _ in range(7)]
    result = run(rewards, [[False]] * 7, [["start"]] * 7, settings)
    assert all(np.all(values == 0.0) for values in result)


def test_one_trajectory_has_no_episode_part() -> None:
    settings = AdvantageSettings(normalise="mean_std_norm", step_weight=0.0)
    (values,) = run([[0.0, 10.0]], [[True, False]], [["a", "b"]], settings)
    assert np.all(values == 0.0)


def test_singletons_get_no_step_part() -> None:
    settings = AdvantageSettings()
    with_step = run([[0.0, 10.0], [0.0]], [[False, False], [False]], [["a", "b"], ["c"]], settings)
    without = run(
        [[0.0, 10.0], [0.0]], [[False, False], [False]], [["a", "b"], ["c"]], AdvantageSettings(step_weight=0.0)
    )
    for a, b in zip(with_step, without, strict=True):
        np.testing.assert_array_equal(a, b)


def test_step_part_clusters_across_trajectories_and_steps() -> None:
    settings = AdvantageSettings(gamma=0.5, step_weight=1.0)
    result = run([[0.0, 0.0, 8.0], [0.0]], [[False] * 3, [False]], [["s", "t", "s"], ["s"]], settings)
    cluster = np.array([2.0, 8.0, 0.0])
    episode = np.array([8.0, 0.0]) - 4.0
    np.testing.assert_allclose(result[0], episode[0] + np.array([2.0 - cluster.mean(), 0.0, 8.0 - cluster.mean()]))
    np.testing.assert_allclose(result[1], episode[1] + (0.0 - cluster.mean()))


def test_invalid_turn_is_penalised_in_both_parts() -> None:
    settings = AdvantageSettings(invalid_penalty=0.1)
    result = run([[0.0], [0.0]], [[True], [False]], [["s"], ["s"]], settings)
    np.testing.assert_allclose([result[0][0], result[1][0]], [-0.1, 0.1])


def test_discounted_returns_of_fifty_turns() -> None:
    rewards = np.zeros(50)
    rewards[-1] = 10.0
    np.testing.assert_allclose(discounted_returns(rewards, 0.95), 10.0 * 0.95 ** np.arange(49, -1, -1), rtol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_reward_that_is_not_finite_is_rejected_with_its_place(bad: float) -> None:
    with pytest.raises(ValueError, match="trajectory 1, turn 1 has reward"):
        run([[0.0], [0.0, bad]], [[False], [False, False]], [["a"], ["a", "b"]], AdvantageSettings())


def test_lengths_that_differ_are_rejected() -> None:
    with pytest.raises(ValueError, match="trajectory 0 has {'rewards': 1, 'invalid': 2"):
        run([[0.0]], [[False, False]], [["a"]], AdvantageSettings())
