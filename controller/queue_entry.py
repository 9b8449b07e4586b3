"""One entry of the replay queue: its fields on the stream, and what makes it foreign.

Owns: `Entry`, reading the fields. Called by `controller.replay_queue`. Must not know: Redis.
"""

from __future__ import annotations

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


def text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
