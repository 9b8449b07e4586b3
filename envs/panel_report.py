"""Panels in words, and whether they are what was published (`t2po panel show|verify`).

Owns: the two reports and the published hashes. Called by the CLI and the tests. Must not know: how a panel is read.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from envs.data_folder import DataError
from envs.environment import find_environment
from envs.panel import load_panel

PUBLISHED = Path(__file__).parent / "data" / "panel_hashes.json"
"""{environment: {panel: content hash}} of what ships with the project, and of official data where it is known."""


@dataclass(frozen=True, slots=True)
class Verification:
    ok: bool
    lines: tuple[str, ...]


@cache
def published_hashes() -> dict[str, dict[str, str]]:
    hashes: dict[str, dict[str, str]] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return hashes


def show_lines(env_name: str, panel_name: str | None = None, *, tasks: bool = False) -> list[str]:
    """One line a panel: tasks, kinds, hash; with `tasks`, below it one a task: index, id, kind, digest."""
    lines = []
    for name in _names(env_name, panel_name):
        panel = load_panel(env_name, name)
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(t.kind for t in panel.tasks).items()))
        lines.append(f"{name}: {len(panel.tasks)} tasks ({kinds}); hash {panel.hash}")
        if tasks:
            rows = zip(panel.tasks, panel.digests, strict=True)
            lines += [f"  {task.index} {task.id} {task.kind} {digest}" for task, digest in rows]
    if panel_name is None:
        missing = [name for name in find_environment(env_name).panels if name not in _names(env_name, None)]
        lines += [f"{name}: not here, fetch it with `t2po data get {env_name} --from PATH`" for name in missing]
    return lines


def verify(env_name: str, panel_name: str | None = None, expected: str | None = None) -> Verification:
    """Loads the panels, which compares them with those they must share no task with, and compares their hashes."""
    if expected and not panel_name:
        raise DataError(
            f"--hash {expected}: say which panel it is of, as in `t2po panel verify {env_name} train --hash …`"
        )
    ok, lines = True, []
    for name in _names(env_name, panel_name):
        try:
            panel = load_panel(env_name, name)
        except DataError as error:
            ok = False
            lines.append(f"{name}: {error}")
            continue
        wanted = expected or published_hashes().get(env_name, {}).get(name, "")
        if not wanted:
            lines.append(
                f"{name}: hash {panel.hash}, {len(panel.tasks)} tasks; no hash is published, nothing to compare"
            )
        elif wanted == panel.hash:
            lines.append(f"{name}: hash {panel.hash}, {len(panel.tasks)} tasks: as published")
        else:
            ok = False
            lines.append(
                f"{name}: hash {panel.hash}, expected {wanted}: the tasks are others; results are not comparable. "
                "Restore the data, or compare with `t2po panel show`"
            )
    apart = [", ".join(names) for names in find_environment(env_name).apart]
    lines += [f"must share no task: {names}" for names in apart]
    return Verification(ok, tuple(lines))


def _names(env_name: str, panel_name: str | None) -> list[str]:
    environment = find_environment(env_name)
    return [panel_name] if panel_name else [name for name in environment.panels if environment.has_data(name)]
