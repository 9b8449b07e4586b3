"""The expert: knows which product the goal was made from, finds it, chooses its options, buys it.

Owns: `ShoppingExpert`, the upper bound of play. Called by `envs.webshop.environment`. Must not know: prompts, panels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envs.webshop.goals import Goal
from envs.webshop.product import Product


class ShoppingExpert:
    """Searches for the product's own title, leafs through the results until it is there, does what the goal says."""

    def __init__(self, goal: Goal, product: Product) -> None:
        values = [option if isinstance(option, str) else option[1] for option in goal.options]
        self._link = f"click[{product.asin.lower()}]"
        self._choices = [f"click[{value}]" for value in values]
        self._query = f"search[{product.title}]"

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        can = info["admissible"]
        if self._link in can:
            return self._link
        if "click[buy now]" in can:
            while self._choices:
                choice = self._choices.pop(0)
                if choice in can:
                    return choice
            return "click[buy now]"
        return "click[next >]" if "click[next >]" in can else self._query
