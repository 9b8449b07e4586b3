"""The games of a panel by name: embedded or official, held compressed, parsed when a task is played.

Owns: panel name -> stored games, task -> `Game`. Called by `envs.panel`, `env`, `check`, `play` and
`envs.trace`. Must not know: prompts, rewards, how the games were made or fetched.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from envs.alfworld.engine import Game
from envs.alfworld.suite import PANEL_SIZES, SUITE_FILE
from envs.data_folder import DataError, data_folder
from envs.file_mark import FileMark, mark_file

OFFICIAL_PANELS = ("official-train", "official-seen", "official-unseen")
PANEL_NAMES = (*PANEL_SIZES, *OFFICIAL_PANELS)
_FIELDS = ("id", "task", "task_type", "problem")


@dataclass(frozen=True, slots=True)
class StoredGame:
    """One game as it lies in memory: `packed` is its deflated JSON, `digest` the hash of what is played."""

    id: str
    kind: str
    digest: str
    packed: bytes

    def data(self) -> dict[str, Any]:
        unpacked: dict[str, Any] = json.loads(zlib.decompress(self.packed))
        return unpacked

    def game(self) -> Game:
        data = self.data()
        try:
            return Game(data["problem"], data["task"])
        except DataError as error:
            raise DataError(f"game {self.id}: {error}") from error


def content_digest(task: str, problem: str) -> str:
    """Hash of what is played: the task sentence and the problem's words. White space and file names play no part."""
    return hashlib.blake2b("\n".join([task, *problem.split()]).encode(), digest_size=16).hexdigest()


def official_file(panel: str, folder: Path) -> Path:
    return folder / "alfworld" / f"{panel}.jsonl.xz"


def panel_file(panel: str, folder: Path | None = None) -> Path:
    """The file with the games of a panel. Raises DataError."""
    if panel in PANEL_SIZES:
        return SUITE_FILE
    if panel not in OFFICIAL_PANELS:
        raise DataError(f"alfworld has no panel {panel!r}: use one of {', '.join(PANEL_NAMES)}")
    path = official_file(panel, folder or data_folder())
    if not path.is_file():
        raise DataError(f"{path} is missing: fetch the official games with `t2po data get alfworld --from PATH`")
    return path


def panel_games(panel: str, folder: Path | None = None) -> tuple[StoredGame, ...]:
    """The games of a panel in panel order; `folder` is where official data lies (default: T2PO_DATA)."""
    if panel in PANEL_SIZES:
        return _embedded(panel)
    return _official(mark_file(panel_file(panel, folder)))


def stored_game(panel: str, index: int, task_id: str, folder: Path | None = None) -> StoredGame:
    """The game of a task. The id is checked, so that a task from another version of a panel is not mistaken."""
    games = panel_games(panel, folder)
    if not 0 <= index < len(games) or games[index].id != task_id:
        raise DataError(
            f"task {task_id} is not number {index} of panel {panel}: it comes from other data; load the panel again"
        )
    return games[index]


@lru_cache(maxsize=1024)
def parsed_game(panel: str, index: int, task_id: str, folder: Path | None = None) -> Game:
    """The parsed game of a task. Games never change, so all engines of a process share them."""
    return stored_game(panel, index, task_id, folder).game()


@lru_cache(maxsize=8)
def _embedded(panel: str) -> tuple[StoredGame, ...]:
    return tuple(_pack(row, SUITE_FILE) for row in read_lines(SUITE_FILE) if row["panel"] == panel)


@lru_cache(maxsize=8)
def _official(file: FileMark) -> tuple[StoredGame, ...]:
    path = file.path
    games = tuple(sorted((_pack(row, path) for row in read_lines(path)), key=lambda game: game.id))
    if not games:
        raise DataError(f"{path} holds no games: fetch it again with `t2po data get alfworld --from PATH`")
    return games


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON lines file, plain or .xz; each row has the fields of a game. Errors name file and line."""
    number = 0
    try:
        for number, line in enumerate(_lines(path), 1):
            if line.strip():
                row = json.loads(line)
                missing = [name for name in _FIELDS if not isinstance(row, dict) or not isinstance(row.get(name), str)]
                if missing:
                    raise DataError(f"{path}, line {number}: no text {', '.join(missing)}: not a game, or damaged")
                yield row
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError, json.JSONDecodeError) as error:
        what = "cut short" if isinstance(error, EOFError) else str(error)
        raise DataError(f"{path}, line {number or 1}: {what}: the file is damaged, fetch it again") from error


def _lines(path: Path) -> Iterable[str]:
    if path.suffix == ".xz":
        with lzma.open(path, "rt", encoding="utf-8") as stream:
            yield from stream
    else:
        with path.open(encoding="utf-8") as stream:
            yield from stream


def _pack(row: dict[str, Any], path: Path) -> StoredGame:
    if not row["problem"].strip():
        raise DataError(f"{path}: game {row['id']} has an empty problem: the file is damaged, fetch it again")
    digest = content_digest(row["task"], row["problem"])
    return StoredGame(row["id"], row["task_type"], digest, zlib.compress(json.dumps(row).encode(), 6))
