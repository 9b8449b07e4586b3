"""Exact match: when an answer counts as right, and where in an episode the answer is.

Owns: `normal_form`, `exact_match`, `given_answer`. Called by the environment, the expert and the tests. Must not
know: retrieval. It is given what the agent wrote and nothing else: a document that holds an answer tag earns nothing.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE | re.ASCII)


def normal_form(text: str) -> str:
    """Lower case, without ASCII punctuation, without the words a, an, the, with single blanks (SQuAD's rule)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """Whether the answer equals one of the golds in normal form.

    Where nothing is left of a gold ("A", "The The"), the answer has to be written like it, so that an empty answer
    never counts.
    """
    form, written = normal_form(answer), answer.strip().casefold()
    for gold in golds:
        wanted = normal_form(gold)
        if form == wanted if wanted else written == gold.strip().casefold() != "":
            return True
    return False


def given_answer(actions: Sequence[str]) -> str | None:
    """The last answer block in what the agent wrote, stripped; None without one. A block lies within one action."""
    for action in reversed(actions):
        found: str | None = None
        start = -1
        for tag in _TAG.finditer(action):
            if not tag.group(1):
                start = tag.end() if start < 0 else start
            elif start >= 0:
                found, start = action[start : tag.start()].strip(), -1
        if found is not None:
            return found
    return None
