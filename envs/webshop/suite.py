"""The embedded suite: a shop of invented products, and which of its goals are in which panel.

Owns: reading the shipped catalogue, `suite_catalogue`, the rule of the panels. Called by `tasks`, the generator (which
writes the file) and the tests. Must not know: pages, rewards, how the products were made.

A product of `unseen` has no goal in another panel; a product of `seen` has other goals in `train`. The rule goes by
hashes of what a goal asks for, so a panel holds the same goals whatever order they come in.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from envs.data_folder import DataError
from envs.webshop.catalogue import Catalogue
from envs.webshop.goals import OFFICIAL_SEED
from envs.webshop.product import Product, read_product

SUITE_FILE = Path(__file__).parent / "data" / "catalogue.json.xz"
PANELS = ("train", "seen", "unseen")
EVALUATION_SIZE = 256
"""Goals in `seen`, and in `unseen`."""
_UNSEEN_ONE_IN = 4
_MOST_SEEN_OF_A_PRODUCT = 2


def read_suite(path: Path = SUITE_FILE) -> list[Product]:
    """The products of the shipped file, in its order. Raises DataError when the file is damaged."""
    try:
        raw = json.loads(lzma.decompress(path.read_bytes()))
        return [
            read_product(record, raw["attributes"][record["asin"]], raw["nouns"][record["asin"]])
            for record in raw["products"]
        ]
    except (OSError, lzma.LZMAError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: {error}: the file is damaged, install t2po again") from error


@lru_cache(maxsize=1)
def suite_catalogue() -> Catalogue:
    """The shop, in memory; all environments of a process share it."""
    return Catalogue.build(read_suite())


@lru_cache(maxsize=8)
def suite_places(panel: str, goal_seed: int = OFFICIAL_SEED) -> tuple[int, ...]:
    """The places of a panel's goals in the shop's list of goals (`Catalogue.goal`), in panel order.

    Another `goal_seed` gives the same goals with other price bounds, at other places.
    """
    if panel not in PANELS:
        raise DataError(f"webshop has no panel {panel!r} in its own shop: use one of {', '.join(PANELS)}")
    catalogue = suite_catalogue()
    table = catalogue.goal_table(False, goal_seed)
    asins = [catalogue.product(number).asin for number in table.products.tolist()]
    return assign_panels(list(zip(asins, table.variants.tolist(), strict=True)))[panel]


def assign_panels(goals: Sequence[tuple[str, int]]) -> dict[str, tuple[int, ...]]:
    """Panel -> places of its goals in `goals`, in panel order. goals: (asin, number among the product's goals).

    The products that come first by hash are kept from training until they have four times the goals that `unseen`
    needs; one goal in four is drawn, so that products with many options weigh as much as in `train`. The other
    products give `seen` up to two goals each, but never their last; the rest is `train`.
    """
    kept_away = _products_kept_away(Counter(asin for asin, _ in goals))
    left = Counter(asin for asin, _ in goals)
    panels: dict[str, list[int]] = {name: [] for name in PANELS}
    seen: Counter[str] = Counter()
    for place in sorted(range(len(goals)), key=lambda place: _rank(*goals[place])):
        asin = goals[place][0]
        panel = "train"
        if asin in kept_away:
            panel = "unseen"
        elif len(panels["seen"]) < EVALUATION_SIZE and seen[asin] < _MOST_SEEN_OF_A_PRODUCT and left[asin] > 1:
            panel = "seen"
            seen[asin] += 1
            left[asin] -= 1
        panels[panel].append(place)
    del panels["unseen"][EVALUATION_SIZE:]
    return {name: tuple(places) for name, places in panels.items()}


def _products_kept_away(num_goals: Counter[str]) -> set[str]:
    taken: set[str] = set()
    room = _UNSEEN_ONE_IN * EVALUATION_SIZE
    for asin in sorted(num_goals, key=_rank):
        if room > 0:
            taken.add(asin)
            room -= num_goals[asin]
    return taken


def _rank(asin: str, variant: int | None = None) -> str:
    return hashlib.blake2b(f"t2po webshop suite 1 {asin} {variant}".encode(), digest_size=16).hexdigest()
