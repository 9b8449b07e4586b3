"""WebShop's panels: which goals are in each, and the shop that a task is played in.

Owns: panel names and splits, `panel_rows`, `goal_of`, `engine_for`. Called by the environment and `env`. Must not know:
prompts, rewards of training, official files.

The embedded panels are train, seen and unseen (`suite`). Official ones are called `official-[full-][human-]SPLIT`: of
the small set or the full one (1,181,436 products), synthetic goals or those that people wrote; a task is a goal's
place in the shuffled list, as text. Splits: train and test as verl-agent and T2PO cut the list, paper-* as the WebShop
paper does. Where a product lists a value twice, two places hold one goal: one that a test holds too is left out of
training (of the small set one of 6,410).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from envs.data_folder import DataError, data_folder
from envs.environment import TaskRow
from envs.records import Task
from envs.webshop import suite
from envs.webshop.catalogue import Catalogue
from envs.webshop.engine import Engine, ObservationMode
from envs.webshop.goals import OFFICIAL_SEED, Goal, goal_digest
from envs.webshop.official import stored_catalogue, stored_products
from envs.webshop.pages import PAGE_SIZE
from envs.webshop.product import Product

SPLITS: dict[str, tuple[int, int | None]] = {
    "train": (500, None),
    "test": (0, 500),
    "paper-train": (1500, None),
    "paper-eval": (500, 1500),
    "paper-test": (0, 500),
}
_OFFICIAL = {
    f"official-{full}{human}{split}": (full, human, split)
    for full in ("", "full-")
    for human in ("", "human-")
    for split in SPLITS
}
PANEL_NAMES = (*suite.PANELS, *_OFFICIAL)
APART = (
    suite.PANELS,
    *(
        tuple(f"official-{human}{split}" for split in splits)
        for human in ("", "human-")
        for splits in (("train", "test"), ("paper-train", "paper-eval", "paper-test"))
    ),
)
"""Sets of panels that must share no task; those of the full set are too large to be compared at every load."""
_HELD_OUT = {"train": 500, "paper-train": 1500, "paper-eval": 500}
"""Goals at the beginning of the list that a split must not repeat."""


@dataclass(frozen=True, slots=True)
class _Panel:
    """The goals of a panel: `places` in the list of all goals of a catalogue."""

    catalogue: Catalogue
    human: bool
    goal_seed: int
    places: Sequence[int]
    embedded: bool

    def goal(self, index: int) -> Goal:
        return self.catalogue.goal(self.human, self.goal_seed, self.places[index])

    def product(self, index: int) -> Product:
        table = self.catalogue.goal_table(self.human, self.goal_seed)
        return self.catalogue.product(int(table.products[self.places[index]]))

    def task_id(self, index: int) -> str:
        place = self.places[index]
        if not self.embedded:
            return str(place)
        return (
            f"{self.product(index).asin}-{int(self.catalogue.goal_table(self.human, self.goal_seed).variants[place])}"
        )


def panel_rows(panel: str, data_dir: Path | None = None, goal_seed: int = OFFICIAL_SEED) -> list[TaskRow]:
    """The tasks of a panel in panel order; `kind` is the category of the product. Raises DataError."""
    found = _panel(panel, data_dir, goal_seed)
    rows = []
    for index in range(len(found.places)):
        goal = found.goal(index)
        rows.append(TaskRow(found.task_id(index), goal.category, goal_digest(goal)))
    return rows


def panel_file(panel: str, data_dir: Path | None = None) -> Path:
    """What a panel's goals follow from: the shipped catalogue, or the folder of fetched products. Raises DataError."""
    if panel in suite.PANELS:
        return suite.SUITE_FILE
    return stored_products(data_dir or data_folder(), bool(_split_of(panel)[0]))


def has_data(panel: str, data_dir: Path | None = None) -> bool:
    """Whether goals of the panel are here; a set of another size may have none in a split."""
    with suppress(DataError):
        return len(_panel(panel, data_dir, OFFICIAL_SEED).places) > 0
    return False


def goal_of(task: Task, *, data_dir: Path | None = None, goal_seed: int = OFFICIAL_SEED) -> tuple[Goal, Product]:
    """The goal of a task, and the product that it was made from."""
    panel = _panel_of(task, data_dir, goal_seed)
    return panel.goal(task.index), panel.product(task.index)


def engine_for(
    task: Task,
    *,
    observation_mode: ObservationMode = "text",
    show_attrs: bool = False,
    page_size: int = PAGE_SIZE,
    goal_seed: int = OFFICIAL_SEED,
    data_dir: Path | None = None,
) -> tuple[Engine, Goal]:
    """The shop of a task and its goal, which `Engine.reset` takes. Environments of one process share the catalogue."""
    panel = _panel_of(task, data_dir, goal_seed)
    prices = panel.catalogue.goal_table(panel.human, goal_seed).prices
    return Engine(panel.catalogue, prices, observation_mode, show_attrs, page_size), panel.goal(task.index)


def _panel_of(task: Task, data_dir: Path | None, goal_seed: int) -> _Panel:
    """The id is checked, so that a task from another version of a panel is not mistaken."""
    panel = _panel(task.panel, data_dir, goal_seed)
    if not 0 <= task.index < len(panel.places) or task.id != panel.task_id(task.index):
        raise DataError(
            f"task {task.id} is not number {task.index} of panel {task.panel}: it comes from other data; load the "
            "panel again"
        )
    return panel


def _panel(panel: str, data_dir: Path | None, goal_seed: int) -> _Panel:
    if panel in suite.PANELS:
        return _Panel(suite.suite_catalogue(), False, goal_seed, suite.suite_places(panel, goal_seed), True)
    full, human, split = _split_of(panel)
    catalogue = stored_catalogue(data_dir or data_folder(), bool(full))
    num_goals = len(catalogue.goal_table(bool(human), goal_seed))
    if human and not num_goals:
        raise DataError(
            f"panel {panel}: no human goals are here: put items_human_ins.json beside the other official files and "
            "fetch them again"
        )
    start, stop = SPLITS[split]
    places: Sequence[int] = range(num_goals)[start:stop]
    if repeats := _repeats(catalogue, bool(human), goal_seed, min(_HELD_OUT.get(split, 0), num_goals)):
        places = [place for place in places if place not in repeats]
    return _Panel(catalogue, bool(human), goal_seed, places, False)


def _split_of(panel: str) -> tuple[str, str, str]:
    """What the name of an official panel says: full set?, human goals?, split."""
    if panel not in _OFFICIAL:
        raise DataError(f"webshop has no panel {panel!r}: use one of {', '.join(PANEL_NAMES)}")
    return _OFFICIAL[panel]


@lru_cache(maxsize=8)
def _repeats(catalogue: Catalogue, human: bool, goal_seed: int, num_held_out: int) -> frozenset[int]:
    """Places behind the first `num_held_out` whose goal has the content of one of those.

    The official list holds a few goals twice (of products that list an option value twice), and its published cut puts
    one of a pair into the test and the other into training. The test stays as published.
    """
    products = catalogue.goal_table(human, goal_seed).products
    held_out = {goal_digest(catalogue.goal(human, goal_seed, place)) for place in range(num_held_out)}
    behind = np.flatnonzero(np.isin(products[num_held_out:], np.unique(products[:num_held_out]))) + num_held_out
    return frozenset(
        place for place in behind.tolist() if goal_digest(catalogue.goal(human, goal_seed, place)) in held_out
    )
