"""The panels of Search QA by name: the Factbook suite, and official questions that were fetched.

Owns: panel name -> stored questions, task -> `Question`. Called by the environment, the expert and whoever lists tasks.
Must not know: retrieval, prompts, rewards.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from envs.data_folder import DataError, data_folder
from envs.file_mark import FileMark, mark_file
from envs.records import Task
from envs.search import factbook
from envs.search.question import Question, read_row

SOURCES = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
"""The published tests; a panel `official-NAME` each, and all seven as `official-test`."""
OFFICIAL_PANELS = ("official-train", "official-test", *(f"official-{source}" for source in SOURCES))
PANEL_NAMES = (*factbook.PANELS, *OFFICIAL_PANELS)


def official_file(split: str, folder: Path) -> Path:
    """Where the questions of a split, train or test, are stored."""
    return folder / "search" / f"official-{split}.jsonl.xz"


def panel_file(panel: str, folder: Path | None = None) -> Path:
    """The file with the questions of a panel; the Factbook suite is made if it is not there. Raises DataError."""
    if panel in factbook.PANELS:
        return factbook.factbook_folder(folder) / f"{panel}.jsonl"
    if panel not in OFFICIAL_PANELS:
        raise DataError(f"search has no panel {panel!r}: use one of {', '.join(PANEL_NAMES)}")
    path = official_file("train" if panel == "official-train" else "test", folder or data_folder())
    if not path.is_file():
        raise DataError(f"{path} is missing: fetch the official questions with `t2po data get search --from PATH`")
    return path


def panel_questions(panel: str, folder: Path | None = None) -> Iterator[Question]:
    """The questions of a panel in panel order; `folder` is where fetched data lies (default: T2PO_DATA)."""
    path, lines = _panel_lines(panel, folder)
    for number, line in enumerate(lines, 1):
        yield _read(line, path, number)


def panel_rows(panel: str, data_dir: Path | None = None) -> list[tuple[str, str, str]]:
    """(task id, kind, content digest) of each question in panel order; the kind is the data source."""
    return [(question.id, question.data_source, question.digest) for question in panel_questions(panel, data_dir)]


def question_of(task: Task, folder: Path | None = None) -> Question:
    """The question of a task. The id is checked, so that a task from another version of a panel is not mistaken."""
    path, lines = _panel_lines(task.panel, folder)
    question = _read(lines[task.index], path, task.index + 1) if 0 <= task.index < len(lines) else None
    if question is None or question.id != task.id:
        raise DataError(
            f"task {task.id} is not number {task.index} of panel {task.panel}: it comes from other data; load the "
            "panel again"
        )
    return question


def _panel_lines(panel: str, folder: Path | None) -> tuple[Path, tuple[bytes, ...]]:
    path = panel_file(panel, folder)
    source = panel.removeprefix("official-")
    try:
        return path, _lines(mark_file(path), source if source in SOURCES else "")
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: {error}: the file is damaged, {_remedy(path)}") from error


@lru_cache(maxsize=8)
def _lines(file: FileMark, source: str) -> tuple[bytes, ...]:
    """The lines of a file, or those of one data source."""
    path = file.path
    if source:
        lines = _lines(file, "")
        chosen = tuple(line for number, line in enumerate(lines, 1) if _read(line, path, number).data_source == source)
        if not chosen:
            raise DataError(f"{path} holds no questions of {source}: {_remedy(path)}, from a source that has them")
        return chosen
    content = path.read_bytes()
    found = tuple((lzma.decompress(content) if path.suffix == ".xz" else content).splitlines())
    if not found:
        raise DataError(f"{path} holds no questions: {_remedy(path)}")
    return found


def _read(line: bytes, path: Path, number: int) -> Question:
    try:
        return read_row(line)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}, line {number}: {error}: the file is damaged, {_remedy(path)}") from error


def _remedy(path: Path) -> str:
    if path.suffix == ".xz":
        return "fetch it again with `t2po data get search --from PATH`"
    return f"remove the folder {path.parent}, which is then made again"
