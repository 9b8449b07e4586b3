"""A replay queue in memory, with the promises of `controller.replay_queue` and the mishaps that tests need."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable

from controller.queue_entry import Entry
from controller.replay_queue import QueueFullError, State
from envs.records import TrajectoryGroup


class FakeQueue:
    """One server and one connection to it; `reopened` is what a resumed run sees of the server."""

    def __init__(self, max_groups: int = 1000) -> None:
        self.max_groups = max_groups
        self.lock = threading.Lock()
        self.numbers = itertools.count()
        self.entries: dict[str, tuple[str, TrajectoryGroup | None]] = {}
        """Entry id -> (group id, group; None is unreadable)."""
        self.seen: dict[str, str] = {}
        self.delivered: set[str] = set()
        self.held: set[str] = set()
        self.aside: Counter[str] = Counter()
        self.refused: list[str] = []
        self.most = 0
        self.confirm_delay_s = 0.0
        self.mishaps: dict[int, str] = {}
        """What happens to a group's first entry before anybody can read it: index -> "damage" or "lose"."""

    def reopened(self) -> FakeQueue:
        queue = FakeQueue(self.max_groups)
        queue.numbers = self.numbers
        queue.entries, queue.seen, queue.delivered = dict(self.entries), dict(self.seen), set(self.delivered)
        return queue

    # what can happen to it

    def damage(self, group_id: str) -> None:
        """The entry's bytes change on the server; nothing that was delivered does."""
        self.entries[self.seen[group_id]] = (group_id, None)

    def lose(self, group_id: str) -> None:
        """The server comes back without this push."""
        del self.entries[self.seen.pop(group_id)]

    def delete(self, group_id: str) -> None:
        """Another program deletes the entry; the id stays known."""
        del self.entries[self.seen[group_id]]

    def bring_back(self, group: TrajectoryGroup) -> None:
        """The server comes back without the acknowledgement, nor that it delivered the entry."""
        self.entries[self.seen[group.id]] = (group.id, group)
        self.delivered.discard(self.seen[group.id])

    def add_foreign(self, group_id: str) -> None:
        self.entries[f"{next(self.numbers)}"] = (group_id, None)

    # the interface of ReplayQueue

    def push(self, group: TrajectoryGroup, *, even_if_full: bool = False) -> bool:
        with self.lock:
            if group.id in self.seen:
                return False
            if len(self.entries) >= self.max_groups and not even_if_full:
                self.refused.append(group.id)
                raise QueueFullError(f"no place for group {group.id!r}")
            entry_id = f"{next(self.numbers)}"
            self.entries[entry_id] = (group.id, group)
            self.seen[group.id] = entry_id
            self.most = max(self.most, len(self.entries))
            if mishap := self.mishaps.pop(group.index, ""):
                getattr(self, mishap)(group.id)
        time.sleep(self.confirm_delay_s)
        return True

    def pull(self, max_groups: int, timeout_s: float) -> list[Entry]:
        with self.lock:
            fresh = [entry_id for entry_id in self.entries if entry_id not in self.delivered][:max_groups]
            self.delivered.update(fresh)
            found = self._accept(fresh)
        if not found:
            time.sleep(min(timeout_s, 0.005))
        return found

    def recover(self) -> list[Entry]:
        with self.lock:
            return self._accept([entry_id for entry_id in self.entries if entry_id in self.delivered])

    def _accept(self, entry_ids: list[str]) -> list[Entry]:
        found = []
        for entry_id in entry_ids:
            group_id, group = self.entries[entry_id]
            if group is None:
                del self.entries[entry_id]
                self.aside["unreadable group"] += 1
                if self.seen.get(group_id) == entry_id:
                    del self.seen[group_id]
            elif entry_id not in self.held:
                self.held.add(entry_id)
                found.append(Entry(entry_id, group))
        return found

    def acknowledge(self, entry_ids: Iterable[str]) -> None:
        with self.lock:
            for entry_id in entry_ids:
                self.entries.pop(entry_id, None)
                self.held.discard(entry_id)

    def states(self, group_ids: Iterable[str]) -> dict[str, State]:
        with self.lock:
            return {group_id: self._state(group_id) for group_id in group_ids}

    def _state(self, group_id: str) -> State:
        if group_id not in self.seen:
            return "unknown"
        return "queued" if self.seen[group_id] in self.entries else "acknowledged"

    def acknowledged(self) -> list[str]:
        return [group_id for group_id in self.seen if self._state(group_id) == "acknowledged"]

    def forget(self, group_ids: Iterable[str]) -> None:
        for group_id in group_ids:
            if self._state(group_id) == "acknowledged":
                del self.seen[group_id]

    def depth(self) -> int:
        return len(self.entries)

    def foreign_counts(self) -> dict[str, int]:
        return dict(self.aside)

    def discard(self) -> None:
        self.entries.clear()
        self.seen.clear()

    def close(self) -> None:
        return None
