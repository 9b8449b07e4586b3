"""Prompts of Search QA: both wordings, what is remembered, and what a garbage reply cannot do to them."""

from __future__ import annotations

import pytest

from envs.search.corpus import Passage
from envs.search.env import error_output, tool_output
from envs.search.prompt import LONGEST_ACTION, documents, render
from envs.search.reply import search_action

QUESTION = "What is the area of the country whose capital is Bamako?"


def seen(*contents: str) -> str:
    found = [Passage(str(number), text) for number, text in enumerate(contents)]
    return f"<information>{tool_output(found)}</information>"


FIRST = seen('"Mali: Government"\nCapital of Mali: name Bamako.', '"Zürich"\nDoc 9: a "quoted" line\nand another')
SECOND = seen('"Mali: Geography"\nArea of Mali: 1,240,192 sq km.')
HISTORY = [(QUESTION, search_action("capital Bamako")), (FIRST, search_action("Mali area"))]


def test_the_first_turn() -> None:
    assert render("compact", QUESTION, [], QUESTION, 0) == f"question: {QUESTION}"
    full = render("full", QUESTION, [], QUESTION, 0)
    assert f"Your question: {QUESTION}\n" in full and "Step" not in full
    for tag in ("<think>", "</think>", "<search>", "</search>", "<answer>Beijing</answer>"):
        assert tag in full


def test_each_action_stands_with_what_it_led_to() -> None:
    full = render("full", QUESTION, HISTORY, SECOND, 2)
    assert "So far you have taken 2 step(s)." in full
    assert f"Step 1:<search>capital Bamako</search> {FIRST}\n\nStep 2:<search>Mali area</search> {SECOND}\n" in full
    assert "\\u00fc" in full  # the raw observation keeps its escapes
    assert render("compact", QUESTION, HISTORY, SECOND, 2).splitlines() == [
        f"question: {QUESTION}",
        "step: <search>capital Bamako</search>",
        "step: <search>Mali area</search>",
        "doc: Mali: Geography. Area of Mali: 1,240,192 sq km.",
    ]
    assert render("compact", QUESTION, HISTORY[:1], FIRST, 1).splitlines()[2:] == [
        "doc: Mali: Government. Capital of Mali: name Bamako.",
        'doc: Zürich. Doc 9: a "quoted" line and another',
    ]


def test_forgotten_steps_keep_their_numbers() -> None:
    full = render("full", QUESTION, HISTORY[1:], SECOND, 2)
    assert (
        "Step 2:<search>Mali area</search>" in full
        and "Step 1:" not in full
        and "taken 2 step(s). The latest 1" in full
    )
    assert "Bamako</search>" not in render("compact", QUESTION, HISTORY[1:], SECOND, 2)


def test_void_turns_and_long_actions_do_not_fill_the_prompt() -> None:
    history = [(QUESTION, ""), ("", search_action("x\n" * 100_000))]
    compact = render("compact", QUESTION, history, "", 2)
    assert compact.splitlines()[1] == "step: nothing" and len(compact) < LONGEST_ACTION + 200
    assert len(compact.splitlines()) == 3
    assert len(render("full", QUESTION, history, "", 2)) < LONGEST_ACTION + 2000


def test_what_a_search_says_without_documents() -> None:
    assert documents(f"<information>{tool_output([])}</information>") == ["No search results found."]
    assert documents(f"<information>{error_output('gone')}</information>") == ["Search error: gone"]
    assert documents("") == documents("<information>broken") == []


def test_an_unknown_style() -> None:
    with pytest.raises(ValueError, match="'long' is unknown"):
        render("long", QUESTION, [], QUESTION, 0)  # type: ignore[arg-type]
