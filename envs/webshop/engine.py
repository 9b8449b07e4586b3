"""The shop as a state machine: an action in, a page out, a score at the till.

Owns: `Engine` and how an action is read. Called by `env`, `trace` and the experts. Must not know: panels, prompts,
shaped rewards, the end of an episode's turns.

It follows WebShop's own simulator where that is odd:
- A purchase ends nothing in the shop. The last page has no buttons, but a search goes on with the same goal.
- Where "< Prev" leads, the simulator reads off the page's address, which holds query and options too: a query with
  "search_results" in it makes an item page look like a page of results. `_address` keeps what the address would hold.
- An option value that is called like a button is that button.
"""

from __future__ import annotations

import json
from typing import Literal

from envs.webshop import pages
from envs.webshop.catalogue import Catalogue
from envs.webshop.goals import Float64, Goal
from envs.webshop.pages import Page
from envs.webshop.reward import Breakdown, judge_purchase

ObservationMode = Literal["text", "text_rich"]
SEARCH_BOX = "search[<your query>]"
_PLACES = ("search_results", "item_page", "item_sub_page")
_SUB_PAGE_OF = {name.lower(): name for name in pages.SUB_PAGES}


def read_action(action: str) -> tuple[str, str | None]:
    """The name and the argument of `name[argument]`, else the action and None.

    As `(.+)\\[(.+)\\]` matched at the start would split it, in linear time: nothing behind the last `]` of the first
    line counts, and the argument begins at the last `[` that leaves one.
    """
    line = action.split("\n", 1)[0]
    close = line.rfind("]")
    opening = line.rfind("[", 1, close - 1) if close > 2 else -1
    if opening < 0:
        return action, None
    return line[:opening], line[opening + 1 : close]


class Engine:
    """One shopper. `prices` [num_products] are those that the goals were drawn with."""

    def __init__(
        self,
        catalogue: Catalogue,
        prices: Float64,
        observation_mode: ObservationMode = "text",
        show_attrs: bool = False,
        page_size: int = pages.PAGE_SIZE,
    ) -> None:
        if observation_mode not in ("text", "text_rich"):
            raise ValueError(f"observation_mode {observation_mode!r} is unknown: use text or text_rich")
        self.catalogue = catalogue
        self._prices = prices
        self._rich = observation_mode == "text_rich"
        self._show_attrs = show_attrs
        self._page_size = page_size
        self.breakdown: Breakdown | None = None
        self.observation = ""
        self._address = ""
        self._clickables: dict[str, None] = {}
        self._links: dict[str, int] = {}
        self._option_names: dict[str, str] = {}
        self._on_start = False

    def reset(self, goal: Goal) -> str:
        """The start page of a goal."""
        self.goal = goal
        self.breakdown = None
        self._start()
        return self.observation

    def step(self, action: str) -> tuple[str, float, bool]:
        """Observation, score (0 unless this bought something), whether it did. Any text may be sent; one that is no
        action of this page changes nothing."""
        self.breakdown = None
        name, argument = read_action(action)
        argument = (argument or "").lower()
        if name == "search" and argument:
            self._search(argument.split(" "), 1)
        elif name == "click" and argument != "search" and argument in self._clickables:
            return self._click(argument)
        return self.observation, 0.0, False

    @property
    def has_search_bar(self) -> bool:
        return self._on_start

    def clickables(self) -> list[str]:
        """The names that can be clicked, in page order, as WebShop lists them: "search" on the start page too."""
        return list(self._clickables)

    def admissible(self) -> list[str]:
        """The actions as they are put before an agent: the search box, then the clicks in page order."""
        clicks = [f"click[{name}]" for name in self._clickables if name != "search"]
        return [SEARCH_BOX, *clicks] if self._on_start else clicks

    def _click(self, name: str) -> tuple[str, float, bool]:
        place = self._place()
        if name == pages.BUY_NOW.lower():
            return self._buy()
        if name == pages.BACK_TO_SEARCH.lower():
            self._start()
        elif name == pages.NEXT_PAGE.lower() and place == "search_results":
            self._search(self._keywords, self._number + 1)
        elif name == pages.PREVIOUS.lower() and place == "search_results":
            self._search(self._keywords, self._number - 1)
        elif name == pages.PREVIOUS.lower() and place == "item_sub_page":
            self._show_item()
        elif name == pages.PREVIOUS.lower() and place == "item_page":
            self._search(self._keywords, self._number)
        elif name in _SUB_PAGE_OF:
            self._show_sub_page(_SUB_PAGE_OF[name])
        else:
            if name in self._links:
                self._item = self._links[name]
                self._visited.add(name.upper())
            elif name in self._option_names:
                self._options[self._option_names[name]] = name
            self._show_item()
        return self.observation, 0.0, False

    def _place(self) -> str:
        return next((place for place in _PLACES if place in self._address), "")

    def _start(self) -> None:
        self._keywords: list[str] = []
        self._number = 0
        self._item = -1
        self._options: dict[str, str] = {}
        self._visited: set[str] = set()
        self._turn_to(pages.start_page(self.goal.text), "")
        self._on_start = True

    def _search(self, keywords: list[str], number: int) -> None:
        self._keywords, self._number = keywords, number
        self._item, self._options = -1, {}
        found = self.catalogue.search(" ".join(keywords))
        shown = found[(number - 1) * self._page_size : number * self._page_size]
        products = [self.catalogue.product(item) for item in shown]
        page = pages.results_page(self.goal.text, number, len(found), products)
        self._turn_to(page, f"search_results/{self._query()}/{number}")
        self._links = {product.asin.lower(): item for product, item in zip(products, shown, strict=True)}

    def _show_item(self) -> None:
        product = self.catalogue.product(self._item)
        page = pages.item_page(self.goal.text, product, self._show_attrs)
        self._turn_to(page, f"item_page/{self._query()}/{self._number}/{json.dumps(self._options)}")
        # the last option that has a value is the one that clicking the value chooses
        self._option_names = {value: name for name, values in product.options.items() for value in values}

    def _show_sub_page(self, name: str) -> None:
        page = pages.sub_page(self.goal.text, self.catalogue.product(self._item), name)
        self._turn_to(page, f"item_sub_page/{self._query()}/{self._number}/{name}/{self._options}")

    def _buy(self) -> tuple[str, float, bool]:
        product = self.catalogue.product(self._item)
        price = float(self._prices[self._item])
        score, self.breakdown = judge_purchase(product, price, self._options.values(), self.goal)
        self._turn_to(pages.done_page(product.asin, self._options, score), f"done/{self._options}")
        return self.observation, score, True

    def _query(self) -> str:
        return "+".join(self._keywords)

    def _turn_to(self, page: Page, address: str) -> None:
        self._address = address
        self._clickables = dict.fromkeys(pages.clickables(page))
        self._links, self._option_names, self._on_start = {}, {}, False
        self.observation = pages.write_rich(page, self._visited, address) if self._rich else pages.write_text(page)
