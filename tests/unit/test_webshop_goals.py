"""Goals: the official list, number for number, from one seed, without touching Python's own generator."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from envs.data_folder import DataError
from envs.webshop.goals import NO_BOUND, draw_bound, goal_digest, make_goal
from envs.webshop.product import Product
from tests.unit.webshop_records import odd_records, options, products_of, record, shop_of, wanted


def published_goals(products: list[Product], human: bool, seed: int) -> list[tuple[Any, ...]]:
    """The protocol as the specification words it, on Python's own generator."""
    random.seed(seed)
    prices = [
        random.uniform(*product.prices) if len(product.prices) == 2 else product.prices[0] for product in products
    ]
    goals: list[tuple[Any, ...]] = []

    def bound(price: float) -> float:
        above = [10.0 * k for k in range(1, 100) if 10.0 * k > price][:4]
        return sorted(random.sample(above, 2))[1] if len(above) >= 2 else 1000000

    for product, price in zip(products, prices, strict=True):
        if human:
            for written in product.human:
                upper = bound(price)
                told = "" if upper == 1000000 else f", and price lower than {upper:.2f} dollars"
                text = written.instruction.strip(".") + told
                goals.append((product.asin, text, written.attributes, written.options, upper))
        elif product.instruction is not None:
            upper = bound(price)
            told = "" if upper == 1000000 else f", and price lower than {upper:.2f} dollars"
            names = sorted(product.options)
            for values in itertools.product(*(product.options[name] for name in names)):
                chosen = tuple(zip(names, values, strict=True))
                listed = ", and ".join(f"{name}: {value}" for name, value in chosen)
                text = product.instruction + (f" with {listed}" if listed else "") + told
                goals.append((product.asin, text, product.instruction_attributes, chosen, upper))
    random.seed(seed)
    random.shuffle(goals)
    return goals


@pytest.mark.parametrize("human", [False, True])
@pytest.mark.parametrize("seed", [0, 42, 233])
def test_the_list_of_the_published_protocol(human: bool, seed: int) -> None:
    odd = odd_records()
    products = products_of(odd["products"], odd["attributes"], odd["human"])
    catalogue = shop_of(odd["products"], odd["attributes"], odd["human"])
    found = [catalogue.goal(human, seed, place) for place in range(len(catalogue.goal_table(human, seed)))]
    ours = [(goal.asin, goal.text, goal.attributes, goal.options, goal.price_upper) for goal in found]
    assert ours == published_goals(products, human, seed) and len(ours) == (3 if human else 41)


def test_pythons_own_generator_is_left_alone() -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    shop_of([record("B0A", pricing="$5 - $9")], {"B0A": wanted()}).goal_table(False, 1)
    assert random.random() == expected


def test_prices_of_ranges_are_drawn_in_product_order() -> None:
    catalogue = shop_of([record("B0A", pricing="$5 - $9"), record("B0B"), record("B0C", pricing="$20 - $30")])
    rng = random.Random(7)
    assert catalogue.goal_table(False, 7).prices.tolist() == [rng.uniform(5.0, 9.0), 12.5, rng.uniform(20.0, 30.0)]


def test_seeds_give_other_bounds_and_the_same_number_of_goals() -> None:
    odd = odd_records()
    catalogue = shop_of(odd["products"], odd["attributes"])
    one, other = (catalogue.goal_table(False, seed) for seed in (233, 234))
    assert len(one) == len(other) and one.bounds.tolist() != other.bounds.tolist()


@pytest.mark.parametrize(
    ("price", "bounds"),
    [
        (0.5, {20, 30, 40}),
        (10.0, {30, 40, 50}),
        (965.0, {980, 990}),
        (975.0, {990}),
        (980.0, {NO_BOUND}),
        (2000.0, {NO_BOUND}),
    ],
)
def test_upper_prices_lie_strictly_above_the_price(price: float, bounds: set[int]) -> None:
    assert {draw_bound(random.Random(seed), price) for seed in range(50)} == bounds


def test_text_of_a_goal() -> None:
    (product,) = products_of(
        [record("B0A", customization_options=options(Size=["S", "L"], Color=["Red", "Blue"]))], {"B0A": wanted()}
    )
    texts = [make_goal(product, variant, 40, False).text for variant in range(product.num_variants)]
    assert texts == [
        f"Find me bright lamps with color: {color}, and size: {size}, and price lower than 40.00 dollars"
        for color in ("red", "blue")
        for size in ("s", "l")
    ]
    assert make_goal(product, 3, NO_BOUND, False).text == "Find me bright lamps with color: blue, and size: l"


def test_goals_that_people_wrote_lose_their_full_stops() -> None:
    written = {"instruction": "..a lamp...", "instruction_attributes": ["bright"], "instruction_options": ["red"]}
    (product,) = products_of([record("B0A")], human={"B0A": [written]})
    goal = make_goal(product, 0, 40, True)
    assert goal.text == "a lamp, and price lower than 40.00 dollars" and goal.options == ("red",)


def test_the_digest_says_what_is_asked_for_and_nothing_else() -> None:
    lamp = record("B0A", customization_options=options(Color=["Red", "red", "Blue"]))
    (product,) = products_of([lamp], {"B0A": wanted()})
    (other,) = products_of([{**lamp, "full_description": "Another text."}], {"B0A": wanted()})
    digests = [goal_digest(make_goal(product, variant, 40, False)) for variant in range(3)]
    assert digests[0] == digests[1] != digests[2]
    assert digests[0] == goal_digest(make_goal(other, 0, 40, False)) != goal_digest(make_goal(product, 0, 50, False))


def test_places_beyond_the_list_are_named() -> None:
    catalogue = shop_of([record("B0A")], {"B0A": wanted()})
    for human, place in ((False, 1), (False, -1), (True, 0)):
        with pytest.raises(DataError, match=f"goal {place} of"):
            catalogue.goal(human, 233, place)
