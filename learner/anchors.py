"""Anchor states: which turns of a group began in the same state, so that their returns can be compared (GiGPO).

Owns: `anchor_states`. Called by `learner.samples`. Must not know: rewards, tokens, environments.

Source: METHOD section 5. WebShop and ALFWorld compare observations exactly; Search QA calls retrieved texts that are
nearly the same (difflib's ratio of 0.9 or more) one state.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from rapidfuzz.distance import Indel


def anchor_states(observations: Sequence[Sequence[str]], similarity: float) -> list[list[str]]:
    """For each turn of each trajectory the observation that stands for its state.

    `similarity` 1: the observation itself. Below: turns are taken in order, trajectory by trajectory; each joins the
    first state whose observation has at least this `SequenceMatcher` ratio with its own, or begins a new one.
    """
    if similarity >= 1:
        return [list(turns) for turns in observations]
    known: dict[str, str] = {}
    states: list[str] = []
    for turns in observations:
        for text in turns:
            if text not in known:
                state = next((state for state in states if _alike(state, text, similarity)), None)
                if state is None:
                    states.append(text)
                known[text] = text if state is None else state
    return [[known[text] for text in turns] for turns in observations]


def _alike(state: str, text: str, similarity: float) -> bool:
    """difflib's ratio, all characters counted (`autojunk` would ignore every frequent letter of a long text: passages
    that differ in one word had nothing in common). It is slow, so a bound comes first: matching blocks are a common
    subsequence, so the ratio is at most that of the longest one. No cutoff is given: rapidfuzz rounds it."""
    if Indel.normalized_similarity(state, text) < similarity - 1e-9:
        return False
    return SequenceMatcher(None, state, text, autojunk=False).ratio() >= similarity
