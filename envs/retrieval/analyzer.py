"""Text -> search terms, as Lucene's English analyzer makes them.

Owns: `analyze`. Called by `postings`, `bm25` and whoever needs the same terms. Must not know: indexes, scores.

Order of the steps: words, possessive 's off, lower case, stop words out, stems.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from itertools import chain

from envs.retrieval.porter import stem
from envs.retrieval.segments import segments

_STOPPED = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
)
STOP_WORDS = frozenset(_STOPPED.split())
_POSSESSIVE = tuple(f"{mark}{letter}" for mark in "'\u2019\uff07" for letter in "sS")
_LONGEST_PIECE = 32  # what is kept of earlier texts stays small whatever they are
_BEYOND = re.compile("[\U00010000-\U0010ffff]")


def analyze(text: str) -> list[str]:
    """The terms of a text, in order, repeated words repeated. Any text is fine, a broken surrogate too."""
    pieces = text.split(" ")
    if max(map(len, pieces)) <= _LONGEST_PIECE:
        return list(chain.from_iterable(map(_terms, pieces)))
    return [term for piece in pieces for term in (_terms if len(piece) <= _LONGEST_PIECE else _fresh)(piece)]


def _fresh(piece: str) -> tuple[str, ...]:
    return tuple(term for term in map(_term, segments(piece)) if term)


_terms = lru_cache(maxsize=1 << 17)(_fresh)
"""Texts repeat their words: nearly every piece between two spaces was met before."""


def _term(word: str) -> str:
    """The term of a word; "" for a stop word."""
    if word.endswith(_POSSESSIVE):
        word = word[:-2]
    # letter by letter: Python would make two characters of the first and look around at the second
    word = word.replace("\u0130", "i").replace("\u03a3", "\u03c3").lower()
    if word in STOP_WORDS:
        return ""
    if _BEYOND.search(word):
        # lengths count UTF-16 units, so a character beyond the first 65,536 counts twice
        word = stem(_BEYOND.sub(lambda found: found.group() + "\0", word)).replace("\0", "")
    else:
        word = stem(word)
    return sys.intern(word)  # one copy, however many pieces have it
