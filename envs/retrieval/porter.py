"""Porter's suffix stripping of English words.

Owns: `stem`. Called by `analyzer`. Must not know: tokens, stop words, who searches.

Source: M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, with the three changes that its author
made in his own programs: words of one or two letters stay, `bli` (not only `abli`) becomes `ble`, `logi` becomes `log`.
Letters besides a, e, i, o, u and y count as consonants, so digits and accents need no special care.
"""

from __future__ import annotations

# Suffix -> what replaces it when the measure of the rest is at least 1.
_STEP2 = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "logi": "log",
}
_STEP3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
# Suffixes that go when the measure of the rest is at least 2; `ion` only behind s or t.
_SUFFIXES4 = "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize"
_STEP4 = dict.fromkeys(_SUFFIXES4.split(), "")


def _longest_first(suffixes: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(suffixes.items(), key=lambda entry: -len(entry[0]))


_ORDER2, _ORDER3, _ORDER4 = _longest_first(_STEP2), _longest_first(_STEP3), _longest_first(_STEP4)


def stem(word: str) -> str:
    """The stem of a lower-case word."""
    if len(word) <= 2:
        return word
    word = _y_to_i(_past(_plural(word)))
    word = _replace(word, _ORDER2, 1)
    word = _replace(word, _ORDER3, 1)
    word = _replace(word, _ORDER4, 2)
    return _last_letters(word)


def _shape(word: str) -> str:
    """One `c` (consonant) or `v` (vowel) a letter. `y` is a vowel behind a consonant only."""
    shape = ""
    last = "v"
    for letter in word:
        last = "v" if letter in "aeiou" or (letter == "y" and last == "c") else "c"
        shape += last
    return shape


def _measure(word: str) -> int:
    """How often a consonant follows a vowel: m of [C](VC)^m[V]."""
    return _shape(word).count("vc")


def _ends_short(word: str) -> bool:
    """Consonant, vowel, consonant at the end, the last not w, x or y."""
    return _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"


def _ends_double(word: str) -> bool:
    return len(word) >= 2 and word[-1] == word[-2] and _shape(word)[-1] == "c"


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        rest = word.removesuffix(suffix)
        if rest != word:
            return _mend(rest) if "v" in _shape(rest) else word
    return word


def _mend(rest: str) -> str:
    """What -ed and -ing leave gets its e back, or loses its doubled consonant."""
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if _ends_double(rest):
        return rest if rest[-1] in "lsz" else rest[:-1]
    return rest + "e" if _measure(rest) == 1 and _ends_short(rest) else rest


def _y_to_i(word: str) -> str:
    return word[:-1] + "i" if word.endswith("y") and "v" in _shape(word[:-1]) else word


def _replace(word: str, suffixes: list[tuple[str, str]], least: int) -> str:
    """The longest suffix that fits decides: it is replaced when the measure of the rest is at least `least`."""
    for suffix, new in suffixes:
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            allowed = _measure(rest) >= least and (suffix != "ion" or rest.endswith(("s", "t")))
            return rest + new if allowed else word
    return word


def _last_letters(word: str) -> str:
    """A last e and the second of two l go when enough is left."""
    if word.endswith("e"):
        rest = word[:-1]
        measure = _measure(rest)
        if measure > 1 or (measure == 1 and not _ends_short(rest)):
            word = rest
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word
