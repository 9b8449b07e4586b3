"""The accepted turns of live trajectories, kept so that another process can go on with them.

Owns: which turns of which trajectory are known without a gap. Called by `controller.router`. Must not
know: who asks, or how turns are made.
"""

from __future__ import annotations

from envs.records import Turn


class LiveTurns:
    """Turns by trajectory. A trajectory with a gap (a restarted store) counts as unknown: replay starts afresh."""

    def __init__(self) -> None:
        self._turns: dict[str, list[Turn]] = {}

    def record(self, trajectory_id: str, start: int, turns: tuple[Turn, ...]) -> None:
        """Adds `turns`, the first of which is turn number `start`. Known ones are left as they are."""
        known = self._turns.setdefault(trajectory_id, [])
        if start > len(known):
            known.clear()
            return
        known.extend(turns[len(known) - start :])

    def of(self, trajectory_id: str) -> tuple[Turn, ...]:
        return tuple(self._turns.get(trajectory_id, ()))

    def forget(self, trajectory_id: str) -> None:
        self._turns.pop(trajectory_id, None)

    def __len__(self) -> int:
        return len(self._turns)
