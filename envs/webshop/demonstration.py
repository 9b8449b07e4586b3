"""Demonstrations for the cold start: a plain shopper that thinks aloud, and sometimes hesitates.

Owns: what the demonstrator does in a turn and how it puts that into a thought. Called by `envs.webshop.environment`.
Must not know: the catalogue, goals beyond their text, tokenizers, models.

It decides only from what the policy sees: it searches for the words of its task, takes the first offer that is cheap
enough, clicks the options that the task names, and buys. It never compares offers or reads descriptions, so it is often
wrong about near copies. With probability `detour_rate` a turn hesitates (it reads a sub page, goes back, searches
again), and a hesitation tends to last: what T2PO removes (METHOD section 1).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from envs.environment import Demonstrated
from envs.hesitation import Hesitation
from envs.webshop.shown_page import ShownPage, read_page

MOST_LOOKS = 3
"""Items that it opens before it buys one that lacks an option."""
_BOUND = re.compile(r", and price lower than ([\d.]+) dollars$")
_FIRST_OPTION = re.compile(r" with (?:(?! with )[^:,])+: ")
_OPENING = re.compile(r"^(find me|i need|i am looking for|please find|i want to buy|i want)\s+")


class Wish:
    """What a task's text asks for: `query` (its own words, without what it may cost), `options` as (name, value) pairs,
    and the `most` it may cost."""

    def __init__(self, text: str) -> None:
        text = text.lower()
        bound = _BOUND.search(text)
        self.most = float(bound.group(1)) if bound else float("inf")
        self.query = _OPENING.sub("", text[: bound.start()] if bound else text)
        first = _FIRST_OPTION.search(self.query)
        self.options: list[tuple[str, str]] = []
        if first:
            for piece in self.query[first.start() + len(" with ") :].split(", and "):
                name, _, value = piece.partition(": ")
                self.options.append((name, value))


class Demonstrator:
    """Does one task's shopping."""

    def __init__(self, rng: random.Random, detour_rate: float) -> None:
        self._rng = rng
        self._hesitation = Hesitation(rng, detour_rate)
        self._wish: Wish | None = None
        self._seen: list[str] = []
        self._here = ""
        self._chosen: list[str] = []

    def decide(self, observation: str, info: Mapping[str, Any]) -> Demonstrated:
        """The next action and its thought."""
        if self._wish is None:
            self._wish = Wish(info["goal"])
        page = read_page(observation, info["goal"], info["admissible"])
        strikes = self._hesitation.strikes()
        turn = self._hesitate(page) if strikes and page.kind != "start" else self._advance(page, self._wish)
        self._follow(turn.action, page)
        return turn

    def _advance(self, page: ShownPage, wish: Wish) -> Demonstrated:
        if page.kind == "results":
            return self._pick(page, wish)
        if page.kind == "item":
            return self._handle(page, wish)
        if page.kind == "details":
            return self._turn("click[< prev]", "i know enough.", "back")
        return self._turn(f"search[ {wish.query}]", "i look for what is wanted.", "search")

    def _pick(self, page: ShownPage, wish: Wish) -> Demonstrated:
        """The first offer that is cheap enough and was not looked at; the next page where there is none."""
        cheap = [offer for offer in page.offers if _lowest(offer.price) <= wish.most]
        fresh = [offer for offer in cheap if offer.asin not in self._seen] or cheap
        if not fresh:
            return self._turn("click[next >]" if page.offers else "click[back to search]", "too dear here.", "browse")
        click = f"click[{fresh[0].asin.lower()}]"
        return self._turn(click, f"this may be it. next: {click}.", "pick")

    def _handle(self, page: ShownPage, wish: Wish) -> Demonstrated:
        offered = {value for values in page.options.values() for value in values}
        lacking = [value for _, value in wish.options if value not in offered]
        if lacking and len(self._seen) < MOST_LOOKS:
            return self._turn("click[< prev]", f"no {lacking[0]} here.", "back")
        for name, value in wish.options:
            if value in offered and value not in self._chosen:
                return self._turn(f"click[{value}]", f"{name}: {value} click[{value}].", "choose")
        have = ", ".join(value for _, value in wish.options if value in self._chosen) or "no option"
        return self._turn("click[buy now]", f"{have} chosen. all is done. next: click[buy now].", "buy")

    def _hesitate(self, page: ShownPage) -> Demonstrated:
        leaving = [button for button in page.buttons if button != "click[buy now]"]
        thought = self._hesitation.thought("wait. there may be a better one.")
        return Demonstrated(
            action=self._rng.choice(leaving or ["click[back to search]"]), thought=thought, plan="hesitate"
        )

    def _turn(self, action: str, thought: str, plan: str) -> Demonstrated:
        """Now and then with a restatement that adds nothing."""
        restatements = [f"so the next step is {action}.", f"yes, {action}.", "that is the right step."]
        thought = self._hesitation.restated(thought, restatements, 0.4)
        return Demonstrated(action=action, thought=thought, plan=plan)

    def _follow(self, action: str, page: ShownPage) -> None:
        name = action[6:-1] if action.startswith("click[") else ""
        opened = [offer.asin for offer in page.offers if offer.asin.lower() == name]
        if opened:
            self._here, self._chosen = opened[0], []
            self._seen += opened
        elif page.kind == "item" and any(name in values for values in page.options.values()):
            self._chosen.append(name)
        elif page.kind == "item" and name in ("< prev", "back to search"):
            self._chosen = []


def _lowest(price: str) -> float:
    """The lower end of `$12.5` or `$12.5 to $20.0`; no price at all is no obstacle."""
    found = re.search(r"[\d.]+", price)
    try:
        return float(found.group()) if found else 0.0
    except ValueError:
        return 0.0
