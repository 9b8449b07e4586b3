"""The strict reply format, and the best-effort action of replies that break it."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.reply import parse_reply

PUBLISHED = re.compile(r"^\s*<think>.*?</think>\s*<action>.*?</action>\s*$", re.IGNORECASE | re.DOTALL)


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think><action>Look</action>",
        " \n<THINK>a\nb</Think>\n\n<Action> look </ACTION>\n ",
        "<think></think><action>look</action>",
        "<think>a < b > c </thin></think><action>look</action>",
    ],
)
def test_strict(text: str) -> None:
    reply = parse_reply(text)
    assert (reply.action, reply.format_valid) == ("look", True)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("<think>a</think><action>look</action> and more", "look"),
        ("Well. <think>a</think><action>look</action>", "look"),
        ("<think>a</think>so<action>look</action>", "look"),
        ("<think>a</think><think>b</think><action>look</action>", "look"),
        ("<think>a</think><action>look</action><action>help</action>", "look"),
        ("<think>a<action>look</action></think>", "look"),
        ("<action>look</action><think>a</think>", "look"),
        ("<action>look</action>", "look"),
        ("<think>看</think><action>look</action>", "look"),
        ("</action><action>look</action>", "look"),
        ("<think>a</think><action>look", "ink>a</think><action>look"),
        ("no tags", "no tags"),
        ("", ""),
    ],
)
def test_broken_format_still_acts(text: str, action: str) -> None:
    reply = parse_reply(text)
    assert not reply.format_valid and reply.action in (action, text[-30:].strip().lower())
    assert action in reply.action


def test_only_ascii_letters_make_a_tag() -> None:
    assert not parse_reply("<thin\u212a>a</thin\u212a><action>look</action>").format_valid


@pytest.mark.parametrize(
    "text",
    ["word " * 10_000, "<think>" * 10_000, "<action>" * 10_000, "<" * 50_000, "<think>" + "a" * 100_000, "\udcff"],
)
def test_garbage_is_an_invalid_reply(text: str) -> None:
    reply = parse_reply(text)
    assert not reply.format_valid and len(reply.action) <= 30


@pytest.mark.parametrize("word", ["word ", "<think>", "<action>", "<", "<think>a", "</action><action>"])
def test_garbage_is_read_in_linear_time(word: str) -> None:
    """Sixteen times the text takes about sixteen times as long; were it quadratic, 256 times."""

    def least_time(text: str) -> float:
        times = []
        for _ in range(5):
            started = time.process_time()
            parse_reply(text)
            times.append(time.process_time() - started)
        return min(times)

    assert least_time(word * 32_000) < 80 * max(least_time(word * 2_000), 1e-4)


def test_a_turn_without_an_action_block_is_told_from_a_bad_one() -> None:
    assert parse_reply("<think>a</think><action>look</action>").has_action
    assert parse_reply("nonsense <action>look</action>").has_action
    assert not parse_reply("<think>a</think>look").has_action
    assert not parse_reply("<think>a</think><action>look").has_action


PIECES = st.sampled_from(
    ["<think>", "</think>", "<action>", "</action>", "<ACTION>", "look", " ", "\n", "文", "<", "x>"]
)


@given(st.lists(PIECES, max_size=9).map("".join))
def test_agrees_with_the_published_expression(text: str) -> None:
    once = all(text.lower().count(tag) == 1 for tag in ("<think>", "</think>", "<action>", "</action>"))
    valid = bool(PUBLISHED.match(text)) and once and not re.search(r"[\u4e00-\u9fff]", text)
    assert parse_reply(text).format_valid == valid
