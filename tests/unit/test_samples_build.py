"""Groups -> samples: what is trained on, what is masked, what is rejected."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from envs.records import RecordError, TrajectoryGroup
from learner.samples import build_samples, judge, split_groups, turn_names, turn_samples
from learner.settings import AdvantageSettings
from tests.learner_groups import make_group, random_groups

SETTINGS = AdvantageSettings()


def test_one_sample_a_turn_with_the_accepted_tokens() -> None:
    groups = random_groups(3, seed=1)
    samples, metrics = build_samples(groups, SETTINGS)
    turns = [turn for group in groups for trajectory in group.trajectories for turn in trajectory.turns]
    assert len(samples) == len(turns)
    assert metrics["advantage_abs_mean"] > 0.0
    for sample, turn in zip(samples, turns, strict=True):
        np.testing.assert_array_equal(sample.response_ids, turn.accepted.token_ids)
        np.testing.assert_array_equal(sample.loss_mask, ~turn.accepted.forced)
        assert np.all(sample.advantages == sample.advantages[0])


def test_advantage_is_on_every_token_of_the_turn() -> None:
    group = make_group([[0.0, 10.0], [0.0]])
    samples, _ = build_samples([group], SETTINGS)
    expected = np.concatenate(judge([group], SETTINGS).advantages).astype(np.float32)
    np.testing.assert_array_equal([sample.advantages[0] for sample in samples], expected)


def test_turn_with_only_forced_tokens_is_left_out() -> None:
    group = make_group([[0.0, 10.0], [0.0]])
    turn = group.trajectories[0].turns[0]
    forced = dataclasses.replace(turn.accepted, forced=np.ones(len(turn.accepted.token_ids), dtype=np.bool_))
    trajectory = dataclasses.replace(
        group.trajectories[0], turns=(dataclasses.replace(turn, accepted=forced), group.trajectories[0].turns[1])
    )
    changed = dataclasses.replace(group, trajectories=(trajectory, group.trajectories[1]))
    assert len(build_samples([changed], SETTINGS)[0]) == 2


def test_metrics_without_a_measurement_are_left_out() -> None:
    group = make_group([[0.0], [0.0]])
    turns = [turn for trajectory in group.trajectories for turn in trajectory.turns]
    forced = [
        dataclasses.replace(turn.accepted, forced=np.ones(len(turn.accepted.token_ids), dtype=np.bool_))
        for turn in turns
    ]
    trajectories = tuple(
        dataclasses.replace(trajectory, turns=(dataclasses.replace(trajectory.turns[0], accepted=candidate),))
        for trajectory, candidate in zip(group.trajectories, forced, strict=True)
    )
    assert build_samples([dataclasses.replace(group, trajectories=trajectories)], SETTINGS) == ([], {})


def test_nan_reward_is_rejected() -> None:
    with pytest.raises(RecordError, match="reward must be finite"):
        make_group([[math.nan], [0.0]])


def test_behaviour_logprob_that_is_not_finite_is_rejected() -> None:
    group: TrajectoryGroup = make_group([[1.0], [0.0]], logprob=math.nan)
    with pytest.raises(ValueError, match="run/0/0/0 turn 0: the behaviour log-probability"):
        build_samples([group], SETTINGS)


def test_no_groups_is_an_error() -> None:
    with pytest.raises(ValueError, match="no groups"):
        build_samples([], SETTINGS)


def test_void_trajectories_are_left_out_but_count_in_their_group() -> None:
    group = make_group([[0.0, 10.0], [0.0, 0.0], [0.0]])
    texts = [["<action>look</action>"] * 2, ["<action>look</action>", "no action here"], ["<action>go</action>"]]
    group = dataclasses.replace(
        group,
        trajectories=tuple(
            dataclasses.replace(
                trajectory,
                turns=tuple(
                    dataclasses.replace(turn, accepted=dataclasses.replace(turn.accepted, text=text))
                    for turn, text in zip(trajectory.turns, said, strict=True)
                ),
            )
            for trajectory, said in zip(group.trajectories, texts, strict=True)
        ),
    )
    everything, metrics = build_samples([group], SETTINGS)
    assert len(everything) == 5 and "void_trajectories" not in metrics
    filtered, metrics = build_samples([group], SETTINGS, filter_void_turns=True)
    assert metrics["void_trajectories"] == 1 / 3
    kept = [everything[0], everything[1], everything[4]]
    assert [sample.advantages.tolist() for sample in filtered] == [sample.advantages.tolist() for sample in kept]


def test_samples_know_their_trajectory_and_turn() -> None:
    groups = [make_group([[0.0, 10.0], [0.0]]), make_group([[1.0], [0.0]], index=1)]
    samples, _ = build_samples(groups, SETTINGS)
    names = [(sample.trajectory, sample.turn) for sample in samples]
    assert names == turn_names(groups) == [(one.trajectory, one.turn) for one in turn_samples(groups)]
    assert names[:3] == [("run/0/0/0", 0), ("run/0/0/0", 1), ("run/0/1/0", 0)]


def test_groups_are_kept_by_successes_or_returns() -> None:
    mixed, graded = make_group([[10.0], [0.0]]), make_group([[1.0], [2.0]], index=1)
    groups = [mixed, graded, make_group([[0.0], [0.0]], index=2)]
    rules = {"all": groups, "mixed_success": [mixed], "different_returns": [mixed, graded]}
    for rule, expected in rules.items():
        kept, dropped = split_groups(groups, AdvantageSettings.model_validate({"keep_groups": rule}))
        assert [group.id for group in kept] == [group.id for group in expected]
        assert len(kept) + len(dropped) == 3


def test_values_and_kl_reach_their_turns() -> None:
    groups = [make_group([[0.0, 10.0], [0.0]]), make_group([[1.0], [0.0, 0.0]], index=1)]
    settings = AdvantageSettings(estimator="gae", gamma=0.9, gae_lambda=1.0)
    values = np.arange(6, dtype=np.float64)
    kl = np.array([0.0, 1.0, 2.0, 0.0, 0.0, 4.0])
    judged = judge(groups, settings, values=values, turn_kl=kl, kl_coef=0.5)
    targets = [0.9 * 9.5, 9.5, -1.0, 1.0, 0.9 * -2.0, -2.0]
    np.testing.assert_allclose(judged.targets, targets)
    np.testing.assert_allclose(np.concatenate(judged.advantages), np.array(targets) - values)
    assert [len(one) for one in judged.advantages] == [2, 1, 1, 2]


def test_whitening_is_over_the_whole_step() -> None:
    groups = [make_group([[0.0, 10.0], [0.0]]), make_group([[1.0], [0.0, 0.0]], index=1)]
    advantages = np.concatenate(judge(groups, AdvantageSettings(whiten=True)).advantages)
    assert (float(advantages.mean()), float(advantages.std())) == pytest.approx((0.0, 1.0), abs=1e-7)
