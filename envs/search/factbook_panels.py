"""The three panels of the Factbook suite: train, seen, unseen, disjoint by what their questions are about.

Owns: `make_panels`. Called by `factbook`. Must not know: passages, files.

Some places, and the elements that were discovered there, stand apart: no training question has one of them as its
subject, answer or bridge. Unseen questions are about them alone. Seen questions are new, about places that training
knows. All draws follow from content, not from a random generator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from envs.search.factbook_questions import (
    COMPARE,
    ONE_HOP,
    THREE_HOPS,
    TWO_HOPS,
    Asked,
    askable,
    discovered_in,
    make_questions,
    only_neighbours,
    spread,
)
from envs.search.factbook_source import Place
from envs.search.question import Question

SHARE_APART = 0.12
PANEL_SIZE = 500
_QUOTAS: dict[str, dict[str, int]] = {
    "unseen": {ONE_HOP: 150, COMPARE: 100, THREE_HOPS: 50, TWO_HOPS: PANEL_SIZE},
    "seen": {ONE_HOP: 150, COMPARE: 100, THREE_HOPS: 25, TWO_HOPS: PANEL_SIZE},
}
"""Most questions of a kind; two hops come last and fill the panel."""


def places_apart(places: Sequence[Place]) -> frozenset[str]:
    """Codes of the places that training knows nothing of. Only neighbours stand on one side."""
    linked = only_neighbours(places)
    groups = {place.code: {place.code} for place in places}
    for code, other in linked.items():
        if other in groups:
            joined = groups[code] | groups[other]
            groups |= dict.fromkeys(joined, joined)
    drawn: set[str] = set()
    for place in sorted(places, key=lambda place: spread("apart", min(groups[place.code]))):
        if len(drawn) >= SHARE_APART * len(places):
            break
        drawn |= groups[place.code]
    return frozenset(drawn)


def elements_apart(elements: Iterable[dict[str, Any]], by_name: Mapping[str, Place], away: frozenset[str]) -> set[str]:
    """Symbols of the elements that stand apart: those of such a place, and a share of those without a place."""
    drawn = set()
    for row in elements:
        place = discovered_in(row, by_name)
        chosen = int(spread("apart", row["symbol"])[:8], 16) < SHARE_APART * 2**32
        if (place.code in away) if place else chosen:
            drawn.add(row["symbol"])
    return drawn


def make_panels(places: Sequence[Place], elements: Sequence[dict[str, Any]]) -> dict[str, list[Question]]:
    """Panel name -> its questions, in an order that mixes the kinds."""
    asked = askable(places)
    away = places_apart(asked)
    apart = away | elements_apart(elements, {place.name: place for place in asked}, away)
    known, unknown = [], []
    for one in sorted(make_questions(places, elements, away.__contains__), key=_order):
        if one.entities <= apart:
            unknown.append(one)
        elif not one.entities & apart:
            known.append(one)
    uses = Counter(entity for one in known for entity in one.entities)
    seen = _draw(known, _QUOTAS["seen"], uses)
    kept = {one.question.id for one in seen}
    return {
        "train": [one.question for one in known if one.question.id not in kept],
        "seen": [one.question for one in seen],
        "unseen": [one.question for one in _draw(unknown, _QUOTAS["unseen"])],
    }


def _order(asked: Asked) -> str:
    return spread("panel", asked.question.id)


def _draw(asked: Sequence[Asked], quotas: Mapping[str, int], uses: Counter[str] | None = None) -> list[Asked]:
    """A panel's worth of questions. With `uses`, no question is drawn that is the last one about a place or element:
    who trains on the rest has met all that the panel is about."""
    drawn: list[Asked] = []
    taken: Counter[str] = Counter()
    for kind, most in quotas.items():
        for one in asked:
            if one.question.data_source != kind or taken[kind] >= most or len(drawn) >= PANEL_SIZE:
                continue
            if uses is not None:
                if any(uses[entity] == 1 for entity in one.entities):
                    continue
                uses.subtract(one.entities)
            drawn.append(one)
            taken[kind] += 1
    return sorted(drawn, key=_order)
