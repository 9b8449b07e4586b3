"""The shop's pages: what is on each, how it reads, what can be clicked.

Owns: one function for each page, both ways of writing a page as text, `clickables`, `shown_observation`. Called by
`engine` and the prompt. Must not know: how one gets from page to page, rewards.

A page is a list of pieces in reading order. What a piece turns into follows WebShop, which writes HTML and reads the
texts back out of it: a text that is empty is gone, and one of blanks alone shrinks to a newline, which is dropped, or
to one blank, which stays.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from envs.webshop.product import Product

Kind = Literal["text", "button", "link", "option"]
Piece = tuple[Kind, str]
Page = list[Piece]

SEARCH, BACK_TO_SEARCH, NEXT_PAGE, PREVIOUS, BUY_NOW = "Search", "Back to Search", "Next >", "< Prev", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews", "Attributes")
PAGE_SIZE = 10
SEPARATOR = " [SEP] "
_BLANKS = " \n\t\f\r"
_NOTHING = "None"
"""What WebShop's last page writes where its server does not know."""


def start_page(goal_text: str) -> Page:
    return [("text", "WebShop"), ("text", "Instruction: "), ("text", goal_text), ("button", SEARCH)]


def results_page(goal_text: str, number: int, total: int, products: Iterable[Product]) -> Page:
    """Page `number` of `total` products; `products` are those on it."""
    page = _head(goal_text)
    page.append(("text", f"Page {number} (Total results: {total})"))
    if number > 1:
        page.append(("button", PREVIOUS))
    page.append(("button", NEXT_PAGE))
    for product in products:
        page += [("link", product.asin), ("text", product.title), ("text", product.price_text)]
    return page


def item_page(goal_text: str, product: Product, show_attrs: bool) -> Page:
    page = [*_head(goal_text), _button(PREVIOUS)]
    for name, values in product.options.items():
        page.append(("text", name))
        page += [("option", value) for value in values]
    page += [("text", product.title), ("text", f"Price: {product.price_text}"), ("text", "Rating: N.A.")]
    return page + [_button(name) for name in (SUB_PAGES if show_attrs else SUB_PAGES[:-1])] + [_button(BUY_NOW)]


def sub_page(goal_text: str, product: Product, name: str) -> Page:
    """One of SUB_PAGES. Nobody has reviewed anything: WebShop never loads its reviews."""
    page = [*_head(goal_text), _button(PREVIOUS)]
    if name == "Description":
        page.append(("text", product.description))
    elif name == "Features":
        page += [("text", f" {bullet}") for bullet in product.bullets]
    elif name == "Attributes":
        page += [("text", f" {attribute}") for attribute in product.attributes]
        page += [("text", product.category), ("text", product.query), ("text", product.product_category)]
    return page


def done_page(asin: str, options: Mapping[str, str], score: float) -> Page:
    """The page after a purchase. Of what it has room for, the server fills in the asin, the options and the score."""
    written = json.dumps(options, sort_keys=True)
    for sign in "<>&'":
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    bought = ["asin", asin, "options", written, "attrs", _NOTHING, "category", _NOTHING, "query", _NOTHING]
    wanted = ["asin", "options", "attrs", "price upper", "instuction text", "category", "product category", "query"]
    texts = ["Thank you for shopping with us!", "Your code: ", _NOTHING, " (Paste it in your MTurk interface.)"]
    texts += ["Purchased", *bought, "product category", _NOTHING, "Target", *wanted, "Goal ", _NOTHING, "Reward"]
    texts += ["Your score (min 0.0, max 1.0)", str(score), "Reward Details ", _NOTHING]
    return [("text", text) for text in texts]


def _head(goal_text: str) -> Page:
    return [("text", "Instruction:"), ("text", goal_text), ("button", BACK_TO_SEARCH)]


def _button(name: str) -> Piece:
    return ("button", name)


def clickables(page: Page) -> list[str]:
    """What can be clicked: buttons, then products, then option values, each name once, where it came first."""
    found = [text.lower() for kind, text in page if kind == "button"]
    found += [text.lower() for kind, text in page if kind == "link"]
    found += [text for kind, text in page if kind == "option"]
    return list(dict.fromkeys(found))


def _visible(page: Page) -> list[Piece]:
    pieces: list[Piece] = []
    for piece in page:
        text = piece[1]
        if text.strip(_BLANKS):
            pieces.append(piece)
        elif text and "\n" not in text:
            pieces.append((piece[0], " "))
    return pieces


def write_text(page: Page) -> str:
    """The page in mode `text`: the chosen options are not to be seen."""
    return SEPARATOR.join([text.strip() for _, text in _visible(page)])


def write_rich(page: Page, visited: Collection[str], address: str) -> str:
    """The page in mode `text_rich`, which marks what can be clicked and what has been.

    An option value counts as chosen when it stands in quotes in the page's address (`engine`), which holds query and
    options as JSON: a value beyond ASCII never does, and a quoted word of the query may.
    """
    lines, notes = [], []
    for kind, text in _visible(page):
        if kind == "text":
            lines.append(f"{text}\n")
            continue
        mark, indent = "button", {"button": "", "link": "\n", "option": "  "}[kind]
        if kind == "option" and f'"{text}"' in address:
            mark = "clicked button"
            notes.append(f"You have clicked {text}.\n")
        elif kind == "link" and text in visited:
            mark = "clicked button"
        lines.append(f"{indent}[{mark}] {text} [{mark}_]\n")
    return "".join(notes[::-1] + lines)


def shown_observation(observation: str, instruction: str) -> str:
    """What the published prompt shows of an observation in mode `text`: the parts behind the task, each in quotes.

    Without the task in it (the page after a purchase) the observation is shown as it is.
    """
    parts: Sequence[str] = observation.split(SEPARATOR)
    task = instruction.split(SEPARATOR)[0].strip()
    if task not in parts:
        return observation
    return SEPARATOR.join(f"'{part}'" for part in parts[parts.index(task) + 1 :])
