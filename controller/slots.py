"""Group slots: staleness bounded by capacity (docs/architecture.md, "Data flow of one run").

Owns: how many groups may be under way, and when a slot is free again. Called by `controller.generation`
(take) and `controller.update` (consume, publish). Must not know: Ray, the queue, or what a group holds.

There are (max_staleness + 1) x groups_per_step slots. A group holds its slot from the moment it is issued
until it has been consumed by an optimizer step AND the weights of that step are live. Groups are consumed
in the order in which they were issued, groups_per_step at a time: step i // groups_per_step consumes group
i. When group i is issued, at least i + 1 - capacity groups before it are settled, and version v has settled
v x groups_per_step of them: so v >= i // groups_per_step - max_staleness. That is the bound.
"""

from __future__ import annotations


class SlotError(RuntimeError):
    """A slot was taken, consumed or published out of order: a defect of the loop, never of the data."""


class GroupSlots:
    """Plain bookkeeping; not thread-safe, all calls come from one event loop."""

    def __init__(self, max_staleness: int, groups_per_step: int, *, next_index: int = 0, version: int = 0) -> None:
        self.capacity = (max_staleness + 1) * groups_per_step
        self._groups_per_step = groups_per_step
        self.version = version
        self._next = next_index
        self._issued_at: dict[int, int] = {}
        self._consumed: dict[int, int] = {}

    @property
    def free(self) -> int:
        """Groups that may be issued now. After a resume more groups than slots may exist; then none."""
        return max(0, self.capacity - len(self._issued_at) - len(self._consumed))

    @property
    def next_index(self) -> int:
        """The group that `take` would issue: the panel cursor of the run."""
        return self._next

    @property
    def held(self) -> int:
        """Groups issued and not yet consumed."""
        return len(self._issued_at)

    @property
    def most_through_next_step(self) -> int:
        """Groups that can be finished until the next step is committed, that step's own included.

        Asked between two steps, when all that was consumed is settled. The next step consumes groups_per_step of the
        groups that are held; while it is being saved the slots are filled again. After a resume more are held.
        """
        return max(self.capacity + self._groups_per_step, self.held)

    def take(self) -> int:
        """Issues the next group; its index."""
        if not self.free:
            raise SlotError(f"no free slot: {self.capacity} groups are under way")
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

    def consume(self, indices: list[int], step: int) -> int:
        """Optimizer step number `step` (it makes version step + 1) trained these groups; the largest lag among them."""
        lag = 0
        for index in indices:
            if index not in self._issued_at:
                raise SlotError(f"group {index} holds no slot, so it cannot be consumed")
            lag = max(lag, step - self._issued_at.pop(index))
            self._consumed[index] = step
        return lag

    def publish(self, version: int) -> int:
        """Version `version` is live on every server; how many slots that frees."""
        if version < self.version:
            raise SlotError(f"version {version} is older than the live version {self.version}")
        self.version = version
        settled = [index for index, step in self._consumed.items() if step < version]
        for index in settled:
            del self._consumed[index]
        return len(settled)
