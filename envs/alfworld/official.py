"""The official ALFWorld games: read from the published folder layout or JSON lines, checked, stored compactly.

Owns: `fetch_official` (the work of `t2po data get alfworld --from PATH`) and its report. Called by the CLI and
the tests. Must not know: how stored games are played.

Folder layout: `json_2.1.1/{train,valid_seen,valid_unseen}/TASK/TRIAL/{traj_data.json,game.tw-pddl}`. Games of
format 2.1.1 are upgraded by keeping problem and task sentence: the wording of commands and answers is our engine's.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.alfworld.floorplans import TASK_TYPES
from envs.alfworld.game import Game
from envs.alfworld.games import content_digest, official_file, read_lines
from envs.data_folder import DataError, data_folder, write_lines

PUBLISHED = {"official-train": 3553, "official-seen": 140, "official-unseen": 134}
_PANEL_OF = {
    "train": "official-train",
    "valid_train": "official-train",  # a published extract of the training split
    "valid_seen": "official-seen",
    "valid_unseen": "official-unseen",
}
_TASK = re.compile(r"Your task is to: ([^\"\n]*)")


@dataclass(slots=True)
class FetchReport:
    """What was stored: games a panel, why others were left out, where the files are."""

    source: Path
    counts: dict[str, int] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    files: dict[str, Path] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report in words, one panel a line."""
        text = []
        for panel, published in PUBLISHED.items():
            found = self.counts.get(panel, 0)
            if found == published:
                text.append(f"{panel}: {found} games, complete")
            elif found:
                text.append(f"{panel}: {found} of {published} published games (the source is a subset)")
            else:
                text.append(f"{panel}: none in this source; not stored")
        text += [f"left out: {count} x {reason}" for reason, count in sorted(self.skipped.items())]
        return text


def fetch_official(source: Path, folder: Path | None = None) -> FetchReport:
    """Read every official game below `source` and store the panels in `folder` (default: T2PO_DATA).

    A panel that the source has no game of is left as it is. Raises DataError, before anything is written, for a
    damaged file, a source without games, one content in two panels, and more games than were published.
    """
    folder = folder or data_folder()
    report = FetchReport(source)
    panels: dict[str, dict[str, dict[str, Any]]] = {}
    owner: dict[str, tuple[str, str]] = {}
    for row, origin in sorted(_rows(source, report), key=lambda found: found[0]["id"]):
        panel = _panel_of(row["id"], origin)
        _check(row, origin)
        digest = content_digest(row["task"], row["problem"])
        known = owner.setdefault(digest, (panel, row["id"]))
        if known[0] != panel:
            raise DataError(f"{origin}: game {row['id']} of {panel} has the content of {known[1]} of {known[0]}")
        if _split(known[1]) != _split(row["id"]):
            report.skipped["in valid_train and in train"] += 1
            continue
        panels.setdefault(panel, {})[row["id"]] = row
    if not panels:
        raise DataError(f"{source} holds no playable game: name the folder with traj_data.json files, or JSON lines")
    for panel, rows in panels.items():
        if len(rows) > PUBLISHED[panel]:
            raise DataError(f"{source}: {len(rows)} games for {panel}, only {PUBLISHED[panel]} were published")
    for panel, rows in sorted(panels.items()):
        report.counts[panel] = len(rows)
        report.files[panel] = write_lines(
            official_file(panel, folder),
            (json.dumps(row, sort_keys=True, separators=(",", ":")) for row in rows.values()),
        )
    return report


def _rows(source: Path, report: FetchReport) -> Iterator[tuple[dict[str, Any], Path]]:
    if source.is_dir():
        yield from _walk(source, report)
    elif source.is_file():
        if source.suffix not in (".xz", ".jsonl"):
            raise DataError(f"{source}: name a folder (unpack the archive first), a .jsonl or a .jsonl.xz file")
        for row in read_lines(source):
            if _wanted(row["id"], row["task_type"], row.get("solvable", True), report):
                yield row, source
    else:
        raise DataError(f"{source} does not exist: name the folder of the official games or a JSON lines file")


def _wanted(name: str, task_type: str, solvable: object, report: FetchReport) -> bool:
    """The published selection: no movable receptacles, no slicing, the six task types, solvable."""
    reason = ""
    if "movable" in name or "Sliced" in name:
        reason = "movable receptacle or sliced object"
    elif task_type not in TASK_TYPES:
        reason = f"task type {task_type}"
    elif solvable is not True:
        reason = "not marked as solvable"
    if reason:
        report.skipped[reason] += 1
    return not reason


def _walk(root: Path, report: FetchReport) -> Iterator[tuple[dict[str, Any], Path]]:
    for here, folders, files in os.walk(root):
        folders.sort()  # the order of a file system means nothing
        if "traj_data.json" not in files:
            continue
        place = Path(here)
        trajectory = _read_json(place / "traj_data.json")
        split = next((part for part in reversed(place.parts) if part in _PANEL_OF), "")
        name = f"{split}/{place.parent.name}/{place.name}"
        if "game.tw-pddl" not in files:
            report.skipped["no game.tw-pddl beside traj_data.json"] += 1
            continue
        path = place / "game.tw-pddl"
        game = _read_json(path)
        if not _wanted(str(place), str(trajectory.get("task_type")), game.get("solvable"), report):
            continue
        sentence = _TASK.search(str(game.get("grammar", "")))
        if sentence is None or "UNKNOWN GOAL" in sentence.group(1) or not isinstance(game.get("pddl_problem"), str):
            raise DataError(f"{path}: no task sentence or no pddl_problem: the file is damaged, fetch it again")
        yield (
            {
                "id": name,
                "task": sentence.group(1).strip().removesuffix("."),
                "task_type": trajectory["task_type"],
                "pddl_params": trajectory.get("pddl_params", {}),
                "scene": trajectory.get("scene", {}).get("scene_num", -1),
                "problem": game["pddl_problem"],
            },
            path,
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {error}: the file is damaged, fetch it again") from error
    if not isinstance(loaded, dict):
        raise DataError(f"{path}: holds no JSON object: the file is damaged, fetch it again")
    return loaded


def _split(task_id: str) -> str:
    return task_id.split("/", 1)[0]


def _panel_of(task_id: str, origin: Path) -> str:
    split = _split(task_id)
    if split not in _PANEL_OF:
        raise DataError(
            f"{origin}: game {task_id!r} belongs to none of {', '.join(_PANEL_OF)}: keep the official folder names"
        )
    return _PANEL_OF[split]


def _check(row: dict[str, Any], origin: Path) -> None:
    try:
        Game(row["problem"], row["task"])
    except DataError as error:
        raise DataError(f"{origin}: game {row['id']}: {error}") from error
