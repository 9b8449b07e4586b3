"""What the shop says about a product of our own catalogue: title, bullets, description, instruction.

Owns: `Design` and its wordings. Called by `product_designs` and `catalogue_generator`. Must not know: options, prices,
how designs are drawn.

An attribute is said in the places that the design gives it, word for word but for capitals, so that a buyer who reads
finds it. No text says an attribute of the family that the product does not have; a test checks that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from envs.webshop.vocabulary import CLASSES, Family, Kind, Vocabulary

TITLE, FIRST_BULLET, DESCRIPTION, LATER_BULLET = "title", "first bullet", "description", "later bullet"
PLACES = (TITLE, FIRST_BULLET, DESCRIPTION, LATER_BULLET)
_TITLES = (
    "{brand} {is_} {style} {kind}{has}{use}{details}",
    "{brand} {style} {kind}{is_list}{has_list}{use}{details}",
    "{style} {kind}{use}, {is_} {other}{has}{details}",
    "{brand} {kind}, {style} {is_} {other}{has_list}{use}{details}",
    "{is_} {kind} by {brand}{has}{use}, {style}{details}",
)
NUM_TITLE_PATTERNS = len(_TITLES)
_SMALL = frozenset({"and", "by", "for", "in", "of", "to", "with", "without"})
_SPELLING = {word.lower(): word for word in ("TV", "HDMI", "USB", "LED", "GMO", "USDA", "UV", "WiFi")}
_MOST_EXTRA_BULLETS = 3


@dataclass(frozen=True, slots=True)
class Design:
    """One product before it is put into words. `attributes`: phrase -> class; `places`: phrase -> where it is said."""

    family: Family
    kind: Kind
    brand: str
    style: str
    pattern: int
    attributes: dict[str, str]
    places: dict[str, tuple[str, ...]]

    def said_in(self, place: str) -> list[str]:
        return [phrase for phrase in self.attributes if place in self.places[phrase]]


def capitalize(text: str) -> str:
    """Words with a capital letter, as in titles; small words without."""
    return " ".join(_capitalize_word(word) for word in text.split())


def _capitalize_word(word: str) -> str:
    bare = word.lstrip("(")
    if bare in _SMALL:
        return word
    return word[: len(word) - len(bare)] + _SPELLING.get(bare, bare[:1].upper() + bare[1:])


def _spell(text: str) -> str:
    return " ".join(_SPELLING.get(word, word) for word in text.split())


def write_title(design: Design, name: str, other: str, details: str) -> str:
    """The title; `name` and `other` are the two names of the kind, `details` the end: sizes, counts, praise."""
    said = {name: [p for p in design.said_in(TITLE) if design.attributes[p] == name] for name in CLASSES}
    text = _TITLES[design.pattern].format(
        brand=design.brand,
        style=design.style,
        kind=name,
        other=other,
        is_=" ".join(said["is"]),
        is_list="".join(f", {phrase}" for phrase in said["is"]),
        has=" with " + " and ".join(said["has"]) if said["has"] else "",
        has_list="".join(f", {phrase}" for phrase in said["has"]),
        use=" for " + " and ".join(said["use"]) if said["use"] else "",
        details=details,
    )
    return capitalize(text)


def write_bullets(design: Design, words: Vocabulary, fillers: Sequence[str], others: Sequence[str]) -> list[str]:
    """The bullets: what is said first, one for every attribute said later, a few of fillers.

    `others` are names of kinds that fillers may mention.
    """
    bullets = [[_about(design, words, phrase, number) for number, phrase in enumerate(design.said_in(FIRST_BULLET))]]
    bullets += [[_about(design, words, phrase, 2 + n)] for n, phrase in enumerate(design.said_in(LATER_BULLET))]
    for number, sentence in enumerate(fillers):
        if number < _MOST_EXTRA_BULLETS:
            bullets.append([])
        bullets[-1 - number % len(bullets)].append(_fill(design, sentence, others))
    return [" ".join(bullet) for bullet in bullets if bullet]


def write_description(design: Design, words: Vocabulary, fillers: Sequence[str], others: Sequence[str]) -> str:
    """The description: fillers with a sentence for every attribute that belongs here in between."""
    sentences = [_fill(design, sentence, others) for sentence in fillers]
    for number, phrase in enumerate(design.said_in(DESCRIPTION)):
        sentences.insert(min(1 + 2 * number, len(sentences)), _about(design, words, phrase, number + 3))
    return " ".join(sentences)


def in_instruction_order(design: Design, phrases: Sequence[str]) -> list[str]:
    """Phrases as an instruction says them: by class, and within a class as they stand."""
    return sorted(phrases, key=lambda phrase: CLASSES.index(design.attributes[phrase]))


def write_instruction(design: Design, wanted: Sequence[str], opening: str) -> str:
    """The instruction of a product's goals: `wanted` are phrases of the design, in the order they are said."""
    said = {name: ", ".join(p for p in wanted if design.attributes[p] == name) for name in CLASSES}
    text = f"{opening} {said['is']} {design.kind.query}"
    text += f" with {said['has']}" if said["has"] else ""
    text += f" for {said['use']}" if said["use"] else ""
    return " ".join(text.split())


def _about(design: Design, words: Vocabulary, phrase: str, number: int) -> str:
    """A sentence about an attribute; which one depends on the brand too, so that near copies differ in words."""
    templates = words.sentences[design.attributes[phrase]]
    known = design.family.attributes[design.attributes[phrase]]
    place = known.index(phrase) + words.brands.index(design.brand) + number
    return _fill(design, templates[place % len(templates)], (), _spell(phrase))


def _fill(design: Design, sentence: str, others: Sequence[str], phrase: str = "") -> str:
    plural = design.kind.plural
    return sentence.format(
        brand=design.brand,
        kind=_spell(design.kind.names[0]),
        other=_spell(others[len(sentence) % len(others)]) if others else "",
        this="These" if plural else "This",
        this_low="these" if plural else "this",
        s="" if plural else "s",
        a=phrase,
        A=phrase[:1].upper() + phrase[1:],
        **{"is": "are" if plural else "is"},
    )
