"""One entry of the replay queue: its fields on the stream, and what makes it foreign.

Owns: `Entry`, reading the fields, what a group of a run must be. Called by `controller.replay_queue`. Must not know:
Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from envs.codec import CodecError, decode_group
from envs.records import TrajectoryGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """One delivered group; `entry_id` is what `acknowledge` takes."""

    entry_id: str
    group: TrajectoryGroup


class ForeignEntryError(Exception):
    """An entry that is no group of ours: its kind, which is counted, and the whole reason."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def decode_fields(fields: dict[bytes, bytes]) -> TrajectoryGroup:
    missing = [name for name in ("id", "group") if name.encode() not in fields]
    if missing:
        raise ForeignEntryError("missing field", f"field {' and '.join(map(repr, missing))} missing")
    try:
        group = decode_group(fields[b"group"])
    except CodecError as error:
        raise ForeignEntryError("unreadable group", str(error)) from error
    if group.id != text(fields[b"id"]):
        raise ForeignEntryError(
            "another id", f"field 'id' is {text(fields[b'id'])!r}, but the group inside is {group.id!r}"
        )
    return group


def check_group(name_of: Callable[[int], str], group_size: int, group: TrajectoryGroup) -> None:
    """Raises ForeignEntryError unless `group` is one that this run would have pushed: `name_of` its index, with every
    sibling once. (Rewards that are no numbers do not get so far: a Turn cannot hold them, `decode_group` says so.)"""
    if group.id != name_of(group.index):
        raise ForeignEntryError("another run", f"group {group.id!r}, index {group.index}: not of this run")
    siblings = [trajectory.sibling for trajectory in group.trajectories]
    if sorted(siblings) != list(range(group_size)):
        raise ForeignEntryError(
            "missing sibling",
            f"group {group.id!r} has the siblings {siblings}, not {group_size} (rollout.group_size) from 0 on",
        )
    strangers = [one.id for one in group.trajectories if one.group_id != group.id]
    if strangers:
        raise ForeignEntryError("another group's", f"group {group.id!r} holds trajectories of others: {strangers}")


def text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
