"""The trajectories that a page shows: which steps and groups, how many of them, in a compact form.

Owns: the choice, the size limit, the form that the page's browser reads. Called by `controller.report.collection`. Must
not know: how files are found, how a turn is drawn.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.report.curves import number
from controller.report.token_texts import Piece

Pieces = Callable[[Sequence[int]], list[Piece]]
Row = Mapping[str, Any]
"""One line of a trajectory file."""


class Strings:
    """Texts by number: observations and tokens repeat each other. `size` is that of all texts as JSON, in bytes."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.size = 0
        self._numbers: dict[str, int] = {}

    def number(self, text: Any) -> int:
        """The number of a text, new or known."""
        text = str(text)
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
            self.size += _size(text)
        return self._numbers[text]

    def cut_back(self, count: int) -> None:
        """Forgets all but the first `count` texts."""
        while len(self.texts) > count:
            text = self.texts.pop()
            self.size -= _size(text)
            del self._numbers[text]


@dataclass(frozen=True, slots=True)
class StepExcerpt:
    """One step: what is shown of it, how much there was, and how many bytes of the page it takes."""

    step: int
    shown: list[dict[str, Any]] = field(default_factory=list)
    num_trajectories: int = 0
    num_groups: int = 0
    num_bytes: int = 0


def spread(steps: Sequence[int], count: int) -> list[int]:
    """`count` of the steps, evenly spaced, the last one always."""
    if count >= len(steps):
        return list(steps)
    if count <= 1:
        return list(steps[-1:]) if count else []
    return [steps[round(place * (len(steps) - 1) / (count - 1))] for place in range(count)]


def excerpt_of(step: int, rows: Iterable[Row], pieces: Pieces | None, strings: Strings, budget: int) -> StepExcerpt:
    """The trajectories of a step until `budget` bytes are used, one at least: those with tokens first, group by group,
    so that siblings stand beside each other. `strings` takes the texts."""
    rows = list(rows)
    groups = [str(row.get("group")) for row in rows]
    shown: list[dict[str, Any]] = []
    used = 0
    places = sorted(range(len(rows)), key=lambda place: (not _has_tokens(rows[place]), place))
    for place in places:
        count, before = len(strings.texts), strings.size
        small = compact(rows[place], pieces, strings)
        size = _size(small) + strings.size - before
        if used + size > budget and shown:
            strings.cut_back(count)
            break
        used += size
        shown.append(small)
    order = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    shown.sort(key=lambda one: (order[one["group"]], one["sibling"], one["attempt"]))
    return StepExcerpt(step, shown, num_trajectories=len(rows), num_groups=len(order), num_bytes=used)


def compact(row: Row, pieces: Pieces | None, strings: Strings) -> dict[str, Any]:
    """A trajectory as the page reads it; texts are numbers of `strings`. What an older version did not write is null or
    left out."""
    task = row.get("task") if isinstance(row.get("task"), Mapping) else {}
    turns = [turn for turn in _list(row.get("turns")) if isinstance(turn, Mapping)]
    return {
        "id": str(row.get("id", "")),
        "group": str(row.get("group")),
        "kind": str((task or {}).get("kind", "")),
        "task": str((task or {}).get("id", "")),
        "sibling": _whole(row.get("sibling")),
        "attempt": _whole(row.get("attempt")),
        "won": bool(row.get("won")),
        "score": number(row.get("score")),
        "reward": number(row.get("reward")),
        "seconds": number(row.get("duration_s")),
        "interventions": _interventions(turns),
        "turns": [_turn(turn, pieces, strings) for turn in turns],
        "end": strings.number(turns[-1].get("next_observation", "")) if turns else None,
    }


def _interventions(turns: list[Mapping[str, Any]]) -> dict[str, int]:
    """Thoughts ended in accepted replies by what ended them, and candidates thrown away."""
    fired = Counter(str(turn["fired"]) for turn in turns if turn.get("fired"))
    return {**fired, "rejected": sum(len(_list(turn.get("rejected"))) for turn in turns)}


def _turn(turn: Mapping[str, Any], pieces: Pieces | None, strings: Strings) -> dict[str, Any]:
    return {
        "saw": strings.number(turn.get("observation", "")),
        "reply": _reply(turn, pieces, strings),
        "did": strings.number(turn.get("action", "")),
        "format_valid": turn.get("format_valid"),
        "valid": turn.get("valid"),
        "reward": number(turn.get("reward")),
        "rejected": [_reply(one, pieces, strings) for one in _list(turn.get("rejected")) if isinstance(one, Mapping)],
    }


def _reply(reply: Mapping[str, Any], pieces: Pieces | None, strings: Strings) -> dict[str, Any]:
    """`text`, or where tokens are known `pieces`, `m` (M in thousandths a token, -1 where it has none) and, unless each
    piece is one token, `spans` (tokens of each piece)."""
    found: dict[str, Any] = {
        "phi": number(reply.get("phi")),
        "gamma": number(reply.get("gamma")),
        "tokens": _whole(reply.get("tokens")),
        "thought": _whole(reply.get("think_tokens")),
        "finish": str(reply.get("finish_reason", "")),
        "versions": reply.get("versions"),
    }
    if reply.get("fired"):
        found |= {"fired": str(reply["fired"]), "at": _whole(reply.get("fired_at"), -1)}
        found["forced"] = _whole(reply.get("forced_tokens"))
    if pieces is None or not _has_ids(reply):
        return {**found, "text": strings.number(reply.get("reply", ""))}
    spelled = pieces(reply["token_ids"])
    found["pieces"] = [strings.number(piece.text) for piece in spelled]
    found["m"] = [_thousandths(value) for value in _list(reply.get("token_uncertainty"))]
    if any(piece.num_tokens != 1 for piece in spelled):
        found["spans"] = [piece.num_tokens for piece in spelled]
    return found


def _has_tokens(row: Row) -> bool:
    return any(isinstance(turn, Mapping) and _has_ids(turn) for turn in _list(row.get("turns")))


def _has_ids(reply: Mapping[str, Any]) -> bool:
    ids = reply.get("token_ids")
    return isinstance(ids, list) and all(isinstance(one, int) and one >= 0 for one in ids)


def _thousandths(value: Any) -> int:
    known = number(value)
    return -1 if known is None else round(known * 1000)


def _whole(value: Any, absent: int = 0) -> int:
    return value if isinstance(value, int) else absent


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")) + 1
