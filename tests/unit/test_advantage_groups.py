"""What an estimator is given and gives back: bad groups, filters, names, an estimator of one's own."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from learner.advantages.group_filter import has_different_returns, has_mixed_success, is_kept
from learner.advantages.group_turns import GroupTurns
from learner.advantages.registry import ESTIMATORS, NEEDS_VALUES, estimate, find_estimator
from learner.named_function import UnknownFunction
from learner.settings import AdvantageSettings


def group_of(rewards: list[list[float]], **changes: Any) -> GroupTurns:
    parts: dict[str, Any] = {
        "rewards": [np.array(r, dtype=np.float64) for r in rewards],
        "invalid": [np.zeros(len(r), dtype=np.bool_) for r in rewards],
        "anchors": [["start"] * len(r) for r in rewards],
        "won": [sum(r) > 0 for r in rewards],
        "ended": [True] * len(rewards),
    }
    return GroupTurns(**{**parts, **changes})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_rejected_with_its_place(bad: float) -> None:
    with pytest.raises(ValueError, match="trajectory 1, turn 1 has reward .*must be finite: drop the group"):
        group_of([[0.0], [0.0, bad]])


def test_a_value_that_is_not_finite_is_rejected_with_its_place() -> None:
    with pytest.raises(ValueError, match="trajectory 0, turn 1 has value nan"):
        group_of([[0.0, 1.0]], values=[np.array([0.0, math.nan])])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"invalid": [np.zeros(2, dtype=np.bool_)]}, "trajectory 0 has .*'invalid': 2"),
        ({"anchors": [["a", "b"]]}, "trajectory 0 has .*'anchors': 2"),
        ({"won": [True, False]}, "one entry a trajectory is needed.*'won': 2"),
        ({"values": [np.zeros(3)]}, "trajectory 0 has .*'values': 3"),
    ],
)
def test_parts_that_do_not_fit_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_of([[1.0]], **changes)


def test_no_trajectory_or_no_turn_is_rejected() -> None:
    with pytest.raises(ValueError, match="at least one trajectory"):
        group_of([])
    with pytest.raises(ValueError, match="at least one turn"):
        group_of([[]])


@pytest.mark.parametrize("name", sorted(NEEDS_VALUES))
def test_an_estimator_that_needs_a_critic_says_so(name: str) -> None:
    with pytest.raises(ValueError, match="needs a critic"):
        estimate(group_of([[1.0]]), AdvantageSettings(estimator=name))


def test_a_trajectory_cut_short_needs_the_value_of_what_comes_next() -> None:
    settings = AdvantageSettings(estimator="gae")
    for final in (None, [math.nan]):
        group = group_of([[1.0]], values=[np.zeros(1)], ended=[False], final_values=final)
        with pytest.raises(ValueError, match="trajectory 0 was cut short"):
            estimate(group, settings)


@pytest.mark.parametrize(
    ("rewards", "won", "mixed", "different"),
    [
        ([[1.0], [0.0]], [True, False], True, True),
        ([[1.0], [1.0]], [True, True], False, False),
        ([[0.0], [0.0]], [False, False], False, False),
        ([[0.3], [0.7]], [False, False], False, True),  # graded rewards without a win
        ([[0.5], [0.5]], [True, False], True, False),  # a win that the reward does not show
        ([[1.0]], [True], False, False),
    ],
)
def test_filters_ask_for_successes_or_for_returns(
    rewards: list[list[float]], won: list[bool], mixed: bool, different: bool
) -> None:
    group = group_of(rewards, won=won)
    assert has_mixed_success(group) is mixed
    assert has_different_returns(group) is different
    for keep, wanted in (("all", True), ("mixed_success", mixed), ("different_returns", different)):
        assert is_kept(group, AdvantageSettings.model_validate({"keep_groups": keep})) is wanted


OWN = """
import numpy as np
NUMBER = 3
def turn_number(group, settings):
    return [settings.gamma * np.arange(count, dtype=float) for count in group.num_turns]
def one_each(group, settings):
    return [np.zeros(1) for _ in group.rewards]
def not_a_number(group, settings):
    return [np.full(count, np.nan) for count in group.num_turns]
def lonely(group):
    return []
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_estimators.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_estimators"
    sys.modules.pop("own_estimators", None)


def test_one_s_own_estimator_is_one_function(own_module: str) -> None:
    settings = AdvantageSettings(estimator=f"{own_module}:turn_number", gamma=0.5)
    advantages = estimate(group_of([[0.0, 0.0, 1.0], [0.0]]), settings)
    np.testing.assert_array_equal(np.concatenate(advantages), [0.0, 0.5, 1.0, 0.0])


@pytest.mark.parametrize(("name", "message"), [("one_each", "shape"), ("not_a_number", "turn 0 has advantage nan")])
def test_what_one_s_own_estimator_returns_is_checked(own_module: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate(group_of([[0.0, 1.0]]), AdvantageSettings(estimator=f"{own_module}:{name}"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gipgo", "'gipgo' is unknown: did you mean gigpo\\? use dr_grpo, gae"),
        ("nowhere_at_all:function", "cannot be loaded .*nowhere_at_all"),
        ("own_estimators:missing", "cannot be loaded .*missing"),
        ("own_estimators:NUMBER", "is a int, not a function"),
        ("own_estimators:lonely", "cannot be called with 2 arguments"),
        (":x", "is unknown"),
    ],
)
def test_a_name_that_leads_nowhere(own_module: str, name: str, message: str) -> None:
    with pytest.raises(UnknownFunction, match=message):
        find_estimator(name)


def test_an_unknown_name_is_refused_by_the_settings() -> None:
    with pytest.raises(ValidationError, match="did you mean gigpo"):
        AdvantageSettings(estimator="gipgo")


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_registered_estimator_is_there(name: str) -> None:
    group = group_of([[0.0, 1.0], [0.0]], values=[np.zeros(2), np.zeros(1)])
    advantages = estimate(group, AdvantageSettings(estimator=name))
    assert [len(values) for values in advantages] == [2, 1]
