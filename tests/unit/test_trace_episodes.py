"""Traces: one record a step in TextWorld's words, and errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envs.data_folder import DataError
from envs.panel import load_panel
from envs.trace import trace_file

TASK = load_panel("alfworld", "seen").tasks[3].id


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_records(tmp_path: Path) -> None:
    episode = json.dumps({"task": TASK, "actions": ["help", "nonsense", "look"]})
    records = list(trace_file("alfworld", "seen", write(tmp_path / "e", episode, "", episode)))
    assert [record["step"] for record in records] == [0, 1, 2, 3] * 2 and records[:4] == records[4:]
    assert all(set(r) == {"task", "step", "observation", "admissible", "reward", "done"} for r in records)
    assert records[0]["observation"].startswith("-= Welcome to TextWorld, ALFRED! =-\n\n")
    assert "help" in records[0]["admissible"] and records[2]["observation"] == "Nothing happens."
    assert json.loads(json.dumps(records)) == records


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", 'line 2: no "task"'),
        ('{"task": 3, "actions": []}', 'line 2: no "task"'),
        ('{"task": "x"}', 'line 2: "actions" is None'),
        ('{"task": "x", "actions": [1]}', "line 2: .*not a list of strings"),
        ('{"task": "who", "actions": []}', "line 2: .*has no task 'who'"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "episodes.jsonl", json.dumps({"task": TASK, "actions": []}), line)
    records = trace_file("alfworld", "seen", path)
    assert next(records)["step"] == 0
    with pytest.raises(DataError, match=message) as caught:
        list(records)
    assert "episodes.jsonl" in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        list(trace_file("alfworld", "seen", tmp_path / "nowhere"))
