"""The check of an environment's data: every game loads, can be won, and no panel shares a task with another.

Owns: `check_env` and its report (`t2po env check`). Called by the CLI and the tests. Must not know: training,
TextWorld (the comparison with it is `envs.alfworld.differential`).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from envs.data_folder import DataError
from envs.panel import Panel, check_disjoint, load_panel


@dataclass(slots=True)
class PanelReport:
    """One panel: its size and hash, its games by task type, the planner's turns, and what is wrong."""

    name: str
    hash: str
    num_tasks: int
    kinds: dict[str, int]
    median_plan: float
    longest_plan: int
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class CheckReport:
    """All panels of an environment. `ok` when nothing is wrong anywhere."""

    panels: list[PanelReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems and not any(panel.problems for panel in self.panels)

    def lines(self) -> list[str]:
        """The report in words."""
        text = []
        for panel in self.panels:
            state = "all solvable" if not panel.problems else f"{len(panel.problems)} PROBLEMS"
            text.append(
                f"{panel.name}: {panel.num_tasks} games, {state}; planner {panel.median_plan:g} turns (median), "
                f"{panel.longest_plan} at most; hash {panel.hash}"
            )
            text += [f"  {problem}" for problem in panel.problems]
        if not self.problems:
            text.append("no task occurs in two panels")
        return text + self.problems


def check_env(
    env_name: str,
    panel_names: tuple[str, ...] = (),
    data_dir: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> CheckReport:
    """Load and solve every game of the panels; without names, of all panels whose data is here."""
    from envs.alfworld.games import OFFICIAL_PANELS, PANEL_NAMES, official_file
    from envs.data_folder import data_folder

    folder = data_dir or data_folder()
    if not panel_names:
        here = [name for name in PANEL_NAMES if name not in OFFICIAL_PANELS or official_file(name, folder).is_file()]
        panel_names = tuple(here)
    report, panels = CheckReport(), []
    for name in panel_names:
        progress(f"checking {name}")
        panel = load_panel(env_name, name, data_dir)
        panels.append(panel)
        report.panels.append(_check_panel(panel, data_dir))
    try:
        check_disjoint(*panels)
    except DataError as error:
        report.problems.append(str(error))
    return report


def _check_panel(panel: Panel, data_dir: Path | None) -> PanelReport:
    from envs.alfworld.engine import Engine
    from envs.alfworld.games import stored_game
    from envs.alfworld.planner import plan

    problems, lengths = [], []
    for task in panel.tasks:
        try:
            engine = Engine(stored_game(task.panel, task.index, task.id, data_dir).game())
        except DataError as error:
            problems.append(str(error))
            continue
        commands = plan(engine)
        if engine.won():
            problems.append(f"game {task.id}: the goal holds at the start")
        elif commands is None:
            problems.append(f"game {task.id}: the planner finds no way to the goal")
        elif not any(engine.step(command)[2] for command in commands):
            problems.append(f"game {task.id}: the planner's {len(commands)} commands do not reach the goal")
        else:
            lengths.append(len(commands))
    kinds = dict(sorted(Counter(task.kind for task in panel.tasks).items()))
    median = statistics.median(lengths) if lengths else 0.0
    return PanelReport(panel.name, panel.hash, len(panel.tasks), kinds, median, max(lengths, default=0), problems)
