"""Replies of Search QA: strict format, best effort, the cuts, and no text that takes long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.search.reply import answer_action, parse_search_reply, search_action

SEARCH, ANSWER = search_action("q"), answer_action("a")


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("<think>x</think><search>q</search>", SEARCH),
        ("  <think>\nx\n</think>\n\n<answer> a </answer>\n", ANSWER),
        ("<THINK>x</Think><Search>Capital Of MALI</SEARCH>", "<search>Capital Of MALI</search>"),
        ("<think></think><search></search>", "<search></search>"),
        ("<think>中文</think><answer>北京</answer>", "<answer>北京</answer>"),
    ],
)
def test_the_strict_format(text: str, action: str) -> None:
    reply = parse_search_reply(text)
    assert (reply.action, reply.format_valid, reply.has_action) == (action, True, True)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("<search>q</search>", SEARCH),  # no thought
        ("<think>x</think>so <search>q</search>", SEARCH),
        ("<think>x</think><search>q</search> done", SEARCH),
        ("<think>x</think><search>q</search><answer>a</answer>", SEARCH),
        ("<think>x</think><answer>a</answer><search>q</search>", SEARCH),  # the cut is after the search
        ("<think>x</think><search>q</search><search>r</search>", SEARCH),
        ("<think>x</think><answer>a</answer><answer>b</answer>", ANSWER),
        ("<think>x</think><think>y</think><answer>a</answer>", ANSWER),
        ("<think><search>q</search></think><answer>a</answer>", SEARCH),
        ("<answer>a</answer></search>", ANSWER),
        ("</search><answer>a</answer>", ""),  # behind the cut
        ("</answer><answer>a</answer>", ""),
        ("<search>q", ""),
        ("<answer>a <search>q</search>", SEARCH),
        ("<search>q <answer>a</answer>", ANSWER),
        ("<search><search>q</search>", "<search><search>q</search>"),
        ("<think>x</think><action>look</action>", ""),
        ("<thin\u212a>x</thin\u212a><answer>a</answer>", ANSWER),
        ("<\u017fearch>q</\u017fearch>", ""),
        ("", ""),
    ],
)
def test_best_effort(text: str, action: str) -> None:
    reply = parse_search_reply(text)
    assert (reply.action, reply.format_valid, reply.has_action) == (action, False, bool(action))


def test_a_megabyte_of_garbage_takes_one_pass() -> None:
    for piece in ("<", "<search>", "<answer>", "</think>", "<search><", "</answer><answer>", "\x00"):
        # a second look at each tag would take hours: the deadline of a test ends that
        assert not parse_search_reply(piece * (1_000_000 // len(piece))).format_valid


@given(st.text(st.sampled_from("<>/ thinksearchanswer\n\ud800"), max_size=200))
def test_any_text_is_read(text: str) -> None:
    reply = parse_search_reply(text)
    assert reply.has_action == bool(reply.action)
    assert reply.has_action or not reply.format_valid


@given(st.text(max_size=40).filter(lambda text: "<" not in text), st.booleans())
def test_what_is_written_is_what_is_read(text: str, searches: bool) -> None:
    action = search_action(text.strip()) if searches else answer_action(text.strip())
    reply = parse_search_reply(f"<think>so</think>\n{action}")
    assert (reply.action, reply.format_valid) == (action, True)
