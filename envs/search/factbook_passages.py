"""The corpus of the Factbook suite: short passages about places and elements, with a title each.

Owns: how a source's fields become passages. Called by `factbook`. Must not know: questions, indexes.

A passage is `"Title"\\ntext` as in the published Wikipedia corpus. It holds neighbouring fields of one section of one
place, about 80 words, so that one passage rarely tells two of the things that a question has to bring together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from envs.search.corpus import passage_text
from envs.search.factbook_source import Place

MOST_WORDS = 115
"""Words after which a passage is closed; longer fields are split at the ends of sentences."""
_REPEATED = 8
"""A note that this many places share explains the source, not the place: it is left out."""
_LEFT_OUT = {"major-language sample(s)"}
"""One sentence about the Factbook itself in many alphabets."""
_SPELLED_OUT = {"Area": "area", "Population": "inhabitants"}
"""Fields whose parts (total, land, male) say too little by themselves."""
_SENTENCE = re.compile(r"(?<=[.;:!?]) +")


def place_passages(places: Iterable[Place]) -> Iterator[str]:
    """The passages of all places in their order."""
    listed = list(places)
    notes = Counter(text for place in listed for path, text in place.fields.items() if path[-1] == "note")
    for place in listed:
        told: set[str] = set()
        for section, fields in _sections(place).items():
            statements = []
            for field, parts in fields.items():
                kept = [
                    (part, text)
                    for part, text in parts
                    if part not in _LEFT_OUT and (part != "note" or notes[text] < _REPEATED)
                ]
                statement = _statement(field, place.name, kept)
                # two sections repeat some fields word for word
                if kept and statement not in told:
                    told.add(statement)
                    statements.append(statement)
            for text in _pack(statements):
                yield passage_text(f"{place.name}: {section}", text)


def _sections(place: Place) -> dict[str, dict[str, list[tuple[str, str]]]]:
    found: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for (section, field, *parts), text in place.fields.items():
        found.setdefault(section, {}).setdefault(field, []).append((" ".join(parts), text))
    return found


def _statement(field: str, name: str, parts: list[tuple[str, str]]) -> str:
    """One field: `Area: total 30 sq km; land 28 sq km.`"""
    told = []
    for part, text in parts:
        plain = "" if part == "note" or text.lower().startswith(part.lower()) else part.removeprefix(field).strip(" :-")
        noun = _SPELLED_OUT.get(field, "") if plain else ""
        told.append(" ".join(word for word in (plain, noun, text) if word))
    return f"{field} of {name}: {'; '.join(told)}".rstrip(".;") + "."


def _pack(statements: Iterable[str]) -> Iterator[str]:
    """Neighbouring statements together, as long as they have room."""
    held: list[str] = []
    words = 0
    for statement in statements:
        for piece in _split(statement):
            length = len(piece.split())
            if held and words + length > MOST_WORDS:
                yield " ".join(held)
                held, words = [], 0
            held.append(piece)
            words += length
    if held:
        yield " ".join(held)


def _split(statement: str) -> Iterator[str]:
    """A long statement in pieces that each name the field."""
    if len(statement.split()) <= MOST_WORDS:
        yield statement
        return
    field = statement.split(":", 1)[0]
    held = ""
    for sentence in _SENTENCE.split(statement):
        # a sentence without an end (a long list) is cut where the room ends
        for part in _slices(sentence):
            if held and len(f"{held} {part}".split()) > MOST_WORDS:
                yield held
                held = f"{field}: {part}"
            else:
                held = f"{held} {part}".strip()
    yield held


def _slices(sentence: str) -> Iterator[str]:
    words = sentence.split()
    room = MOST_WORDS - 10
    for start in range(0, len(words), room):
        yield " ".join(words[start : start + room])


def element_passages(elements: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The passages of all elements in their order."""
    for row in elements:
        name = row["name"]
        for topic, statements in _topics(row).items():
            for text in _pack(statements):
                yield passage_text(f"{name}: {topic}", text)


def _topics(row: dict[str, Any]) -> dict[str, list[str]]:
    name = row["name"]
    decays = "radioactive" if row["is_radioactive"] else "not radioactive"
    identity = [
        f"{name} is a chemical element with the symbol {row['symbol']} and the atomic number {row['atomic_number']}.",
        f"It belongs to the series {row['series'].lower()}, period {row['period']}, block {row['block']}.",
        *_facts("It has", (("relative atomic weight", "atomic_weight", ""), ("CAS number", "cas", "")), row),
        f"It is {decays}.",
        *_facts("It has", (("electronic configuration", "electronic_configuration", ""),), row),
    ]
    discovery = []
    if row["discovery_location"] and row["discovery_year"]:
        discovery.append(f"{name} was discovered in {row['discovery_location']} in {row['discovery_year']}.")
    discovery += _texts(row, (("Discoverers", "discoverers"), ("Origin of the name", "name_origin")))
    return {
        "identity": identity,
        "discovery and name": discovery,
        "description": _texts(row, (("Description", "description"),)),
        "sources and uses": _texts(row, (("Sources", "sources"), ("Uses", "uses"))),
        "physical properties": _facts(f"{name} has", _PROPERTIES, row),
        "supply": [
            *_texts(row, (("Top producers", "top_3_producers"), ("Top reserve holders", "top_3_reserve_holders"))),
            *_facts(f"{name} has", _SUPPLY, row),
        ],
        "isotopes": [_isotope(name, isotope) for isotope in row["isotopes"]],
    }


_PROPERTIES = (
    ("density", "density", "g/cm3"),
    ("melting point", "melting", "K"),
    ("boiling point", "boiling", "K"),
    ("evaporation heat", "evaporation_heat", "kJ/mol"),
    ("fusion heat", "fusion_heat", "kJ/mol"),
    ("thermal conductivity", "thermal_conductivity", "W/m/K"),
    ("specific heat capacity", "specific_heat_capacity", "J/g/K"),
    ("electron affinity", "electron_affinity", "eV"),
    ("Pauling electronegativity", "en_pauling", ""),
    ("atomic radius", "atomic_radius", "pm"),
    ("van der Waals radius", "vdw_radius", "pm"),
    ("lattice structure", "lattice_structure", ""),
    ("abundance in the crust", "abundance_crust", "mg/kg"),
    ("abundance in the sea", "abundance_sea", "mg/L"),
)
_SUPPLY = (
    ("relative supply risk", "relative_supply_risk", "on a scale to 10"),
    ("production concentration", "production_concentration", "%"),
    ("price", "price_per_kg", "USD/kg"),
)
_UNITS = {"sec": "s", "msec": "ms", "usec": "µs", "nsec": "ns", "psec": "ps", "asec": "as", "zsec": "zs"}


def _facts(start: str, columns: Iterable[tuple[str, str, str]], row: dict[str, Any]) -> list[str]:
    told = [
        f"{label} {_value(row[column])} {unit}".strip() for label, column, unit in columns if row[column] is not None
    ]
    return [f"{start} {', '.join(told)}."] if told else []


def _texts(row: dict[str, Any], columns: Iterable[tuple[str, str]]) -> list[str]:
    told = []
    for label, column in columns:
        text = " ".join(str(row[column] or "").split()).rstrip(".")
        if text:
            told.append(f"{label}: {text}.")
    return told


def _isotope(name: str, isotope: dict[str, Any]) -> str:
    told = f"{name}-{isotope['mass_number']}"
    if isotope["abundance"] is not None:
        told += f": abundance {_value(isotope['abundance'])}%"
    if isotope["half_life"] is not None:
        unit = _UNITS.get(isotope["half_life_unit"], isotope["half_life_unit"])
        told += f": half-life {_value(isotope['half_life'])} {unit}"
    if isotope["discovery_year"] is not None:
        told += f", known since {isotope['discovery_year']}"
    return f"{told}."


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
