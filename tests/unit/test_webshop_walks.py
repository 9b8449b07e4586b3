"""Walks through invented products, recorded from the original's own code: our shop gives the same, byte by byte.

Recorded with `python -m envs.webshop.differential CHECKOUT tests/unit/data/webshop_odd_records.json --episodes 30
--record tests/unit/data/webshop_walks_synthetic.jsonl.xz --show-attrs`, and `--human-goals` in place of
`--show-attrs` for the other one.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from envs.webshop.catalogue import Catalogue
from envs.webshop.engine import Engine
from envs.webshop.nouns import add_nouns
from envs.webshop.raw_records import read_records
from tests.unit.webshop_records import odd_records

FOLDER = Path(__file__).parent / "data"


def read_walks(name: str) -> tuple[Catalogue, list[list[Any]], list[dict[str, Any]]]:
    """The shop, the original's goals, its walks."""
    lines = lzma.decompress((FOLDER / f"webshop_walks_{name}.jsonl.xz").read_bytes()).splitlines()
    head, *walks = map(json.loads, lines)
    odd = odd_records()
    products = list(read_records(odd["products"], odd["attributes"], odd["human"]))
    nouns = iter([head["nouns"][product.asin] for product in products])
    shop = Catalogue.build(add_nouns(products, lambda titles: [next(nouns) for _ in titles]))
    return shop, head["goals"], walks


@pytest.mark.parametrize("name", ["synthetic", "human"])
def test_the_original_gives_the_same(name: str) -> None:
    shop, goals, walks = read_walks(name)
    human = name == "human"
    table = shop.goal_table(human, 233)
    assert len(table) == len(goals) and len(walks) == 30
    for place, (asin, text, attributes, upper, category, query, product_category, options) in enumerate(goals):
        goal = shop.goal(human, 233, place)
        assert (goal.asin, goal.text, list(goal.attributes), goal.price_upper) == (asin, text, attributes, upper)
        assert (goal.category, goal.query, goal.product_category) == (category, query, product_category)
        assert json.loads(json.dumps(goal.options)) == options
    for walk in walks:
        engine = Engine(shop, table.prices, walk["mode"], show_attrs=not human)
        actual: Any = (engine.reset(shop.goal(human, 233, walk["place"])), 0.0, False)
        for number, (action, expected) in enumerate(walk["steps"]):
            if number:
                actual = engine.step(action)
            observation, score, done = actual
            state = [observation, engine.clickables(), engine.has_search_bar, score, done, engine.breakdown]
            assert json.loads(json.dumps(state)) == expected, (walk["place"], number, action)
