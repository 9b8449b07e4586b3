"""Text -> words, by the rules of Unicode text segmentation (UAX #29) as Lucene's standard tokenizer reads them.

Owns: `segments`. Called by `analyzer`. Must not know: English, stop words, stems.

Each character is replaced by the letter of its class (data/character_classes.json), so that the rules are one ordinary
pattern over a string of classes. The pattern finds the longest word at each place, as Lucene does. Beyond the standard,
Lucene makes a word of each ideograph, each emoji sequence, and each run of a script without spaces (Thai, Khmer, ...).
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from functools import cache
from itertools import accumulate
from pathlib import Path

MAX_UNITS = 255
"""Longest word in UTF-16 units; what is longer is cut there."""

_CLASSES_FILE = Path(__file__).with_name("data") / "character_classes.json"
_MAX_KNOWN = 1 << 16
_TAIL = "[XTPZCGgs]*"


def _word_pattern() -> str:
    """UAX #29, WB4 to WB13b; every character takes the combining ones behind it along (WB4)."""
    join = f"(?:_{_TAIL})"
    letter = f"[LHe]{_TAIL}"
    digit = f"[N0]{_TAIL}"
    hebrew = f"H{_TAIL}\"{_TAIL}H{_TAIL}|H{_TAIL}'{_TAIL}"  # WB7a to WB7c, but not behind a mark that joins letters
    core = f"(?:(?:K{_TAIL})+|(?:{hebrew}|{letter}(?:[:.']{_TAIL}{letter})*|{digit}(?:[,.']{_TAIL}{digit})*)+)"
    return f"{join}*+{core}(?:{join}++{core})*{join}*"  # possessive: no core begins with what joins


def _emoji_patterns() -> tuple[str, str]:
    """UTS #51: emoji joined by Z, with selectors, skin tones and tags; keycaps; flags. Before and after words."""
    tail = "[XZCGgs]*"  # without selectors
    emoji = f"[EBe]{tail}P?"
    step = f"(?:{emoji}Z+(?=[EBe])|{emoji}Z(?=M)|M{tail}Z(?=[EBeM])|B{tail}(?=M))"
    rest = f"{step}*(?:{emoji}|M{tail})"
    # an emoji that is a letter too begins a word, unless the emoji behind it makes the sequence longer
    letters = f"(?:e{tail}P?Z+(?=e))*e{tail}P?(?:Z+(?=[EB])|Z(?=M)){rest}"
    tagged = f"Z*[EBe]{tail}PG+g"
    return letters, f"{tagged}|(?:Z*(?=[EBe])|(?=M)){rest}|[#0]{tail}P?C{tail}|(?:R{_TAIL}){{2}}"


_FIRST, _SECOND = _emoji_patterns()
_WORD = re.compile(f"{_FIRST}|{_word_pattern()}|{_SECOND}|(?:[Ss]{_TAIL})+|I{_TAIL}")


def segments(text: str) -> list[str]:
    """The words of a text, in order, as they stand there."""
    words: list[str] = []
    for piece in text.split(" "):  # no word holds a space
        classes = piece.translate(_known())
        if 2 * len(piece) <= MAX_UNITS:
            words += [piece[found.start() : found.end()] for found in _WORD.finditer(classes)]
        else:
            words += _cut(piece, classes)
    return words


def _cut(piece: str, classes: str) -> list[str]:
    """The words of a long piece: at each place the longest word among the next MAX_UNITS units."""
    units = list(accumulate((2 if char > "\uffff" else 1 for char in piece), initial=0))
    words = []
    at = 0
    while at < len(piece):
        found = _WORD.match(classes, at, bisect_right(units, units[at] + MAX_UNITS) - 1)
        if found:
            words.append(piece[at : found.end()])
        at = found.end() if found else at + 1
    return words


class _Known(dict[int, str]):
    """Code point -> letter of its class; filled from the table when a character is first met."""

    def __init__(self) -> None:
        super().__init__()
        rows = []
        for letter, ranges in json.loads(_CLASSES_FILE.read_text(encoding="utf-8"))["ranges"].items():
            for both in ranges.split():
                first, _, last = both.partition("-")
                rows.append((int(first, 16), int(last or first, 16), letter))
        rows.sort()
        self._firsts = [first for first, _, _ in rows]
        self._rows = rows

    def __missing__(self, code: int) -> str:
        place = bisect_right(self._firsts, code) - 1
        letter = self._rows[place][2] if place >= 0 and code <= self._rows[place][1] else " "
        if len(self) < _MAX_KNOWN:
            self[code] = letter
        return letter


@cache
def _known() -> _Known:
    return _Known()
