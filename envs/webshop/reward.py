"""What a purchase is worth: WebShop's reward and its parts.

Owns: `judge_purchase` and the parts of the formula. Called by `engine`. Must not know: pages, searches, files.

The rules are those of the published code; where that code says something that looks odd, a comment says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rapidfuzz import fuzz
from rapidfuzz.utils import default_process

from envs.webshop.colors import Option, normalize_color
from envs.webshop.goals import Goal
from envs.webshop.product import Product

Breakdown = dict[str, float | bool]
_MATCH_ABOVE = 85
_NO_NOUNS_SCORE = 0.2
# What thefuzz calls "force ASCII" takes out the second half of Latin-1 alone; letters beyond it stay.
_LATIN_1 = dict.fromkeys(range(128, 256))


def token_set_ratio(one: Option, other: Option) -> int:
    """Similarity of two options as sets of words, 0 to 100. A pair is compared by its Python text."""
    cleaned = [default_process(str(option).translate(_LATIN_1)) for option in (one, other)]
    return round(fuzz.token_set_ratio(*cleaned)) if all(cleaned) else 0


def type_reward(bought: Product, goal: Goal) -> Breakdown:
    """Whether the product is of the kind that was asked for: r_type and what it follows from."""
    query_match = bought.query == goal.query
    category_match = len(_levels(bought.product_category) & _levels(goal.product_category)) >= 2
    title_score = _NO_NOUNS_SCORE
    if goal.nouns:
        # common words are counted once, the goal's words as often as they occur
        title_score = len(set(bought.nouns) & set(goal.nouns)) / len(goal.nouns)
    r_type = 1.0 if query_match or category_match or title_score > 0.2 else 0.5
    if title_score < 0.1:
        r_type = 0.1
    if title_score == 0.0:
        r_type = 0.0
    return {
        "r_type": r_type,
        "query_match": query_match,
        "category_match": category_match,
        "title_score": title_score,
    }


def _levels(product_category: str) -> set[str]:
    return {level.strip() for level in product_category.split("\u203a")}


def count_attributes(bought: Product, wanted: Iterable[str]) -> int:
    """How many wanted attributes the product has: listed among its own, or written in its texts."""
    texts = [text.lower() for text in (bought.title, " ".join(bought.bullets), bought.description)]
    return sum(
        _matches(bought.attributes, attribute) or any(attribute in text for text in texts) for attribute in wanted
    )


def count_options(chosen: Iterable[str], wanted: Iterable[Option]) -> int:
    """How many wanted options a chosen value matches."""
    values = [normalize_color(value) for value in chosen]
    return sum(_matches(values, normalize_color(option)) for option in wanted)


def _matches(candidates: Sequence[Option], wanted: Option) -> bool:
    return any(token_set_ratio(candidate, wanted) > _MATCH_ABOVE for candidate in candidates)


def judge_purchase(bought: Product, price: float, chosen: Iterable[str], goal: Goal) -> tuple[float, Breakdown]:
    """The score of buying a product with these option values, in [0, 1], and its parts.

    `price` in dollars is the product's own, drawn where it has a range (`goals.draw_prices`).
    """
    kind = type_reward(bought, goal)
    num_attributes, num_options = len(goal.attributes), len(goal.options)
    parts = num_attributes + num_options + 1
    attributes = count_attributes(bought, goal.attributes)
    options = count_options(chosen, goal.options)
    affordable = price <= goal.price_upper
    score = (attributes + options + affordable) / parts * kind["r_type"]
    breakdown: Breakdown = {
        "r_type": kind["r_type"],
        "r_att": attributes / num_attributes,
        "w_att": num_attributes / parts,
        "query_match": kind["query_match"],
        "category_match": kind["category_match"],
        "title_score": kind["title_score"],
    }
    if num_options:
        breakdown |= {"r_option": options / num_options, "w_option": num_options / parts}
    return score, breakdown | {"r_price": affordable, "w_price": 1 / parts}
