"""The PDDL reader: what a problem means, and clear errors for one that is damaged."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.alfworld.game import Game
from envs.alfworld.games import panel_games
from envs.alfworld.pddl import LightGoal, PlaceGoal, parse_problem, read_form
from envs.data_folder import DataError

PLACE = (
    "(exists (?r - receptacle) (exists (?o - object) (and {} (inReceptacle ?o ?r) (objectType ?o MugType) "
    "(receptacleType ?r DeskType))))"
)
PROBLEM = "(define (problem p) (:init (atLocation agent1 l) (receptacleAtLocation r l)) (:goal (and {})))"
TEXT = panel_games("unseen")[0].data()["problem"]


def test_reading_stops_at_the_first_balanced_form() -> None:
    """Official files carry one closing parenthesis too many."""
    assert read_form("(a (B c) ; (comment\n d)) rest (") == ["a", ["b", "c"], "d"]


@pytest.mark.parametrize(("text", "part"), [("(a (b)", "cut short"), (") (a)", "begins with"), ("", "cut short")])
def test_unbalanced(text: str, part: str) -> None:
    with pytest.raises(DataError, match=part):
        read_form(text)


@pytest.mark.parametrize(("extra", "flags"), [("", set()), ("(heatable ?o) (isHot ?o)", {"heatable", "ishot"})])
def test_place_goals(extra: str, flags: set[str]) -> None:
    goal = parse_problem(PROBLEM.format(PLACE.format(extra))).goal
    assert goal == PlaceGoal("mugtype", "desktype", frozenset(flags), 1)


def test_goals_of_the_suite() -> None:
    by_kind = {stored.kind: stored.game().goal for stored in panel_games("seen")}
    assert isinstance(by_kind["look_at_obj_in_light"], LightGoal)
    two = by_kind["pick_two_obj_and_place"]
    assert isinstance(two, PlaceGoal) and two.count == 2
    clean = by_kind["pick_clean_then_place_in_recep"]
    assert isinstance(clean, PlaceGoal) and clean.flags == {"cleanable", "isclean"}


@pytest.mark.parametrize(
    "goal",
    [
        "(exists (?o - object) (isHot ?o))",
        "(exists (?r - receptacle) (exists (?o - object) (and (inReceptacleObject ?o ?r) (objectType ?o CupType))))",
        PLACE.format("(unknown ?o)"),
        "",
    ],
)
def test_goals_that_cannot_be_judged_are_refused(goal: str) -> None:
    with pytest.raises(DataError, match="leave this game out"):
        parse_problem(PROBLEM.format(goal))


@pytest.mark.parametrize("missing", [":init", ":goal"])
def test_missing_section(missing: str) -> None:
    with pytest.raises(DataError, match=missing):
        parse_problem(PROBLEM.format(PLACE.format("")).replace(missing, ":other"))


def test_damaged_facts() -> None:
    with pytest.raises(DataError, match="two values of receptacleAtLocation"):
        Game(TEXT.replace("(:init", "(:init (receptacleAtLocation x_bar_1 a) (receptacleAtLocation x_bar_1 b)"), "t")
    with pytest.raises(DataError, match="atLocation"):
        Game(TEXT.replace("(atLocation agent1", "(receptacleAtLocation agent1"), "t")
    with pytest.raises(DataError, match="'openable a b', which has the wrong length"):
        Game(TEXT.replace("(:init", "(:init (openable a b)"), "t")


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(TEXT)), st.text(max_size=5))
def test_any_damage_is_a_data_error_or_a_game(cut: int, noise: str) -> None:
    """A truncated or scribbled problem never fails in another way."""
    for text in (TEXT[:cut], TEXT[:cut] + noise + TEXT[cut:]):
        try:
            Game(text, "put a mug in desk")
        except DataError as error:
            assert str(error)
