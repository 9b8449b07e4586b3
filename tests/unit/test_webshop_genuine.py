"""The official small set, where it is at hand: T2PO_WEBSHOP_GENUINE names it, as for `t2po data get webshop --from`."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from envs.webshop.catalogue import Catalogue
from envs.webshop.engine import Engine
from envs.webshop.goals import goal_digest
from envs.webshop.official import prepared_catalogue

GENUINE = os.environ.get("T2PO_WEBSHOP_GENUINE", "")
pytestmark = pytest.mark.skipif(not GENUINE, reason="T2PO_WEBSHOP_GENUINE names no official data")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    pytest.importorskip("spacy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2PO_DATA", str(tmp_path_factory.mktemp("data")))
        return prepared_catalogue(Path(GENUINE))


def test_the_figures_of_the_specification(shop: Catalogue) -> None:
    products = [shop.product(number) for number in range(len(shop))]
    assert len(products) == 1000 and len(shop.goal_table(False, 233)) == len(shop.goal_table(False, 7)) == 6910
    assert sum(product.instruction is not None for product in products) == 415
    assert sum(any(product.options.values()) for product in products) == 423
    assert len({product.query for product in products}) == 246
    assert len({product.category for product in products}) == 5
    assert sum(product.price_text == "$100.0" for product in products) == 89
    assert sum(len(product.prices) == 2 for product in products) == 93
    assert all(product.nouns for product in products if product.instruction)


def test_goals_repeat_only_where_a_product_lists_a_value_twice(shop: Catalogue) -> None:
    goals = [shop.goal(False, 233, place) for place in range(6910)]
    count = Counter(goal_digest(goal) for goal in goals)
    again = {goal.asin for goal in goals if count[goal_digest(goal)] > 1}
    assert len(goals) - len(count) == 9 and len(again) == 2


def test_buying_what_the_goal_was_made_from_scores(shop: Catalogue) -> None:
    table, scores = shop.goal_table(False, 233), []
    for place in range(0, 6910, 23):
        goal = shop.goal(False, 233, place)
        engine = Engine(shop, table.prices)
        engine.reset(goal)
        engine.step(f"search[{shop.product(int(table.products[place])).title}]")
        engine.step(f"click[{goal.asin}]")
        if "buy now" not in engine.clickables():
            continue
        for option in goal.options:
            engine.step(f"click[{option[1]}]")
        scores.append(engine.step("click[buy now]")[1])
    assert len(scores) > 280 and sum(scores) / len(scores) > 0.97 and min(scores) > 0.4


def test_random_walks_never_break(shop: Catalogue) -> None:
    rng, table = random.Random(0), shop.goal_table(False, 233)
    engine = Engine(shop, table.prices, "text_rich", show_attrs=True)
    for _ in range(40):
        goal = shop.goal(False, 233, rng.randrange(6910))
        engine.reset(goal)
        for _ in range(15):
            engine.step(rng.choice([f"click[{name}]" for name in engine.clickables()] or [f"search[{goal.query}]"]))
            if engine.has_search_bar:
                engine.step(f"search[{' '.join(rng.choices(goal.text.split(), k=4))}]")
            assert engine.observation
