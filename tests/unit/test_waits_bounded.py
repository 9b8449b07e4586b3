"""No wait of the four rooms is without a deadline and a name, and docs/waits.md lists them all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.unit.wait_finder import FoundWait, find_waits, functions_of

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("envs", "actors", "learner", "controller")
PAGE = ROOT / "docs" / "waits.md"
CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Row:
    """One line of a table: the file and functions of its first cell, and the other cells."""

    file: str
    functions: tuple[str, ...]
    cells: tuple[str, ...]


def rows_of(heading: str) -> list[Row]:
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            file, *functions = CODE.findall(cells[0])
            rows.append(Row(file, tuple(functions), tuple(cells[1:])))
    return rows


BOUNDED, UNBOUNDED = rows_of("Waits with a deadline"), rows_of("Waits without a deadline of their own")


@cache
def waits_in_code() -> dict[str, list[FoundWait]]:
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): find_waits(path.read_text(encoding="utf-8")) for path in files}


def found(*, has_deadline: bool) -> Iterator[tuple[str, FoundWait]]:
    for file, waits in waits_in_code().items():
        yield from ((file, wait) for wait in waits if wait.has_deadline is has_deadline)


def calls_of(row: Row) -> list[str]:
    return CODE.findall(row.cells[0])


def test_waits_all_have_a_deadline_or_a_reason() -> None:
    allowed = {(row.file, function, call) for row in UNBOUNDED for function in row.functions for call in calls_of(row)}
    missing = [
        f"{file}:{wait.line}: {wait.function}: {wait.call}"
        for file, wait in found(has_deadline=False)
        if (file, wait.function, wait.call) not in allowed
    ]
    assert missing == [], f"give it a deadline (controller.deadline.bounded), or a row and a reason in {PAGE}"


def test_waits_with_a_deadline_are_listed() -> None:
    listed = {(row.file, function) for row in BOUNDED for function in row.functions}
    missing = {f"{file}: {wait.function}: {wait.call}" for file, wait in found(has_deadline=True)
               if (file, wait.function) not in listed}  # fmt: skip
    assert sorted(missing) == [], f"say in {PAGE} what it waits for, how long, and what happens then"


def test_waits_listed_with_a_deadline_name_code_that_is_there() -> None:
    for row in BOUNDED:
        there = functions_of((ROOT / row.file).read_text(encoding="utf-8"))
        assert row.functions and set(row.functions) <= there, row
        assert len(row.cells) == 3 and all(row.cells), row


def test_waits_allowed_without_a_deadline_are_there() -> None:
    """A row whose function or call matches nothing would allow a later wait that nobody has thought of."""
    unbounded = {(file, wait.function, wait.call) for file, wait in found(has_deadline=False)}
    for row in UNBOUNDED:
        assert len(row.cells) == 2 and row.cells[1], row
        for function in row.functions:
            assert any((row.file, function, call) in unbounded for call in calls_of(row)), (row.file, function)
        for call in calls_of(row):
            assert any((row.file, function, call) in unbounded for function in row.functions), (row.file, call)


def test_waits_are_listed_once() -> None:
    rows = [(row.file, function) for row in BOUNDED for function in row.functions]
    assert len(rows) == len(set(rows))
