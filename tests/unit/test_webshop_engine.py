"""The shop: which actions do something, where they lead, and that nothing sent to it can break it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.webshop.engine import Engine, read_action
from tests.unit.webshop_records import enter, goal_for, lamps, options, record, shop_of

MANY = shop_of([*lamps(60), record("B0CHAIR", "Chair")])
ITEM_BUTTONS = ["back to search", "< prev", "description", "features", "reviews", "buy now"]


def walk(engine: Engine, *actions: str) -> str:
    """The last observation."""
    return [engine.step(action)[0] for action in actions][-1]


def at_item(*values: str, mode: Any = "text", show_attrs: bool = False, **named: list[str]) -> Engine:
    chosen = options(**({"Mode": list(values)} if values else {}) | named)
    engine = enter(shop_of([record("B0A", customization_options=chosen)]), mode, show_attrs)
    walk(engine, "search[lamp]", "click[b0a]")
    return engine


@given(st.text(alphabet="[]ab\n", max_size=12) | st.text(max_size=12))
def test_actions_are_split_as_the_published_pattern_does(action: str) -> None:
    match = re.match(r"(.+)\[(.+)\]", action)
    assert read_action(action) == ((match[1], match[2]) if match else (action, None))


@pytest.mark.parametrize(
    "action",
    [
        "", "search", "search[]", "Search[lamp]", " search[lamp]", "search[a][b]", "search[a\nb]", "search [lamp]",
        "\nsearch[lamp]", "click[search]", "click[buy now]", "click[next >]", "click[]", "lamp", "[lamp]", "click[b0a",
    ],
)  # fmt: skip
def test_what_is_no_action_of_the_page_changes_nothing(action: str) -> None:
    engine = enter(MANY)
    before = engine.observation, engine.clickables()
    assert engine.step(action) == (before[0], 0.0, False) and engine.clickables() == before[1]


@pytest.mark.parametrize(
    "action", ["search[lamp]", "search[LAMP]", "search[lamp] and more", "search[lamp]\n", "search[lamp]]"]
)
def test_searches(action: str) -> None:
    assert "Page 1 (Total results: 50)" in walk(enter(MANY), action)


def test_a_search_finds_fifty_products_and_pages_have_no_end() -> None:
    engine = enter(MANY)
    pages = [walk(engine, "search[lamp]")] + [walk(engine, "click[next >]") for _ in range(6)]
    assert [page.count("B0LAMP") for page in pages] == [10] * 5 + [0, 0]
    assert pages[6].endswith("Page 7 (Total results: 50) [SEP] < Prev [SEP] Next >")
    assert engine.clickables() == ["back to search", "< prev", "next >"]
    assert [walk(engine, "click[< Prev]") for _ in range(6)] == pages[5::-1]
    assert "< Prev" not in pages[0]


def test_equal_products_are_in_the_order_of_their_asins() -> None:
    assert re.findall("B0LAMP[0-9]+", walk(enter(MANY), "search[gives light]"))[:3] == [
        "B0LAMP0000", "B0LAMP0001", "B0LAMP0002"
    ]  # fmt: skip


@pytest.mark.parametrize("query", ["xyzzy", " ", "the of", "<r>", "<c> garden", "<q> lampen", "<a> nothing"])
def test_special_words_of_the_original_are_words_like_others(query: str) -> None:
    found = walk(enter(MANY), f"search[{query}]")
    assert "Page 1 (Total results: 0)" in found and "B0" not in found


def test_the_search_bar_is_on_the_start_page_alone_and_searching_works_everywhere() -> None:
    engine = enter(MANY)
    assert (
        engine.has_search_bar and engine.clickables() == ["search"] and engine.admissible() == ["search[<your query>]"]
    )
    start = engine.observation
    for action in ("search[lamp]", "click[b0lamp0000]", "click[description]", "click[< prev]", "click[buy now]"):
        engine.step(action)
        assert not engine.has_search_bar and "search[<your query>]" not in engine.admissible()
        assert "(Total results: 1)" in walk(engine, "search[chair]")
        walk(engine, "search[lamp]", "click[b0lamp0000]")
    assert walk(engine, "click[back to search]") == start and engine.has_search_bar


def test_an_item_and_the_ways_back() -> None:
    engine = enter(MANY)
    results = walk(engine, "search[lamp]", "click[next >]")
    item = walk(engine, "click[b0lamp0010]")
    assert engine.clickables() == ITEM_BUTTONS
    assert engine.admissible()[0] == "click[back to search]"
    for name in ("description", "features", "reviews"):
        walk(engine, f"click[{name}]")
        assert engine.clickables() == ["back to search", "< prev"]
        assert engine.step("click[features]")[0] == engine.observation  # no button of a sub page
        assert walk(engine, "click[< prev]") == item
    assert walk(engine, "click[< prev]") == results  # the stored page of the stored search


def test_options_are_kept_over_sub_pages_and_lost_on_the_way_out() -> None:
    engine = at_item(Size=["S", "L"], Color=["Red"])
    walk(engine, "click[s]", "click[L]", "click[red]", "click[features]", "click[< prev]")
    bought = walk(engine, "click[buy now]")
    assert '{"color": "red", "size": "l"}' in bought
    engine = at_item(Size=["S"])
    walk(engine, "click[s]", "click[< prev]", "click[b0a]")
    assert " [SEP] {} [SEP] " in walk(engine, "click[buy now]")
    engine = at_item(Size=["S"])
    walk(engine, "click[s]", "search[lamp]", "click[b0a]")
    assert " [SEP] {} [SEP] " in walk(engine, "click[buy now]")


def test_a_value_of_two_options_chooses_the_last_of_them() -> None:
    engine = at_item(Color=["Red", "Oak"], Trim=["Red"])
    assert '{"trim": "red"}' in walk(engine, "click[red]", "click[buy now]")


def test_a_value_that_is_called_like_a_button_is_the_button() -> None:
    names = ("Buy Now", "Back to Search", "< Prev", "Description", "Features", "Reviews", "Attributes")
    start = at_item(*names, "plain")
    assert start.clickables() == [*ITEM_BUTTONS, "attributes", "plain"]
    assert walk(start, "click[attributes]").endswith("garden [SEP] lamp [SEP] Home \u203a Lighting \u203a Lamps")
    assert walk(at_item(*names), "click[description]").endswith("A lamp.")
    assert "Total results" in walk(at_item(*names), "click[< prev]")
    assert walk(at_item(*names), "click[back to search]").startswith("WebShop")
    assert at_item(*names).step("click[buy now]")[2]


def test_other_words_of_the_shop_are_values() -> None:
    engine = at_item("Next >", "Search")
    assert engine.clickables()[-2:] == ["next >", "search"]
    assert engine.step("click[search]")[0] == engine.observation
    assert '{"mode": "next \\u003e"}' in walk(engine, "click[next >]", "click[search]", "click[buy now]")


def test_values_that_cannot_be_written_as_an_action_cannot_be_chosen() -> None:
    engine = at_item("", "a\nb", "[x]", "a]b")
    assert engine.clickables()[-4:] == ["", "a\nb", "[x]", "a]b"]
    for action in ("click[]", "click[a\nb]", "click[[x]]"):
        engine.step(action)
    assert " [SEP] {} [SEP] " in walk(engine, "click[buy now]")
    engine = at_item("a]b")
    assert '{"mode": "a]b"}' in walk(engine, "click[a]b]", "click[buy now]")


def test_the_attributes_button_is_there_when_asked_for() -> None:
    engine = at_item(show_attrs=True)
    assert engine.clickables()[5:] == ["attributes", "buy now"]
    assert "bright" in walk(engine, "click[attributes]")


def test_a_query_that_names_a_page_misleads_the_way_back() -> None:
    """As the original does, which looks for its pages' names in an address that holds the query."""
    shop = shop_of([record("B0A", "search_results item_page lamp")])
    engine = enter(shop)
    assert "Page 0 (Total results: 1)" in walk(engine, "search[search_results]", "click[b0a]", "click[< prev]")
    assert engine.clickables() == ["back to search", "next >"]
    assert "Page 1" in walk(engine, "click[next >]")
    engine = enter(shop)
    walk(engine, "search[item_page]", "click[b0a]", "click[features]")
    assert "Total results" in walk(engine, "click[< prev]")  # not the item, which an honest query leads back to


def test_rich_mode_marks_what_was_clicked() -> None:
    engine = at_item(Color=["Red", "Oak"], mode="text_rich")
    assert walk(engine, "click[red]").startswith("You have clicked red.\nInstruction:\n")
    assert "  [clicked button] red [clicked button_]\n  [button] oak [button_]\n" in engine.observation
    assert "\n[clicked button] B0A [clicked button_]\n" in walk(engine, "click[< prev]")
    assert "\n[clicked button] B0A [clicked button_]\n" in walk(engine, "search[lamp]")
    # the start page forgets
    assert "\n[button] B0A [button_]\n" in walk(engine, "click[back to search]", "search[lamp]")


def test_a_purchase_scores_once_and_the_shop_stays_open() -> None:
    engine = enter(MANY)
    walk(engine, "search[lamp]", "click[b0lamp0000]")
    assert engine.breakdown is None
    page, score, done = engine.step("click[buy now]")
    assert (score, done) == (1.0, True) and engine.breakdown and engine.breakdown["r_type"] == 1.0
    assert engine.clickables() == [] and page.startswith("Thank you for shopping with us!")
    assert engine.step("click[buy now]") == (page, 0.0, False) and engine.breakdown is None
    walk(engine, "search[chair]", "click[b0chair]")
    assert engine.step("click[buy now]")[1:] == (0.0, True)


def test_prices_of_the_goal_list_decide() -> None:
    shop = shop_of([record("B0A", pricing="$5 - $45")])
    (price,) = shop.goal_table(False, 233).prices
    for bound, affordable in ((int(price) + 1, True), (int(price), False)):
        engine = enter(shop, price_upper=bound)
        walk(engine, "search[lamp]", "click[b0a]", "click[buy now]")
        assert engine.breakdown is not None and engine.breakdown["r_price"] is affordable


def test_environments_of_a_catalogue_do_not_meet() -> None:
    one, other = enter(MANY), enter(MANY)
    walk(one, "search[lamp]", "click[b0lamp0003]")
    assert other.observation.startswith("WebShop") and walk(other, "search[chair]") != one.observation


def test_a_new_goal_forgets_everything() -> None:
    engine = at_item(Size=["S"], mode="text_rich")
    walk(engine, "click[s]", "click[buy now]")
    assert engine.reset(goal_for(MANY.product(0), text="another")).startswith("WebShop\nInstruction: \nanother\n")
    assert engine.breakdown is None and "[clicked" not in walk(engine, "search[lamp]")


@pytest.mark.parametrize(
    "unit", ["search[", "[", "]", "a", "\x00", "\x1b[31m", "\ud800", "click[a]", "\u0130", "\U0001f600 "]
)
def test_long_nonsense_is_answered(unit: str) -> None:
    engine = enter(MANY)
    nonsense = unit * (100_000 // len(unit))
    for action in (nonsense, f"search[{nonsense}]", f"click[{nonsense}]", f"search[lamp {nonsense}"):
        observation, score, done = engine.step(action)
        assert observation.split(" [SEP] ")[-1] and (score, done) == (0.0, False)


@given(st.text(max_size=20), st.sampled_from(["{}", "search[{}]", "click[{}]", "search[lamp {}]"]))
def test_any_text_is_answered(text: str, form: str) -> None:
    engine = enter(MANY)
    walk(engine, "search[lamp]", "click[b0lamp0001]")
    assert engine.step(form.format(text))[1] in (0.0, 1.0)


def test_observation_modes_are_checked() -> None:
    with pytest.raises(ValueError, match="html"):
        enter(MANY, "html")  # type: ignore[arg-type]
