"""Drawing products of our own catalogue: brand, attributes, where they are said, options, price.

Owns: `draw_kind`, the shares that set how hard the search is, and the draws `pick` and `sample`. Called by
`catalogue_generator`. Must not know: how products are put into words, files, goals.

Every kind has a few base products with near copies that differ in attributes, options or price, so that the first
result is often not the right one. The shares were set so that searching is about as hard as in the official
catalogue of 1,000 products; there, most attributes are said only in bullets that the search does not read.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from envs.webshop.product_texts import (
    DESCRIPTION,
    FIRST_BULLET,
    LATER_BULLET,
    NUM_TITLE_PATTERNS,
    PLACES,
    TITLE,
    Design,
)
from envs.webshop.vocabulary import Axis, Family, Kind, Vocabulary

Item = TypeVar("Item")

MOST_COMBINATIONS = 36
"""Of option values, of one product: each is a goal, and no product is to rule the suite."""
_PRODUCTS_OF_A_KIND = (6, 7, 7, 8, 8)
_COPIES = (1, 2, 2, 3)  # near copies of a base product
_NUM_ATTRIBUTES = (0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8)
# The share of attributes said in each place. Products with options say less where the search looks: their texts are
# shared by all colors and sizes.
_SAID = {TITLE: 0.34, FIRST_BULLET: 0.18, DESCRIPTION: 0.22, LATER_BULLET: 0.60}
_SAID_WITH_OPTIONS = {TITLE: 0.20, FIRST_BULLET: 0.08, DESCRIPTION: 0.10, LATER_BULLET: 0.75}
_SAID_NOWHERE = 0.03
_HAS_OPTIONS = 0.43
_TWO_OPTIONS = 0.60
_NUM_VALUES = (2, 2, 3, 3, 4, 5, 5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class Drawn:
    """One product: its design, option name -> values ({}: none), its price in dollars."""

    design: Design
    options: dict[str, list[str]]
    price: float


def draw_kind(family: Family, kind: Kind, words: Vocabulary, rng: random.Random) -> list[Drawn]:
    """The products of a kind: base products, each followed by near copies of it."""
    count = pick(_PRODUCTS_OF_A_KIND, rng)
    drawn: list[Drawn] = []
    while len(drawn) < count:
        options = _draw_options(family, kind, words, rng) if rng.random() < _HAS_OPTIONS else {}
        base = _draw_design(family, kind, words, bool(options), rng)
        price = kind.prices[0] * (kind.prices[1] / kind.prices[0]) ** rng.random()
        drawn.append(Drawn(base, options, price))
        for _ in range(pick(_COPIES, rng)):
            alike = bool(options) if rng.random() < 0.7 else rng.random() < _HAS_OPTIONS
            copied = _draw_options(family, kind, words, rng) if alike else {}
            drawn.append(Drawn(_draw_copy(base, words, alike, rng), copied, price * 3 ** (rng.random() - 0.5)))
    return drawn[:count]


def _draw_design(family: Family, kind: Kind, words: Vocabulary, has_options: bool, rng: random.Random) -> Design:
    chosen = sample(family.fitting(kind), pick(_NUM_ATTRIBUTES, rng), rng)
    named = " ".join(kind.names).split()
    return Design(
        family=family,
        kind=kind,
        brand=pick(_brands_of(family.category, words), rng),
        style=" ".join(sample([style for style in family.styles if style not in named], pick((1, 2), rng), rng)),
        pattern=int(rng.random() * NUM_TITLE_PATTERNS),
        attributes=dict(chosen),
        places={phrase: _draw_places(has_options, rng) for phrase, _ in chosen},
    )


def _draw_copy(base: Design, words: Vocabulary, has_options: bool, rng: random.Random) -> Design:
    """Much like `base`: one attribute in place of another, said elsewhere; perhaps another brand or style."""
    other = _draw_design(base.family, base.kind, words, has_options, rng)
    attributes = dict(base.attributes)
    if attributes and rng.random() < 0.8:
        del attributes[pick(sorted(attributes), rng)]
    new = [phrase for phrase in other.attributes if phrase not in base.attributes]
    if new and rng.random() < 0.8:
        attributes[new[0]] = other.attributes[new[0]]
    return Design(
        family=base.family,
        kind=base.kind,
        brand=base.brand if rng.random() < 0.4 else other.brand,
        style=base.style if rng.random() < 0.6 else other.style,
        pattern=base.pattern if rng.random() < 0.5 else other.pattern,
        attributes=attributes,
        places={phrase: _draw_places(has_options, rng) for phrase in attributes},
    )


def _draw_places(has_options: bool, rng: random.Random) -> tuple[str, ...]:
    if rng.random() < _SAID_NOWHERE:
        return ()
    said = _SAID_WITH_OPTIONS if has_options else _SAID
    return tuple(place for place in PLACES if rng.random() < said[place]) or (LATER_BULLET,)


def _draw_options(family: Family, kind: Kind, words: Vocabulary, rng: random.Random) -> dict[str, list[str]]:
    """Option name -> values; {} where the kind has no option."""
    known = [axis for axis in family.axes if not axis.kinds or kind.names[0] in axis.kinds]
    axes = sample(known, 2 if rng.random() < _TWO_OPTIONS else 1, rng)
    options = {axis.name: _draw_values(axis, kind, words, rng) for axis in axes}
    while math.prod(len(values) for values in options.values()) > MOST_COMBINATIONS:
        max(options.values(), key=len).pop()
    return options


def _draw_values(axis: Axis, kind: Kind, words: Vocabulary, rng: random.Random) -> list[str]:
    values = words.option_values(axis, kind)
    chosen = sample(values, pick(_NUM_VALUES, rng), rng)
    return sorted(chosen, key=values.index) if axis.name == "size" else chosen


def _brands_of(category: str, words: Vocabulary) -> list[str]:
    categories = list(dict.fromkeys(family.category for family in words.families))
    return list(words.brands[categories.index(category) :: len(categories)])


def pick(items: Sequence[Item], rng: random.Random) -> Item:
    """One of the items, each as likely."""
    # not rng.choice: its algorithm has changed between Python versions, random() has not
    return items[int(rng.random() * len(items))]


def sample(items: Sequence[Item], count: int, rng: random.Random) -> list[Item]:
    """`count` different items, or all of them, in random order."""
    left = list(items)
    return [left.pop(int(rng.random() * len(left))) for _ in range(min(count, len(left)))]
