"""The analyzer gives the terms that Lucene gives, for any text, in bounded time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.retrieval.analyzer import STOP_WORDS, analyze
from envs.retrieval.porter import stem
from envs.retrieval.segments import MAX_UNITS, segments

GOLDEN = json.loads((Path(__file__).parent / "data" / "lucene_golden.json").read_text(encoding="utf-8"))
ODD = "aZé0_.,:'\"-\u00df\u2019\uff07\u0301\u200d\ufe0e\ufe0f\u20e3😀👍🏽🇩\u2139#日ひカ한กא\u00a0\x00\ud800"


@pytest.mark.parametrize(("text", "terms"), GOLDEN["analyzer"], ids=range(len(GOLDEN["analyzer"])))
def test_terms_are_those_of_lucene(text: str, terms: list[str]) -> None:
    assert analyze(text) == terms


@given(st.lists(st.text(alphabet=ODD, max_size=20)))
def test_terms_of_a_text_are_those_of_its_pieces(pieces: list[str]) -> None:
    """No term spans a space, and pieces too long to remember are treated like short ones."""
    text = " ".join(pieces)
    expected = [term for piece in pieces for term in analyze(piece)]
    assert analyze(text) == expected
    assert analyze(f"{text} {'-' * 200}") == expected


@given(st.text())
def test_words_stand_in_the_text_in_order(text: str) -> None:
    at = 0
    for word in segments(text):
        at = text.index(word, at) + len(word)


@given(st.text(alphabet=ODD, min_size=200, max_size=600))
def test_no_word_is_longer_than_the_limit(text: str) -> None:
    assert all(len(word.encode("utf-16-le", "surrogatepass")) <= 2 * MAX_UNITS for word in segments(text))


@pytest.mark.parametrize("piece", ["a", "_", "_\u0301", 'א"', "\u200d", "😀\u200d", "1,", "\u2139\u200d", "\ud800"])
def test_a_long_text_without_spaces_takes_bounded_time(piece: str) -> None:
    assert len(analyze(piece * 100_000)) <= 100_000  # the time is the deadline of a test


def test_stop_words_are_no_terms() -> None:
    assert len(STOP_WORDS) == 33
    assert analyze(" ".join(sorted(STOP_WORDS)).upper()) == []


def test_short_words_and_numbers_keep_their_letters() -> None:
    assert [stem(word) for word in ("is", "as", "s", "", "12", "100s")] == ["is", "as", "s", "", "12", "100"]
