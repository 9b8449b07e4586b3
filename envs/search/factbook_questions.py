"""The questions of the Factbook suite, with their golds and the searches that answer them.

Owns: `make_questions`. Called by `factbook`. Must not know: passages, indexes, panels (it is told which places stand
apart, so that no question mixes them with the others).

One hop: an attribute of a named place or element. Two hops: the place is described by its capital, highest point,
Internet code, anthem, its only land neighbour or an element discovered there; or two places are compared. Three hops:
the only land neighbour of a place that is described.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envs.search.factbook_facts import (
    ANTHEM,
    ATTRIBUTES,
    BRIDGES,
    CAPITAL,
    FINALS,
    Attribute,
    area,
    peak_height,
    population,
    with_plain_forms,
    without_accents,
)
from envs.search.factbook_source import Place
from envs.search.question import Hop, Question
from envs.search.scoring import normal_form

ONE_HOP, TWO_HOPS, COMPARE, THREE_HOPS = KINDS = ("factbook-1hop", "factbook-2hop", "factbook-compare", "factbook-3hop")

_NOT_ASKED = {"cf", "cg", "ee", "um", "vq", "xx"}
"""Two Congos, the other Virgin Islands, and entries that are no place."""
_UNFINDABLE = {".as", ".at", ".be", ".by", ".in", ".is", ".it", ".no", ".to"}
"""Internet codes that are English stop words: no search engine looks for them."""
_RATIO = 1.3
"""Two values that are closer may have changed places since the source was written."""
_OTHER_NAMES = {
    "UK": "United Kingdom",
    "US": "United States",
    "England": "United Kingdom",
    "Scotland": "United Kingdom",
    "Great Britain": "United Kingdom",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and all that it is about: codes of places and symbols of elements, bridges included."""

    question: Question
    entities: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Described:
    """A place without its name: the words for it, the search that finds it, and what else that leads through."""

    place: Place
    words: str
    hops: tuple[Hop, ...]
    key: str
    entities: frozenset[str]


def askable(places: Iterable[Place]) -> list[Place]:
    """The places that people live in and whose names are one place's only."""
    return [place for place in places if place.code not in _NOT_ASKED and population(place)]


def only_neighbours(places: Iterable[Place]) -> dict[str, str]:
    """Code of a place -> code of the only place that it has a land border with. The other may have more."""
    by_name = {place.name: place.code for place in places}
    found = {}
    for place in places:
        border = re.fullmatch(
            r"([^;,()\d]+) [\d,.]+ km", place.text("Geography", "Land boundaries", "border countries")
        )
        if border:
            other = by_name.get(_OTHER_NAMES.get(border.group(1), border.group(1)))
            if other:
                found[place.code] = other
    return found


def spread(*parts: str) -> str:
    """A key to sort by: an order that follows from content and looks random."""
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8, person=b"t2po-factbook").hexdigest()


def make_questions(
    places: Sequence[Place], elements: Iterable[dict[str, Any]], apart: Callable[[str], bool]
) -> Iterator[Asked]:
    """All questions in a fixed order; `apart` says of the code of a place on which side it stands."""
    asked = askable(places)
    by_code = {place.code: place for place in asked}
    by_name = {place.name: place for place in asked}
    yield from _direct(asked)
    known = list(elements)
    yield from _about_elements(known, by_name)
    described = list(_described(places, asked))
    neighbours = {
        code: other
        for code, other in only_neighbours(asked).items()
        if other in by_code and apart(code) == apart(other)
    }
    for one in described:
        yield from _finals(one, TWO_HOPS)
    for code, other in neighbours.items():
        yield from _finals(_next_door(by_code[code], by_code[other]), TWO_HOPS)
    for row in known:
        if row["discovery_location"] in by_name:
            yield from _finals(_discovered(row, by_name[row["discovery_location"]]), TWO_HOPS)
    for one in described:
        if one.place.code in neighbours and one.key == CAPITAL.key:
            yield from _finals(_beyond(one, by_code[neighbours[one.place.code]]), THREE_HOPS)
    for side in (False, True):
        yield from _comparisons([place for place in asked if apart(place.code) == side])


def _direct(places: Iterable[Place]) -> Iterator[Asked]:
    listed = list(places)
    for attribute in ATTRIBUTES:
        told = _told(attribute, listed)
        for place in listed:
            golds = attribute.read(place)
            # an anthem that several places share is no place's own
            if golds and (attribute is not ANTHEM or _owners(golds[:1], told) == 1):
                question = Question(
                    f"1hop-{attribute.key}-{place.code}",
                    f"What is {attribute.phrase} {place.name}?",
                    golds,
                    ONE_HOP,
                    1,
                    (Hop(f"{place.name} {attribute.query}", golds[0]),),
                )
                yield Asked(question, frozenset({place.code}))


def _told(attribute: Attribute, places: Iterable[Place]) -> list[str]:
    """What each place's entry says of the attribute, in normal form, clean or not."""
    return [f" {normal_form(place.text(*attribute.path))} " for place in places]


def _owners(golds: Iterable[str], told: Iterable[str]) -> int:
    """In how many entries one of the golds stands."""
    forms = [f" {normal_form(gold)} " for gold in golds]
    return sum(any(form in text for form in forms) for text in told)


def discovered_in(row: dict[str, Any], by_name: Mapping[str, Place]) -> Place | None:
    """The one place where an element was discovered; None where the source names none or several."""
    location = row["discovery_location"] or ""
    return by_name.get(_OTHER_NAMES.get(location, location))


def _about_elements(elements: Iterable[dict[str, Any]], by_name: Mapping[str, Place]) -> Iterator[Asked]:
    for row in elements:
        name = row["name"]
        found = discovered_in(row, by_name)
        about = frozenset({row["symbol"], found.code} if found else {row["symbol"]})
        facts = [
            ("cas", f"What is the CAS number of the element {name}?", row["cas"], "CAS number"),
        ]
        place = row["discovery_location"]
        if place and "/" not in place:
            facts.append(("found", f"In which country was the element {name} discovered?", place, "discovered"))
        for key, text, gold, query in facts:
            hop = Hop(f"{name} {query}", gold)
            question = Question(f"1hop-{key}-{row['symbol']}", text, with_plain_forms(gold), ONE_HOP, 1, (hop,))
            yield Asked(question, about if key == "found" else frozenset({row["symbol"]}))


def _described(places: Iterable[Place], asked: Iterable[Place]) -> Iterator[_Described]:
    """Every askable place by each bridge whose value is its own alone and does not give its name away."""
    listed = list(places)
    for attribute, words in BRIDGES:
        told = _told(attribute, listed)
        for place in asked:
            golds = attribute.read(place)
            if not golds or golds[0] in _UNFINDABLE or _owners(golds, told) != 1:
                continue
            value = golds[0]
            if attribute.key != "code" and _gives_away(value, place):
                continue
            hop = Hop(f"{attribute.query} {value}", place.name)
            yield _Described(
                place, f"the {_rank(place)} {words} {value}", (hop,), attribute.key, frozenset({place.code})
            )


def _gives_away(value: str, place: Place) -> bool:
    """Whether a word of the value starts like a word of the place's name or of its people's."""
    told = without_accents(value).lower()
    names = without_accents(f"{place.name} {place.text('People and Society', 'Nationality', 'adjective')}").lower()
    return any(word[:4] in told for word in re.findall(r"[a-z]{4,}", names))


def _rank(place: Place) -> str:
    return "territory" if place.text("Government", "Dependency status") else "country"


def _next_door(place: Place, other: Place) -> _Described:
    hop = Hop(f"{place.name} border countries", other.name)
    words = f"the only {_rank(other)} that has a land border with {place.name}"
    return _Described(other, words, (hop,), f"beside.{place.code}", frozenset({place.code, other.code}))


def _discovered(row: dict[str, Any], place: Place) -> _Described:
    hop = Hop(f"{row['name']} discovered", place.name)
    words = f"the country where the element {row['name']} was discovered"
    return _Described(place, words, (hop,), f"found.{row['symbol']}", frozenset({place.code, row["symbol"]}))


def _beyond(one: _Described, other: Place) -> _Described:
    words = f"the only {_rank(other)} that has a land border with {one.words}"
    hop = Hop(f"{one.place.name} border countries", other.name)
    return _Described(other, words, (*one.hops, hop), f"beyond.{one.place.code}", one.entities | {other.code})


def _finals(one: _Described, kind: str) -> Iterator[Asked]:
    for attribute in FINALS:
        golds = attribute.read(one.place)
        if golds and attribute.key != one.key:
            plan = (*one.hops, _last_hop(attribute, one.place, golds[0]))
            number = len(plan)
            name = f"{number}hop-{attribute.key}-{one.key}-{one.place.code}"
            text = f"What is {attribute.phrase} {one.words}?"
            yield Asked(Question(name, text, golds, kind, number, plan), one.entities)


def _last_hop(attribute: Attribute, place: Place, gold: str) -> Hop:
    return Hop(f"{place.name} {attribute.query}", gold)


_COMPARED: tuple[tuple[str, str, str, Callable[[Place], float]], ...] = (
    ("area", "has the larger total area", "total area", area),
    ("population", "has more inhabitants", "inhabitants", population),
    ("peak", "has the higher highest point", "highest point", peak_height),
)


def _comparisons(places: Sequence[Place]) -> Iterator[Asked]:
    """Each place with the next two in an order of its own for each quantity."""
    for key, words, query, measure in _COMPARED:
        ring = sorted((place for place in places if measure(place)), key=lambda place: spread("ring", key, place.code))
        pairs = [(one, ring[(k + step) % len(ring)]) for step in (1, 2) for k, one in enumerate(ring)]
        for one, other in pairs:
            smaller, larger = sorted((one, other), key=measure)
            if measure(larger) < measure(smaller) * _RATIO:
                continue
            first, second = (one, other) if spread("order", key, one.code, other.code) < "8" else (other, one)
            plan = tuple(Hop(f"{place.name} {query}", _written(key, place)) for place in (first, second))
            name = f"compare-{key}-{first.code}-{second.code}"
            text = f"Which {words}, {first.name} or {second.name}?"
            question = Question(name, text, with_plain_forms(larger.name), COMPARE, 2, plan)
            yield Asked(question, frozenset({one.code, other.code}))


def _written(key: str, place: Place) -> str:
    """The value that is compared, as the passage writes it."""
    if key == "peak":
        return place.text("Geography", "Elevation", "highest point")
    return next(attribute for attribute in ATTRIBUTES if attribute.key == key).read(place)[0]
