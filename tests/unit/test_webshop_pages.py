"""Pages: what stands on them in both modes, what is left out, what can be clicked."""

from __future__ import annotations

import pytest

from envs.webshop import pages
from envs.webshop.pages import clickables, shown_observation, write_rich, write_text
from tests.unit.webshop_records import options, products_of, record


def test_the_start_page() -> None:
    page = pages.start_page("buy a lamp")
    assert write_text(page) == "WebShop [SEP] Instruction: [SEP] buy a lamp [SEP] Search"
    assert write_rich(page, set(), "") == "WebShop\nInstruction: \nbuy a lamp\n[button] Search [button_]\n"
    assert clickables(page) == ["search"]


def test_results() -> None:
    lamps = products_of([record("B0A", "One"), record("B0B", "Two", pricing="$3 - $5")])
    page = pages.results_page("buy", 2, 12, lamps)
    assert write_text(page) == (
        "Instruction: [SEP] buy [SEP] Back to Search [SEP] Page 2 (Total results: 12) [SEP] < Prev [SEP] Next > [SEP] "
        "B0A [SEP] One [SEP] $12.5 [SEP] B0B [SEP] Two [SEP] $3.0 to $5.0"
    )
    assert clickables(page) == ["back to search", "< prev", "next >", "b0a", "b0b"]
    assert write_rich(page, {"B0B"}, "").endswith(
        "[button] < Prev [button_]\n[button] Next > [button_]\n\n[button] B0A [button_]\nOne\n$12.5\n"
        "\n[clicked button] B0B [clicked button_]\nTwo\n$3.0 to $5.0\n"
    )
    assert "< Prev" not in write_text(pages.results_page("buy", 1, 12, lamps))


def test_an_item() -> None:
    (lamp,) = products_of([record("B0A", customization_options=options(Color=["Red", "Oak"], Size=["S", "Red"]))])
    page = pages.item_page("buy", lamp, show_attrs=False)
    assert write_text(page) == (
        "Instruction: [SEP] buy [SEP] Back to Search [SEP] < Prev [SEP] color [SEP] red [SEP] oak [SEP] size [SEP] s "
        "[SEP] red [SEP] Plain Lamp [SEP] Price: $12.5 [SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] "
        "Reviews [SEP] Buy Now"
    )
    buttons = ["back to search", "< prev", "description", "features", "reviews", "buy now"]
    assert clickables(page) == [*buttons, "red", "oak", "s"]
    with_attributes = pages.item_page("buy", lamp, show_attrs=True)
    assert clickables(with_attributes)[4:7] == ["reviews", "attributes", "buy now"]


def test_chosen_options_are_marked_in_rich_mode_alone() -> None:
    lamp_options = options(Color=["Red", "Gr\u00fcn"], Size=["S", "Red"])
    (lamp,) = products_of([record("B0A", customization_options=lamp_options)])
    page = pages.item_page("buy", lamp, show_attrs=False)
    rich = write_rich(page, set(), '{"color": "red", "size": "s", "trim": "gr\\u00fcn"}')
    # the last one comes first, a value that two options have counts for both, and one beyond ASCII is never marked
    assert rich.startswith("You have clicked red.\nYou have clicked s.\nYou have clicked red.\nInstruction:\nbuy\n")
    assert rich.count("  [clicked button] red [clicked button_]\n") == 2
    assert "  [button] gr\u00fcn [button_]\n" in rich


def test_a_quoted_word_of_the_query_marks_a_value() -> None:
    (lamp,) = products_of([record("B0A", customization_options=options(Color=["Red"]))])
    page = pages.item_page("buy", lamp, show_attrs=False)
    assert "You have clicked red." in write_rich(page, set(), 'item_page/a+"red"+lamp/1/{}')
    assert "You have clicked" not in write_rich(page, set(), "item_page/a+red+lamp/1/{}")


@pytest.mark.parametrize(
    ("title", "text", "rich"),
    [
        ("", "B0A [SEP] $12.5", "B0A [button_]\n$12.5\n"),
        (" \n\t", "B0A [SEP] $12.5", "B0A [button_]\n$12.5\n"),
        ("\r \f", "B0A [SEP]  [SEP] $12.5", "B0A [button_]\n \n$12.5\n"),
        ("  ", "B0A [SEP]  [SEP] $12.5", "B0A [button_]\n \n$12.5\n"),
        ("\u00a0", "B0A [SEP]  [SEP] $12.5", "B0A [button_]\n\u00a0\n$12.5\n"),
        ("\v", "B0A [SEP]  [SEP] $12.5", "B0A [button_]\n\v\n$12.5\n"),
        (" a\n ", "B0A [SEP] a [SEP] $12.5", "B0A [button_]\n a\n \n$12.5\n"),
    ],
)
def test_blank_texts(title: str, text: str, rich: str) -> None:
    page = pages.results_page("buy", 1, 1, products_of([record("B0A", title)]))
    assert write_text(page).endswith(text) and write_rich(page, set(), "").endswith(rich)


def test_sub_pages() -> None:
    (lamp,) = products_of([record("B0A", small_description=["one", "", " ", "\n", " two "])], {"B0A": {}})
    head = "Instruction: [SEP] buy [SEP] Back to Search [SEP] < Prev"
    assert write_text(pages.sub_page("buy", lamp, "Description")) == f"{head} [SEP] A lamp."
    features = pages.sub_page("buy", lamp, "Features")
    # a blank bullet follows a blank of the page's own, so it stays; one with a newline does not
    assert write_text(features) == f"{head} [SEP] one [SEP]  [SEP]  [SEP] two"
    assert write_rich(features, set(), "").endswith("[button] < Prev [button_]\n one\n \n \n  two \n")
    assert write_text(pages.sub_page("buy", lamp, "Reviews")) == head
    assert write_text(pages.sub_page("buy", lamp, "Attributes")) == (
        f"{head} [SEP] DUMMY_ATTR [SEP] garden [SEP] lamp [SEP] Home \u203a Lighting \u203a Lamps"
    )
    assert clickables(features) == ["back to search", "< prev"]


def test_an_item_without_a_description_shows_none() -> None:
    (lamp,) = products_of([record("B0A", full_description="")])
    assert write_text(pages.sub_page("buy", lamp, "Description")).endswith("< Prev")


def test_the_page_after_a_purchase() -> None:
    page = pages.done_page("B0A", {"size": "s", "color": "a<b>&'c'"}, 2 / 3)
    assert write_text(page) == (
        "Thank you for shopping with us! [SEP] Your code: [SEP] None [SEP] (Paste it in your MTurk interface.) [SEP] "
        "Purchased [SEP] asin [SEP] B0A [SEP] options [SEP] "
        '{"color": "a\\u003cb\\u003e\\u0026\\u0027c\\u0027", "size": "s"} [SEP] '
        "attrs [SEP] None [SEP] category [SEP] None [SEP] query [SEP] None [SEP] product category [SEP] None [SEP] "
        "Target [SEP] asin [SEP] options [SEP] attrs [SEP] price upper [SEP] instuction text [SEP] category [SEP] "
        "product category [SEP] query [SEP] Goal [SEP] None [SEP] Reward [SEP] Your score (min 0.0, max 1.0) [SEP] "
        "0.6666666666666666 [SEP] Reward Details [SEP] None"
    )
    rich = write_rich(page, set(), "")
    assert "Your code: \nNone\n (Paste it" in rich and "Goal \nNone\n" in rich and "Reward Details \nNone\n" in rich
    assert clickables(page) == []


def test_what_the_published_prompt_shows() -> None:
    start = write_text(pages.start_page("buy a lamp"))
    assert shown_observation(start, "buy a lamp") == "'Search'"
    (lamp,) = products_of([record("B0A")])
    shown = shown_observation(write_text(pages.results_page("buy a lamp", 1, 1, [lamp])), "buy a lamp")
    assert shown == (
        "'Back to Search' [SEP] 'Page 1 (Total results: 1)' [SEP] 'Next >' [SEP] 'B0A' [SEP] 'Plain Lamp' [SEP] '$12.5'"
    )
    done = write_text(pages.done_page("B0A", {}, 1.0))
    assert shown_observation(done, "buy a lamp") == done
    assert shown_observation(start.replace("buy a lamp", "a [SEP] b"), " a [SEP] b") == "'b' [SEP] 'Search'"
