"""What can be asked about a place, and how its answer is read from the source.

Owns: `Attribute`, `ATTRIBUTES` and `BRIDGES`: gold answers and how a place can be described without its name. Called
by `factbook_questions` and the tests. Must not know: panels, passages.

The first gold is always as the passage writes it. A value that is not clean (two capitals, an unnamed peak) gives no
question rather than a doubtful one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from envs.search.factbook_source import FieldPath, Place

Golds = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attribute:
    """`phrase` of NAME is asked for; `query` finds it together with the name; `parse` reads the golds from the field
    at `path`, or none."""

    key: str
    phrase: str
    query: str
    path: FieldPath
    parse: Callable[[str], Golds]

    def read(self, place: Place) -> Golds:
        """The golds for one place; empty where the source has no clean value."""
        return self.parse(place.text(*self.path))


def without_accents(text: str) -> str:
    """The text with letters for accented letters."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))


def with_plain_forms(*golds: str) -> Golds:
    """The golds, each also without accents, none twice, in order."""
    return tuple(dict.fromkeys(form for gold in golds if gold for form in (gold, without_accents(gold))))


def number_of(text: str) -> float:
    """The number that a text starts with; 0 without one."""
    found = re.match(r"[\d,]+(?:\.\d+)?", text)
    return float(found.group().replace(",", "")) if found and found.group().strip(",") else 0.0


def _bare(text: str) -> str:
    """Without remarks in brackets, if that leaves one plain name; "" otherwise."""
    name = " ".join(re.sub(r"\([^()]*\)", " ", text).split())
    return name if re.fullmatch(r"[^\W\d][^;,:()\[\]\d]*", name) else ""


def _capital(text: str) -> Golds:
    name = _bare(text)
    return with_plain_forms(name) if name[:1].isupper() else ()


def _with_unit(unit: str) -> Callable[[str], Golds]:
    """A number and its unit; the number alone is accepted as well."""
    pattern = re.compile(rf"([\d,.]*\d) {unit}\b")

    def parse(text: str) -> Golds:
        found = pattern.match(text)
        return (found.group(1), found.group()) if found and number_of(found.group(1)) else ()

    return parse


def _population(text: str) -> Golds:
    found = re.match(r"\d[\d,]*(?= |$)", text)
    return (found.group(),) if found and number_of(found.group()) else ()


_PEAK = re.compile(r"(?P<name>[^\W\d_][^\d;,]*?) (?:\((?P<alias>[^()]*)\) )?(?P<height>\d[\d,]*)(?: m\b.*)?")


def _peak_match(text: str) -> re.Match[str] | None:
    found = _PEAK.fullmatch(text)
    if found is None or not found["name"][0].isupper() or "(" in found["name"]:
        return None
    return None if re.search(r"\b(?:unnamed|location|range)\b", found["name"]) else found


def _peak(text: str) -> Golds:
    found = _peak_match(text)
    if found is None:
        return ()
    alias = found["alias"] or ""
    named = alias and all(word[0].isupper() for word in alias.split()) and "," not in alias
    return with_plain_forms(found["name"], *([alias, f"{found['name']} ({alias})"] if named else []))


def _code(text: str) -> Golds:
    return (text,) if re.fullmatch(r"\.[a-z]{2}", text) else ()


def _adjective(text: str) -> Golds:
    plain = re.fullmatch(r"[A-Z][\w' -]+", text) and not re.search(r"\bor\b|\band\b|^NA$", text)
    return with_plain_forms(text) if plain else ()


_ANTHEM = re.compile(r"[\"“”](?P<title>[^\"“”\[\]]+)[\"“”](?: \((?P<translation>[^()]+)\))?")


def _anthem(text: str) -> Golds:
    found = _ANTHEM.fullmatch(text)
    return with_plain_forms(found["title"].strip(" ,"), (found["translation"] or "").strip()) if found else ()


_CURRENCY = re.compile(r"(?P<name>[^\W\d_][^()]*?) \((?P<code>[A-Z]{3})\) per US dollar\b.*")


def _currency(text: str) -> Golds:
    found = _CURRENCY.fullmatch(text)
    if found is None or re.search(r"\bor\b|\band\b|/|;", found["name"]):
        return ()
    name = found["name"]
    one = name[:-1] if name.endswith("s") and not name.endswith("ss") else ""
    return with_plain_forms(name, one, found["code"], f"{name} ({found['code']})")


_PEOPLE = "People and Society"
CAPITAL = Attribute("capital", "the capital of", "capital", ("Government", "Capital", "name"), _capital)
CODE = Attribute(
    "code",
    "the Internet country code of",
    "Internet country code",
    ("Communications", "Internet country code"),
    _code,
)
PEAK = Attribute("peak", "the highest point of", "highest point", ("Geography", "Elevation", "highest point"), _peak)
ANTHEM = Attribute(
    "anthem",
    "the title of the national anthem of",
    "national anthem",
    ("Government", "National anthem(s)", "title"),
    _anthem,
)
POPULATION = Attribute(
    "population", "the number of inhabitants of", "inhabitants", (_PEOPLE, "Population", "total"), _population
)
AREA = Attribute("area", "the total area of", "total area", ("Geography", "Area", "total"), _with_unit("sq km"))
CURRENCY = Attribute(
    "currency", "the currency of", "currency exchange rates", ("Economy", "Exchange rates", "Currency"), _currency
)
LIFE = Attribute(
    "life",
    "the life expectancy at birth in",
    "life expectancy at birth",
    (_PEOPLE, "Life expectancy at birth", "total population"),
    _with_unit("years"),
)
ADJECTIVE = Attribute(
    "adjective",
    "the adjective of nationality for",
    "nationality adjective",
    (_PEOPLE, "Nationality", "adjective"),
    _adjective,
)

ATTRIBUTES = (CAPITAL, POPULATION, AREA, PEAK, CODE, ANTHEM, CURRENCY, LIFE, ADJECTIVE)
"""What is asked directly."""

FINALS = (POPULATION, AREA, CAPITAL, CURRENCY, LIFE, PEAK, CODE)
"""What is asked about a place that is only described; a description is not asked for itself."""

BRIDGES = (
    (CAPITAL, "whose capital is"),
    (PEAK, "whose highest point is"),
    (CODE, "whose Internet country code is"),
    (ANTHEM, "whose national anthem is"),
)
"""How a place is described: the attribute and the words before its value."""


def peak_height(place: Place) -> float:
    """Height of the highest point, m; 0 where the source does not say."""
    found = _peak_match(place.text(*PEAK.path))
    return number_of(found["height"]) if found else 0.0


def area(place: Place) -> float:
    """Total area, km²; 0 where the source does not say."""
    return number_of(AREA.read(place)[0]) if AREA.read(place) else 0.0


def population(place: Place) -> float:
    """Inhabitants; 0 where there are none."""
    return number_of(place.text(*POPULATION.path))
