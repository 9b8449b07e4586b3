"""Goals: what is to be bought, and the official list of them, number for number.

Owns: `Goal`, the draws of prices and price bounds, `GoalTable`, `make_goal`, the digest. Called by `catalogue` and
`tasks`. Must not know: how products are stored, panels.

The official list follows from one seed: WebShop seeds Python's generator, draws a price for every product with a price
range, then price bounds, seeds again and shuffles. A private generator gives the same numbers. One seed serves all
workers: with a seed of its own each, number k would be another goal in each, and test goals would be trained on.
"""

from __future__ import annotations

import hashlib
import json
import random
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.data_folder import DataError
from envs.records import Int32
from envs.webshop.colors import Option
from envs.webshop.product import Product

OFFICIAL_SEED = 233
NO_BOUND = 1_000_000
"""What WebShop writes where there is no upper price."""
_BOUNDS = tuple(range(10, 1000, 10))
_MOST_GOALS = 2**31 - 1
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One thing to buy. `options`: (name, value) pairs, or plain values in goals that people wrote. `asin`, `category`,
    `query`, `product_category` and `nouns` are those of the product that the goal was made from."""

    asin: str
    text: str
    attributes: tuple[str, ...]
    options: tuple[Option, ...]
    price_upper: int
    category: str
    query: str
    product_category: str
    nouns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoalTable:
    """All goals in official order. products, variants, bounds [num_goals]: the product's number, which of its goals,
    and the upper price. prices [num_products], dollars: what each product costs when it is bought."""

    products: Int32
    variants: Int32
    bounds: Int32
    prices: Float64

    def __len__(self) -> int:
        return len(self.products)


def draw_prices(rng: random.Random, ranges: Float64) -> Float64:
    """One price a product. ranges [num_products, 2]: low and high; high is NaN where there is one price."""
    prices = ranges[:, 0].copy()
    for number in np.flatnonzero(~np.isnan(ranges[:, 1])).tolist():
        prices[number] = rng.uniform(float(ranges[number, 0]), float(ranges[number, 1]))
    return prices


def draw_bound(rng: random.Random, price: float) -> int:
    """The upper price in a goal: the larger of two of the next four multiples of 10 below 1000, if there are two."""
    above = _BOUNDS[bisect_right(_BOUNDS, price) :][:4]
    return max(rng.sample(above, 2)) if len(above) >= 2 else NO_BOUND


def draw_goals(ranges: Float64, counts: Int32, human: bool, seed: int) -> GoalTable:
    """The table for a seed. counts [num_products, 2]: synthetic goals (-1: no instruction) and human goals a product.

    A product's synthetic goals share one bound, which is drawn even if an option without values leaves no goal.
    """
    rng = random.Random(seed)
    prices = draw_prices(rng, ranges)
    column = counts[:, 1 if human else 0]
    drawing = np.flatnonzero(column > 0) if human else np.flatnonzero(column >= 0)
    sizes = column[drawing].astype(np.int64)
    if int(sizes.sum()) > _MOST_GOALS:
        raise DataError(f"{int(sizes.sum())} goals, more than {_MOST_GOALS}: the products' options are damaged")
    bounds: list[int] = []
    for number, size in zip(drawing.tolist(), sizes.tolist(), strict=True):
        price = float(prices[number])
        bounds += [draw_bound(rng, price) for _ in range(size)] if human else [draw_bound(rng, price)] * size
    products = np.repeat(drawing, sizes).astype(np.int32)
    variants = (np.arange(len(products)) - np.repeat(np.cumsum(sizes) - sizes, sizes)).astype(np.int32)
    order = list(range(len(products)))
    random.Random(seed).shuffle(order)
    return GoalTable(products[order], variants[order], np.array(bounds, dtype=np.int32)[order], prices)


def make_goal(product: Product, variant: int, bound: int, human: bool) -> Goal:
    """Goal number `variant` of a product with this upper price."""
    price_text = "" if bound == NO_BOUND else f", and price lower than {bound:.2f} dollars"
    options: tuple[Option, ...]
    if human:
        written = product.human[variant]
        text, attributes, options = written.instruction.strip("."), written.attributes, written.options
    else:
        if product.instruction is None:
            raise DataError(f"product {product.asin} has no instruction: its goals come from other data")
        chosen = _combination(product, variant)
        named = ", and ".join(f"{name}: {value}" for name, value in chosen)
        text = product.instruction + (f" with {named}" if named else "")
        attributes, options = product.instruction_attributes, tuple(chosen)
    return Goal(
        asin=product.asin,
        text=text + price_text,
        attributes=attributes,
        options=options,
        price_upper=bound,
        category=product.category,
        query=product.query,
        product_category=product.product_category,
        nouns=product.nouns,
    )


def _combination(product: Product, variant: int) -> list[tuple[str, str]]:
    """Combination number `variant` of option values: names sorted, the last name's values change fastest."""
    chosen = []
    for name in sorted(product.options, reverse=True):
        variant, place = divmod(variant, len(product.options[name]))
        chosen.append((name, product.options[name][place]))
    return chosen[::-1]


def goal_digest(goal: Goal) -> str:
    """Hash of what the goal is made of, the same on every machine."""
    parts: Iterable[object] = (goal.asin, goal.text, goal.attributes, goal.options, goal.price_upper)
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
