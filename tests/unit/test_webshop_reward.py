"""The score of a purchase: every rule of the original, the odd ones included."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.webshop.colors import COLORS, normalize_color
from envs.webshop.product import Product
from envs.webshop.reward import count_attributes, count_options, judge_purchase, token_set_ratio, type_reward
from tests.unit.webshop_records import goal_for, products_of, record


def product(**fields: Any) -> Product:
    (made,) = products_of([record("B0A", **fields)])
    return made


LAMP = product(name="Desk Lamp Desk")


@pytest.mark.parametrize(
    ("option", "normal"),
    [
        ("titanium", "tan"),
        ("washed denim", "ash"),
        ("dark blue", "blue"),
        ("dark", "dark"),
        ("stonewash", "ash"),
        ("gray/green", "gray"),
        ("size 10", "size 10"),
        (("color", "blue"), "blue"),
        (("color", "dark blue"), ("color", "dark blue")),
        (("gold", "ring"), "gold"),
        (("blue", "alabaster"), "alabaster"),
    ],
)
def test_colors(option: Any, normal: Any) -> None:
    assert normalize_color(option) == normal


def test_the_list_of_colors() -> None:
    assert len(COLORS) == len(set(COLORS)) == 102
    assert COLORS[:4] == ["alabaster", "apricot", "aqua", "ash"] and COLORS[-1] == "yellow"


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("", "", 0),
        ("", "lamp", 0),
        ("!?", "lamp", 0),
        ("\u00e9\u00df", "\u00e9\u00df", 0),  # nothing of Latin-1's second half is left
        ("na\u00efve", "nave", 100),
        ("\u65e5\u672c", "\u65e5\u672c", 100),  # letters beyond Latin-1 stay
        ("Red LAMP", "lamp red", 100),
        ("large", "large wide", 100),  # a subset of the words
        ("a-b", "a b", 100),
        ("oak", "pine", 0),
        ("9 inch", ("size", "9 inch"), 100),
        ("size", ("size", "9 inch"), 100),
        ("it's", ("size", "it's"), 100),
        ("easy to clean", "easy clean", 100),
        ("energy saving", "energy savings", 96),
    ],
)
def test_similarity(one: Any, other: Any, ratio: int) -> None:
    assert token_set_ratio(one, other) == ratio


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_has_a_similarity(one: str, other: str) -> None:
    assert 0 <= token_set_ratio(one, (other, one)) <= 100


def test_options_of_synthetic_goals_are_compared_with_name_and_value() -> None:
    assert count_options(["large"], [("size", "large")]) == 1
    assert count_options(["size"], [("size", "large")]) == 1
    assert count_options(["dark blue"], [("color", "blue")]) == 1  # both become "blue"
    # in a pair only a whole value becomes a color: "blue" is among the words of the one, "tan" not of the other
    assert count_options(["blue"], [("color", "dark blue")]) == 1
    assert count_options(["titanium"], [("color", "titanium")]) == 0
    assert count_options(["titanium"], ["titanium"]) == 1  # a goal that a person wrote: "tan" against "tan"
    assert count_options([], [("size", "large")]) == 0
    assert count_options(["large", "red"], [("size", "large"), ("color", "red"), ("style", "owl")]) == 2


def test_one_choice_may_serve_two_wanted_options() -> None:
    assert count_options(["red"], [("color", "red"), ("trim", "red")]) == 2


def test_attributes_are_listed_or_written_somewhere() -> None:
    lamp = product(
        name="Folding Lamp",
        small_description=["Wipes", "clean fast"],
        full_description="Saves ENERGY.",
    )
    lamp = dataclasses.replace(lamp, attributes=("dimmable light",))
    found = {
        "dimmable lights": 1,
        "folding": 1,
        "wipes clean": 1,  # bullets are one text, joined by blanks
        "saves energy": 1,
        "Folding": 1,
        "Saves": 0,  # texts are lower-cased, the attribute is not
        "waterproof": 0,
    }
    lamp = dataclasses.replace(lamp, attributes=("dimmable light", "folding"))
    assert {wanted: count_attributes(lamp, [wanted]) for wanted in found} == found


def test_kinds_match_by_query_by_two_category_levels_or_by_nouns() -> None:
    goal = goal_for(LAMP, query="other", product_category="Home \u203aLighting", nouns=("lamp", "desk", "oak", "shade"))
    kind = type_reward(LAMP, goal)
    assert kind == {"r_type": 1.0, "query_match": False, "category_match": True, "title_score": 0.5}
    once = dataclasses.replace(goal, product_category="Home \u203a Home \u203a Garden")
    assert type_reward(LAMP, once)["category_match"] is False
    assert type_reward(LAMP, dataclasses.replace(goal, query="lamp"))["query_match"] is True


@pytest.mark.parametrize(
    ("nouns", "query", "title_score", "r_type"),
    [
        (("lamp", "a", "b", "c"), "other", 0.25, 1.0),
        (("lamp", "a", "b", "c", "d"), "other", 0.2, 0.5),
        (("lamp", *"abcdefghi"), "other", 0.1, 0.5),
        (("lamp", *"abcdefghij"), "other", 1 / 11, 0.1),
        (("lamp", *"abcdefghij"), "lamp", 1 / 11, 0.1),
        (("oak",), "lamp", 0.0, 0.0),
        ((), "other", 0.2, 0.5),
        ((), "lamp", 0.2, 1.0),
        (("lamp", "lamp", "oak", "oak"), "other", 0.25, 1.0),  # common words count once, wanted ones as they come
    ],
)
def test_the_title_decides_how_far_off_a_kind_is(
    nouns: tuple[str, ...], query: str, title_score: float, r_type: float
) -> None:
    goal = goal_for(LAMP, query=query, product_category="Garden", nouns=nouns)
    kind = type_reward(LAMP, goal)
    assert kind["title_score"] == title_score and kind["r_type"] == r_type


def test_a_perfect_purchase_and_its_parts() -> None:
    goal = goal_for(LAMP, options=(("color", "red"), ("size", "large")))
    score, parts = judge_purchase(LAMP, 12.5, ["red", "large"], goal)
    assert score == 1.0
    assert parts == {
        "r_type": 1.0,
        "r_att": 1.0,
        "w_att": 0.25,
        "query_match": True,
        "category_match": True,
        "title_score": 2 / 3,
        "r_option": 1.0,
        "w_option": 0.5,
        "r_price": True,
        "w_price": 0.25,
    }
    assert list(parts) == [
        "r_type", "r_att", "w_att", "query_match", "category_match", "title_score", "r_option", "w_option", "r_price",
        "w_price",
    ]  # fmt: skip


def test_a_purchase_that_is_right_in_part() -> None:
    goal = goal_for(LAMP, attributes=("bright", "waterproof"), options=(("color", "red"),), price_upper=10)
    score, parts = judge_purchase(LAMP, 12.5, ["blue"], goal)
    assert score == 1 / 4 and parts["r_att"] == 0.5 and parts["r_option"] == 0 and parts["r_price"] is False


def test_without_options_there_is_no_part_for_them() -> None:
    score, parts = judge_purchase(LAMP, 50.0, [], goal_for(LAMP))
    assert score == 1.0 and "r_option" not in parts and "w_option" not in parts and parts["w_price"] == 0.5
    assert parts["r_price"] is True  # the bound itself is affordable


def test_a_kind_that_is_off_scales_the_whole_score() -> None:
    goal = goal_for(LAMP, query="other", product_category="Garden", nouns=("lamp", *"abcdefghij"))
    assert judge_purchase(LAMP, 12.5, [], goal)[0] == 1.0 * 0.1
    assert judge_purchase(LAMP, 12.5, [], dataclasses.replace(goal, nouns=("oak",)))[0] == 0.0
