"""Which groups a step is made of: as many as it trains, and one more for each that is dropped, up to a limit.

Owns: `StepGroups`, `is_kept_by`. Called by `controller.update`, which asks `controller.inbox` for them. Must not know:
the queue, the learner, why a group is worth training (`learner.advantages.group_filter`).

DAPO's dynamic sampling (arXiv 2503.14476), without its batches: the groups of a run stand in one row, a step goes along
it until it has enough. A group that has come is judged at once, whatever is still missing before it: each one that is
dropped lengthens the row of the step by one. So what a step is made of follows from the groups and not from the order
in which they come.
"""

from __future__ import annotations

from collections.abc import Callable

from envs.records import TrajectoryGroup
from learner.samples import split_groups
from learner.settings import AdvantageSettings


def is_kept_by(settings: AdvantageSettings) -> Callable[[TrajectoryGroup], bool]:
    """`advantage.keep_groups` for one group."""
    return lambda group: bool(split_groups([group], settings)[0])


class StepGroups:
    """The groups of one step, from `first` on, as they become known."""

    def __init__(
        self,
        first: int,
        size: int,
        most: int,
        keep: Callable[[TrajectoryGroup], bool],
        on_drop: Callable[[], None],
    ) -> None:
        """`size` groups are to be trained, at most `most` are taken for it. `on_drop` is called for each dropped."""
        self._first = first
        self._size = size
        self._most = most
        self._keep = keep
        self._on_drop = on_drop
        self._is_kept: dict[int, bool] = {}

    @property
    def indices(self) -> range:
        """What the step takes, as far as is known: it grows while groups are dropped."""
        dropped = len(self._is_kept) - sum(self._is_kept.values())
        return range(self._first, self._first + min(self._size + dropped, self._most))

    def is_judged(self, index: int) -> bool:
        return index in self._is_kept

    def judge(self, group: TrajectoryGroup) -> None:
        """Once for each group of `indices`."""
        self._is_kept[group.index] = self._keep(group)
        if not self._is_kept[group.index]:
            self._on_drop()

    def is_kept(self, group: TrajectoryGroup) -> bool:
        return self._is_kept[group.index]
