"""Invented records in the format of the official files, and shops made of them, for the tests of WebShop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from envs.webshop.catalogue import Catalogue
from envs.webshop.engine import Engine, ObservationMode
from envs.webshop.goals import Goal
from envs.webshop.nouns import add_nouns
from envs.webshop.product import Product
from envs.webshop.raw_records import read_records

ODD_RECORDS = Path(__file__).parent / "data" / "webshop_odd_records.json"


def record(asin: str, name: str = "Plain Lamp", **fields: Any) -> dict[str, Any]:
    return {
        "asin": asin,
        "name": name,
        "full_description": "A lamp.",
        "small_description": ["Gives light"],
        "pricing": "$12.50",
        "customization_options": "",
        "images": [],
        "product_category": "Home \u203a Lighting \u203a Lamps",
        "category": "garden",
        "query": "lamp",
        **fields,
    }


def options(**values: list[str]) -> dict[str, Any]:
    return {name: [{"value": value} for value in listed] for name, listed in values.items()}


def wanted(instruction: str = "Find me bright lamps", attributes: tuple[str, ...] = ("bright",)) -> dict[str, Any]:
    """A record of the attribute file with a synthetic instruction."""
    return {"attributes": list(attributes), "instruction": instruction, "instruction_attributes": list(attributes)}


def tag_words(titles: Any) -> Any:
    """Every word of a title is a noun: enough where spaCy plays no part."""
    return [title.lower().split() for title in titles]


def products_of(
    records: list[dict[str, Any]], attributes: dict[str, Any] | None = None, human: dict[str, Any] | None = None
) -> list[Product]:
    known = {each["asin"]: {"attributes": ["bright"]} for each in records} | (attributes or {})
    return list(add_nouns(read_records(records, known, human), tag_words))


def shop_of(
    records: list[dict[str, Any]], attributes: dict[str, Any] | None = None, human: dict[str, Any] | None = None
) -> Catalogue:
    return Catalogue.build(products_of(records, attributes, human))


def lamps(count: int) -> list[dict[str, Any]]:
    return [record(f"B0LAMP{number:04d}", f"Lamp {number}") for number in range(count)]


def goal_for(product: Product, **fields: Any) -> Goal:
    known: dict[str, Any] = {
        "asin": product.asin,
        "text": "buy a lamp",
        "attributes": ("bright",),
        "options": (),
        "price_upper": 50,
        "category": product.category,
        "query": product.query,
        "product_category": product.product_category,
        "nouns": product.nouns,
    }
    return Goal(**known | fields)


def enter(catalogue: Catalogue, mode: ObservationMode = "text", show_attrs: bool = False, **fields: Any) -> Engine:
    """A shopper at the start page, with a goal made of the first product."""
    engine = Engine(catalogue, catalogue.goal_table(False, 233).prices, mode, show_attrs)
    engine.reset(goal_for(catalogue.product(0), **fields))
    return engine


def odd_records() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(ODD_RECORDS.read_text())
    return loaded
