"""Group slots: staleness bounded by capacity (docs/architecture.md, "Data flow of one run").

Owns: how many groups may be under way, and which group is the next. Called by `controller.generation` (take) and
`controller.update` (drop, consume, publish). Must not know: Ray, the queue, or what a group holds.

A step consumes groups in the order in which they were issued: `groups_per_step` of them, and one more for each that is
dropped, up to `most_per_step`. Let v be the live version and f the first group of step v, the oldest whose weights are
not live yet, and let it have dropped d groups so far. Every later step takes at least groups_per_step groups, so a
group below

    f + min(d + (max_staleness + 1) x groups_per_step,  most_per_step + max_staleness x groups_per_step)

is in step v + max_staleness at the latest. No group beyond is issued: that is the bound, however many are dropped.
"""

from __future__ import annotations


class SlotError(RuntimeError):
    """A slot was taken, dropped, consumed or published out of order: a defect of the loop, never of the data."""


class GroupSlots:
    """Plain bookkeeping; not thread-safe, all calls come from one event loop."""

    def __init__(
        self,
        max_staleness: int,
        groups_per_step: int,
        num_steps: int,
        *,
        most_per_step: int = 0,
        next_index: int = 0,
        version: int = 0,
    ) -> None:
        """`num_steps` of the whole run: no group beyond its last step is issued. `most_per_step`: dropped ones too; 0
        is `groups_per_step`. `next_index` is the first group of step `version`."""
        self._max_staleness = max_staleness
        self._size = groups_per_step
        self._most = most_per_step or groups_per_step
        self._num_steps = num_steps
        self.version = version
        self._first = self._taken = self._next = next_index
        self._dropped = 0
        self._issued_at: dict[int, int] = {}

    @property
    def bound(self) -> int:
        """Groups from this one on may not be begun yet: they could be too old when their step comes."""
        steps = max(0, min(self._max_staleness + 1, self._num_steps - self.version))
        most = min(self._dropped + steps * self._size, self._most + (steps - 1) * self._size)
        return self._first + max(0, most)

    @property
    def free(self) -> int:
        """Groups that may be issued now. After a resume more groups than slots may exist; then none."""
        return max(0, self.bound - self._next)

    @property
    def next_index(self) -> int:
        """The group that `take` would issue: the panel cursor of the run."""
        return self._next

    @property
    def first_index(self) -> int:
        """The first group that no step has consumed."""
        return self._taken

    @property
    def held(self) -> int:
        """Groups issued and not yet consumed."""
        return self._next - self._taken

    @property
    def most_through_next_step(self) -> int:
        """Groups that can be finished until the next step is committed, that step's own included.

        Asked between two steps, when all that was consumed is settled. The next step consumes `most_per_step` groups at
        most; while it is being saved the slots are filled again. After a resume more are held.
        """
        return max(self._most + (self._max_staleness + 1) * self._size, self.held)

    def take(self) -> int:
        """Issues the next group; its index."""
        if not self.free:
            raise SlotError(f"no free slot: {self.held} groups are under way")
        return self._hold(self._next)

    def adopt(self, index: int) -> None:
        """A group of an earlier life of the run, in the queue or to be made again: it holds a slot like any other."""
        if index < self._next:
            raise SlotError(f"group {index} cannot be adopted: group {self._next} is the next")
        self._hold(index)

    def _hold(self, index: int) -> int:
        self._issued_at[index] = self.version
        self._next = index + 1
        return index

    def step_of(self, index: int) -> int:
        """The earliest step that can take group `index`, as far as is known now."""
        return self.version + max(0, index - self._first - self._dropped) // self._size

    def drop(self) -> None:
        """A group of step `version` will not be trained: another one may be issued for it."""
        self._dropped += 1

    def consume(self, end: int, step: int) -> int:
        """Step number `step` (it makes version step + 1) took the groups below `end`; the largest lag among them."""
        if end > self._next:
            raise SlotError(f"group {self._next} holds no slot, so it cannot be consumed")
        lag = 0
        for index in range(self._taken, end):
            lag = max(lag, step - self._issued_at.pop(index, step))
        self._taken = end
        return lag

    def publish(self, version: int) -> None:
        """Version `version` is live on every server: the slots of what was consumed are free."""
        if version < self.version:
            raise SlotError(f"version {version} is older than the live version {self.version}")
        self.version = version
        self._first, self._dropped = self._taken, 0
