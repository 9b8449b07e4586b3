"""The words of our own catalogue: product kinds, attributes, options and sentences, read from `data/words.toml`.

Owns: the records `Vocabulary`, `Family`, `Kind`, `Axis` and reading them. Called by `catalogue_generator` and
`product_texts`. Must not know: how products are drawn, goals, panels.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

WORDS_FILE = Path(__file__).parent / "data" / "words.toml"
CLASSES = ("is", "has", "use")
"""Where an instruction says an attribute: before the kind, after "with", after "for"."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A product kind: its two names in titles, the `query` it is found under, prices in dollars from - to."""

    names: tuple[str, ...]
    query: str
    category_path: str
    prices: tuple[float, float]
    palette: str
    plural: bool


@dataclass(frozen=True, slots=True)
class Axis:
    """An option: its values by the palette of the kind or its own; `kinds` the first names of those that have it."""

    name: str
    values: tuple[str, ...]
    palette: str
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """Kinds that share attributes (by class), options and sentences.

    `only`: attribute -> first names of the kinds that may have it; an attribute that is not there fits all.
    """

    category: str
    kinds: tuple[Kind, ...]
    attributes: dict[str, tuple[str, ...]]
    only: dict[str, tuple[str, ...]]
    styles: tuple[str, ...]
    details: tuple[str, ...]
    axes: tuple[Axis, ...]
    sentences: tuple[str, ...]

    def fitting(self, kind: Kind) -> list[tuple[str, str]]:
        """(attribute, class) of all that a product of this kind may have."""
        return [
            (phrase, name)
            for name in CLASSES
            for phrase in self.attributes[name]
            if kind.names[0] in self.only.get(phrase, kind.names[:1])
        ]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All words. `sentences`: the templates that every family shares, by what they are about; `extras`: praise that
    titles add; `openings`: how instructions begin."""

    families: tuple[Family, ...]
    sentences: dict[str, tuple[str, ...]]
    openings: tuple[str, ...]
    extras: tuple[str, ...]
    brands: tuple[str, ...]
    palettes: dict[str, tuple[str, ...]]

    def option_values(self, axis: Axis, kind: Kind) -> tuple[str, ...]:
        return axis.values or self.palettes[kind.palette or axis.palette]


@cache
def vocabulary() -> Vocabulary:
    """The words of the shipped file, read once."""
    raw = tomllib.loads(WORDS_FILE.read_text(encoding="utf-8"))
    about = {
        "any": raw["sentences"],
        "is": raw["is_sentences"],
        "has": raw["has_sentences"],
        "use": raw["use_sentences"],
        "beside": raw["beside_sentences"],
    }
    return Vocabulary(
        families=tuple(_family(each) for each in raw["family"]),
        sentences={name: tuple(sentences) for name, sentences in about.items()},
        openings=tuple(raw["openings"]),
        extras=tuple(raw["extras"]),
        brands=tuple(raw["brands"]),
        palettes={name: tuple(values) for name, values in raw["palettes"].items()},
    )


def _family(raw: dict[str, Any]) -> Family:
    kinds = tuple(
        Kind(
            names=tuple(each["names"]),
            query=each["query"],
            category_path=f"{raw['path']} \u203a {each['leaf']}",
            prices=(float(each["price"][0]), float(each["price"][1])),
            palette=each.get("palette", ""),
            plural=each.get("plural", False),
        )
        for each in raw["kinds"]
    )
    axes = tuple(
        Axis(each["name"], tuple(each.get("values", ())), each.get("palette", ""), tuple(each.get("kinds", ())))
        for each in raw["options"]
    )
    return Family(
        category=raw["category"],
        kinds=kinds,
        attributes={name: tuple(raw[name]) for name in CLASSES},
        only={phrase: tuple(kinds) for phrase, kinds in raw.get("only", {}).items()},
        styles=tuple(raw["styles"]),
        details=tuple(raw["details"]),
        axes=axes,
        sentences=tuple(raw["sentences"]),
    )
