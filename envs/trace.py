"""Traces: play given actions and report every step, so that anyone can compare us with another implementation.

Owns: reading the episodes file and what one step's record holds (`t2po env trace`). Called by the CLI. Must not
know: prompts, models, TextWorld.

An episode is one JSON line `{"task": id, "actions": [...]}`. What a step says is the environment's to decide, so that
it is what the original says of it (`Environment.trace`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from envs.data_folder import DataError
from envs.environment import find_environment
from envs.panel import Panel, find_task, load_panel

TaskName = TypeVar("TaskName")


def trace_file(
    env_name: str, panel_name: str, episodes: Path, data_dir: Path | None = None
) -> Iterator[dict[str, Any]]:
    """One record a step for every episode of the file, the reset first. Raises DataError, naming the line."""
    panel = load_panel(env_name, panel_name, data_dir)
    try:
        with episodes.open(encoding="utf-8") as stream:
            yield from trace_lines(panel, stream, str(episodes), data_dir)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{episodes}: {error}: name a file of JSON lines") from error


def trace_lines(
    panel: Panel, lines: Iterable[str], origin: str, data_dir: Path | None = None
) -> Iterator[dict[str, Any]]:
    """The records of all episodes in `lines`; blank lines are skipped. `origin` names the source in errors."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                task_id, actions = read_episode(line, _read_id)
                yield from trace_episode(panel, task_id, actions, data_dir)
            except DataError as error:
                raise DataError(f"{origin}, line {number}: {error}") from error


def read_episode(line: str, read_task: Callable[[object], TaskName]) -> tuple[TaskName, list[str]]:
    """The task and the actions of one line. `read_task` is given what stands as "task" (null: nothing) and raises
    DataError for what names none."""
    try:
        episode = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON ({error}): write one object a line") from error
    fields = episode if isinstance(episode, dict) else {}
    task = read_task(fields.get("task"))
    actions = fields.get("actions")
    if not isinstance(actions, list) or not all(isinstance(action, str) for action in actions):
        raise DataError(f'"actions" is {actions!r}, not a list of strings')
    return task, actions


def _read_id(task: object) -> str:
    if not isinstance(task, str):
        raise DataError('no "task": write {"task": id, "actions": ["..."]}')
    return task


def trace_episode(
    panel: Panel, task_id: str, actions: Iterable[str], data_dir: Path | None = None
) -> Iterator[dict[str, Any]]:
    """The records of one episode: task, step, observation, admissible, reward, done."""
    task = find_task(panel, task_id)
    for step, said in enumerate(find_environment(task.env).trace(task, actions, data_dir)):
        yield {"task": task_id, "step": step, **said}
