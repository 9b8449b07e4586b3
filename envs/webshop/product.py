"""A product as the shop shows and judges it, made from the records of the official files.

Owns: `Product`, `HumanGoal`, `read_product` and the text that is searched. Called by `catalogue`, `goals`, `pages` and
`reward`. Must not know: where records come from, how products are stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from envs.data_folder import DataError

DEFAULT_PRICE = 100.0
LONGEST_ASIN = 10
NO_ATTRIBUTES = ("DUMMY_ATTR",)
_NOT_PRICE = re.compile(r"[^\d.]")


@dataclass(frozen=True, slots=True)
class HumanGoal:
    """A goal that a person wrote: `options` are values, or (name, value) pairs where the file has an object."""

    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str | tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product. `prices`: one or two (a range), dollars. `options`: name -> values, both in the file's order.

    `nouns`: lower-cased nouns of the title as spaCy finds them, repeats kept. `instruction` is null where the product
    has no synthetic goals; `human` are its human goals.
    """

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    prices: tuple[float, ...]
    options: dict[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    category: str
    query: str
    product_category: str
    nouns: tuple[str, ...]
    instruction: str | None
    instruction_attributes: tuple[str, ...]
    human: tuple[HumanGoal, ...]

    @property
    def price_text(self) -> str:
        return " to ".join(f"${price}" for price in self.prices)

    @property
    def num_variants(self) -> int:
        """How many synthetic goals it gives: one for each combination of its options; -1 without an instruction."""
        return -1 if self.instruction is None else math.prod(len(values) for values in self.options.values())

    @property
    def searched_text(self) -> str:
        """What the search index reads."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        first = self.bullets[0] if self.bullets else ""
        return " ".join((self.title, self.description, first, options)).lower()


def is_listed(asin: str) -> bool:
    """Whether WebShop loads a record of this asin at all."""
    return asin != "nan" and len(asin) <= LONGEST_ASIN


def read_product(
    record: Mapping[str, Any],
    attributes: Mapping[str, Any],
    nouns: Sequence[str] = (),
    human: Sequence[Any] = (),
) -> Product:
    """A product from its record, its record in the attribute file and its list in the human file.

    Raises DataError naming the field. The caller says in which file and record.
    """
    bullets = record.get("small_description")
    instruction = attributes.get("instruction")
    if instruction is not None and not isinstance(instruction, str):
        raise DataError(f"instruction is {instruction!r}, not a text")
    wanted = _texts(attributes.get("instruction_attributes") or [], "instruction_attributes")
    if instruction is not None and not wanted:
        raise DataError("an instruction without instruction_attributes: no reward can be worked out")
    return Product(
        asin=_text(record, "asin"),
        title=_text(record, "name"),
        description=_text(record, "full_description"),
        bullets=(bullets,) if isinstance(bullets, str) else _texts(bullets, "small_description"),
        prices=read_prices(record.get("pricing")),
        options=_read_options(record.get("customization_options")),
        attributes=_texts(attributes.get("attributes", NO_ATTRIBUTES), "attributes"),
        category=_text(record, "category"),
        query=_text(record, "query").lower().strip(),
        product_category=_text(record, "product_category"),
        nouns=tuple(nouns),
        instruction=instruction,
        instruction_attributes=wanted,
        human=tuple(goal for row in human if (goal := _read_human(row)) is not None),
    )


def read_prices(pricing: object) -> tuple[float, ...]:
    """The price, or the two ends of a price range, of a text like "$1,234.50" or "$3.5 - $10"; "" gives the default."""
    if pricing is None or pricing == "":
        return (DEFAULT_PRICE,)
    if not isinstance(pricing, str) or "$" not in pricing:
        raise DataError(f"pricing is {pricing!r}: write amounts with a dollar sign, or nothing")
    try:
        prices = tuple(float(Decimal(_NOT_PRICE.sub("", part))) for part in pricing.split("$")[1:])
    except (InvalidOperation, ValueError) as error:
        raise DataError(f"pricing is {pricing!r}: a number must follow every dollar sign") from error
    return prices[:2]


def _read_options(customization: object) -> dict[str, tuple[str, ...]]:
    if not customization:
        return {}
    if not isinstance(customization, dict):
        raise DataError(f"customization_options is {customization!r}, not an object")
    options = {}
    for name, contents in customization.items():
        if contents is None:
            continue
        if not isinstance(contents, list) or not all(isinstance(content, dict) for content in contents):
            raise DataError(f"customization_options, {name!r}: not a list of objects with a value")
        values = [_text(content, "value") for content in contents]
        options[name.lower()] = tuple(value.strip().replace("/", " | ").lower() for value in values)
    return options


def _read_human(row: object) -> HumanGoal | None:
    """A human goal; None without attributes, as WebShop leaves it out."""
    if not isinstance(row, dict):
        raise DataError(f"human instruction {row!r}: not an object")
    attributes = _texts(row.get("instruction_attributes"), "instruction_attributes of a human instruction")
    options = row.get("instruction_options")
    if isinstance(options, dict):
        values = _texts(list(options.values()), "instruction_options of a human instruction")
        wanted: tuple[str | tuple[str, str], ...] = tuple(zip(options, values, strict=True))
    else:
        wanted = _texts(options, "instruction_options of a human instruction")
    return HumanGoal(_text(row, "instruction"), attributes, wanted) if attributes else None


def _text(record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise DataError(f"{field} is {'missing' if field not in record else repr(value)}, not a text")
    return value


def _texts(values: object, field: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{field} is {values!r}, not a list of texts")
    return tuple(values)
