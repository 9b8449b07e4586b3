"""Panels: named, ordered, content-hashed lists of tasks, and the check that two of them share nothing.

Owns: `Panel`, `load_panel`, `check_disjoint`, `find_task`. Called by the controller, the CLI and evaluation.
Must not know: how an environment plays a task.

The hash is taken over what the tasks contain, never over file names, folder order or Python's hashes, so it
is the same on every machine, and two panels with one hash are the same examination. A process reads a panel once
while its files stay as they are, and compares two of them once: the large official ones take seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from envs.data_folder import DataError
from envs.environment import Environment, find_environment
from envs.file_mark import FileMark, mark_file
from envs.records import Task

_compared: set[frozenset[str]] = set()
"""Pairs of panel hashes that were found to share nothing, in this process."""


@dataclass(frozen=True, slots=True)
class Panel:
    """`tasks` in panel order; `digests` the content hash of each task; `hash` the hash of them all."""

    name: str
    tasks: tuple[Task, ...]
    hash: str
    digests: tuple[str, ...]


def make_panel(env: str, name: str, rows: Sequence[tuple[str, str, str]]) -> Panel:
    """A panel from (task id, kind, content digest) rows in panel order."""
    if not rows:
        raise DataError(f"panel {name!r} of {env} is empty: nothing could be trained or measured on it")
    seen: dict[str, str] = {}
    for task_id, _, _ in rows:
        if task_id in seen:
            raise DataError(f"panel {name!r} of {env}: task id {task_id} occurs twice; the data is damaged")
        seen[task_id] = task_id
    whole = hashlib.blake2b(f"{env}\n".encode(), digest_size=16)
    for task_id, _, digest in rows:
        whole.update(f"{task_id}\n{digest}\n".encode())
    tasks = tuple(
        Task(env=env, panel=name, index=index, id=task_id, kind=kind) for index, (task_id, kind, _) in enumerate(rows)
    )
    return Panel(name, tasks, whole.hexdigest(), tuple(digest for _, _, digest in rows))


def load_panel(env_name: str, panel_name: str, data_dir: Path | None = None) -> Panel:
    """The panel of this name; `data_dir` is where fetched data lies (default: T2PO_DATA).

    It is compared with the panels that it must share no task with, as far as their data is here: a leak is found when
    the panel is loaded, whoever loads it. Raises DataError.
    """
    environment = find_environment(env_name)
    panel = _read_panel(environment, panel_name, data_dir)
    for together in environment.apart:
        if panel_name in together:
            others = [name for name in together if name != panel_name and environment.has_data(name, data_dir)]
            for other in others:
                _check_pair(panel, _read_panel(environment, other, data_dir))
    return panel


def _read_panel(environment: Environment, panel_name: str, data_dir: Path | None) -> Panel:
    if panel_name not in environment.panels:
        known = ", ".join(environment.panels)
        raise DataError(f"environment {environment.name} has no panel {panel_name!r}: use one of {known}")
    files = environment.panel_files(panel_name, data_dir)
    read = _read_unchanged if files is not None else _read_unchanged.__wrapped__
    return read(environment, panel_name, data_dir, tuple(mark_file(path) for path in files or ()))


@lru_cache(maxsize=6)  # two sets of three
def _read_unchanged(
    environment: Environment, panel_name: str, data_dir: Path | None, _files: tuple[FileMark, ...]
) -> Panel:
    return make_panel(environment.name, panel_name, environment.panel_rows(panel_name, data_dir))


def _check_pair(one: Panel, other: Panel) -> None:
    pair = frozenset((one.hash, other.hash))
    if pair not in _compared:
        check_disjoint(one, other)
        _compared.add(pair)


def check_disjoint(*panels: Panel) -> None:
    """Raise DataError when a task's content occurs in two of the panels; the message names it."""
    owner: dict[str, tuple[int, str, str]] = {}
    for place, panel in enumerate(panels):
        for task, digest in zip(panel.tasks, panel.digests, strict=True):
            other, other_name, other_id = owner.setdefault(digest, (place, panel.name, task.id))
            if other != place:
                raise DataError(
                    f"task {task.id} of panel {panel.name!r} has the content of task {other_id} of panel "
                    f"{other_name!r}: remove one of the two, or the evaluation would measure memory"
                )


def find_task(panel: Panel, task_id: str) -> Task:
    """The task of this id. The split folder in front of an official id may be left out."""
    for task in panel.tasks:
        if task.id == task_id:
            return task
    found = [task for task in panel.tasks if task.id.endswith(f"/{task_id.strip('/')}")]
    if len(found) == 1:
        return found[0]
    raise DataError(f"panel {panel.name!r} has no task {task_id!r}: its first is {panel.tasks[0].id!r}")
