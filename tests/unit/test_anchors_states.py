"""Anchor states: exact, or nearly the same text, in the order of the turns."""

from __future__ import annotations

import random
from difflib import SequenceMatcher

from hypothesis import given
from hypothesis import strategies as st

from learner.anchors import anchor_states

TEXTS = st.lists(st.lists(st.text("ab ", max_size=12), max_size=5), max_size=4)


def slow(observations: list[list[str]], similarity: float) -> list[list[str]]:
    """The rule as it is said, without short cuts."""
    states: list[str] = []
    out = []
    for turns in observations:
        row = []
        for text in turns:
            for state in states:
                if SequenceMatcher(None, state, text, autojunk=False).ratio() >= similarity:
                    row.append(state)
                    break
            else:
                states.append(text)
                row.append(text)
        out.append(row)
    return out


@given(TEXTS, st.sampled_from([0.3, 0.6, 0.9, 0.95]))
def test_states_are_those_of_the_plain_rule(observations: list[list[str]], similarity: float) -> None:
    assert anchor_states(observations, similarity) == slow(observations, similarity)


@given(TEXTS)
def test_similarity_one_is_equality(observations: list[list[str]]) -> None:
    assert anchor_states(observations, 1.0) == observations


def test_texts_that_differ_by_a_few_letters_are_one_state() -> None:
    rng = random.Random(0)
    passage = " ".join(rng.choices(["river", "city", "1842", "capital", "of", "the"], k=200))
    other = " ".join(rng.choices(["stone", "iron", "cast", "blue", "hard"], k=200))
    near = passage.replace("1842", "1843", 3)
    assert anchor_states([[passage, other], [near]], 0.9) == [[passage, other], [passage]]
    assert anchor_states([[passage, other], [near]], 1.0) == [[passage, other], [near]]
