"""The order in which a run serves its panel: shuffled once an epoch, the same for the same seed everywhere.

Owns: group index -> (task, visit). Called by `controller.generation`. Must not know: what is done with a
task. It has no state: the panel cursor of a run is the index of its next group, nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from envs.records import Task
from envs.seeds import derive_seed


class EmptyPanelError(ValueError):
    """A panel without tasks cannot be served."""


class TaskOrder:
    """`task(index)` for index 0, 1, 2, ...: every epoch serves each task of the panel once."""

    def __init__(self, tasks: Sequence[Task], seed: int) -> None:
        if not tasks:
            raise EmptyPanelError("the training panel has no tasks: choose another env.train_panel")
        self._tasks = tasks
        self._seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def task(self, index: int) -> tuple[Task, int]:
        """The task of group `index`, and how often the run has served it before."""
        epoch, place = divmod(index, len(self._tasks))
        if epoch != self._epoch:
            self._order = list(range(len(self._tasks)))
            random.Random(derive_seed(self._seed, "task order", epoch)).shuffle(self._order)
            self._epoch = epoch
        return self._tasks[self._order[place]], epoch
