"""What a page of the shop shows, read back from the text that an agent sees.

Owns: `ShownPage` and `read_page`. Called by the compact prompt and the demonstrator, which may use nothing else. Must
not know: the catalogue, goals, scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from envs.webshop.pages import SEPARATOR

PageKind = Literal["start", "results", "item", "details", "other"]
BUTTONS = frozenset(
    f"click[{name}]"
    for name in (
        "back to search", "next >", "< prev", "description", "features", "reviews", "attributes", "buy now",
    )
)  # fmt: skip
_PRICE = "Price: "


@dataclass(frozen=True, slots=True)
class Offer:
    """One product on a page of results."""

    asin: str
    title: str
    price: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPage:
    """`offers` of a page of results; `title`, `price` and `options` (name -> values, lower-case) of an item's page;
    `texts` of any other; `buttons` in page order, as actions."""

    kind: PageKind
    buttons: tuple[str, ...] = ()
    offers: tuple[Offer, ...] = ()
    total: str = ""
    title: str = ""
    price: str = ""
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    texts: tuple[str, ...] = ()


def read_page(observation: str, goal: str, admissible: Sequence[str]) -> ShownPage:
    """The page of an observation in mode `text`; one that cannot be read is kind "other", with its text whole."""
    parts = observation.split(SEPARATOR)
    task = goal.split(SEPARATOR)[0].strip()
    body = parts[parts.index(task) + 1 :] if task in parts else parts
    buttons = tuple(action for action in admissible if action in BUTTONS)
    if any(action.startswith("search[") for action in admissible):
        return ShownPage(kind="start")
    if "click[next >]" in buttons and "Next >" in body:
        return _results(body, buttons)
    if "click[buy now]" in buttons and any(part.startswith(_PRICE) for part in body):
        return _item(body, buttons, {action[6:-1] for action in admissible if action not in BUTTONS})
    if "click[< prev]" in buttons and "< Prev" in body:
        return ShownPage(kind="details", buttons=buttons, texts=tuple(body[body.index("< Prev") + 1 :]))
    return ShownPage(kind="other", buttons=buttons, texts=(observation,))


def _results(body: list[str], buttons: tuple[str, ...]) -> ShownPage:
    total = next((part for part in body if part.startswith("Page ")), "")
    listed = body[body.index("Next >") + 1 :]
    offers = tuple(Offer(*listed[at : at + 3]) for at in range(0, len(listed) - 2, 3))
    return ShownPage(kind="results", buttons=buttons, offers=offers, total=total)


def _item(body: list[str], buttons: tuple[str, ...], values: set[str]) -> ShownPage:
    price_at = next(at for at, part in enumerate(body) if part.startswith(_PRICE))
    begin = body.index("< Prev") + 1 if "< Prev" in body else 0
    options: dict[str, list[str]] = {}
    name = ""
    for part in body[begin : max(begin, price_at - 1)]:
        if part.lower() in values and name:
            options[name].append(part.lower())
        else:
            name = part.lower()
            options.setdefault(name, [])
    return ShownPage(
        kind="item",
        buttons=buttons,
        title=body[price_at - 1] if price_at > begin else "",
        price=body[price_at].removeprefix(_PRICE),
        options={name: tuple(listed) for name, listed in options.items()},
    )
