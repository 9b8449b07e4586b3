"""The check of an environment's data: every task loads, its expert can win it, and no panel shares a task with another.

Owns: `check_env` and its report (`t2po env check`). Called by the CLI and the tests. Must not know: training, how an
environment plays (ALFWorld's comparison with TextWorld is `envs.alfworld.differential`).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from envs.data_folder import DataError
from envs.environment import Environment, find_environment
from envs.panel import Panel, check_disjoint, load_panel
from envs.records import Task
from envs.settings import EnvSettings

MAX_TURNS = 200
"""Turns that an expert may take: more than any plan has."""


@dataclass(slots=True)
class PanelReport:
    """One panel: its size and hash, its tasks by kind, what the expert won in how many turns, and what is wrong."""

    name: str
    hash: str
    num_tasks: int
    kinds: dict[str, int]
    num_won: int
    median_turns: float
    longest: int
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
            state = f"{len(panel.problems)} PROBLEMS, " if panel.problems else ""
            text.append(
                f"{panel.name}: {panel.num_tasks} tasks, {state}the expert wins {panel.num_won} "
                f"({panel.num_won / panel.num_tasks:.1%}); its turns {panel.median_turns:g} (median), {panel.longest} "
                f"at most; hash {panel.hash}"
            )
            text += [f"  {problem}" for problem in panel.problems]
        if not self.problems:
            text.append("no task occurs in two panels that must be apart")
        return text + self.problems


def check_env(
    env_name: str,
    panel_names: tuple[str, ...] = (),
    data_dir: Path | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> CheckReport:
    """Load every task of the panels and let the expert play it; without names, of all panels whose data is here."""
    environment = find_environment(env_name)
    names = panel_names or tuple(name for name in environment.panels if environment.has_data(name, data_dir))
    report = CheckReport()
    panels: dict[str, Panel] = {}
    for name in names:
        progress(f"checking {name}")
        panels[name] = load_panel(env_name, name, data_dir)
        report.panels.append(_check_panel(environment, panels[name], data_dir))
    for together in environment.apart:
        try:
            check_disjoint(*(panels[name] for name in together if name in panels))
        except DataError as error:
            report.problems.append(str(error))
    return report


def _check_panel(environment: Environment, panel: Panel, data_dir: Path | None) -> PanelReport:
    problems: list[str] = []
    turns: list[int] = []
    for task in panel.tasks:
        try:
            won, taken = _play(environment, task, data_dir)
        except DataError as error:
            problems.append(str(error))
            continue
        if won and taken == 0:
            problems.append(f"task {task.id}: the goal holds at the start")
        elif won:
            turns.append(taken)
        elif environment.expert_always_wins:
            problems.append(f"task {task.id}: the expert does not reach the goal in {taken} turns")
    return PanelReport(
        name=panel.name,
        hash=panel.hash,
        num_tasks=len(panel.tasks),
        kinds=dict(sorted(Counter(task.kind for task in panel.tasks).items())),
        num_won=len(turns),
        median_turns=statistics.median(turns) if turns else 0.0,
        longest=max(turns, default=0),
        problems=problems,
    )


def _play(environment: Environment, task: Task, data_dir: Path | None) -> tuple[bool, int]:
    """Whether the expert wins the task, and after how many turns."""
    settings = EnvSettings(name=environment.name, max_turns=MAX_TURNS)
    env = environment.make(settings, data_dir)
    observation, info = env.reset(options={"task": task})
    expert = environment.expert(task, settings, data_dir)
    taken, over = 0, bool(info["won"])
    while not over:
        observation, _, terminated, truncated, info = env.step(expert.act(observation, info))
        taken += 1
        over = terminated or truncated
    return bool(info["won"]), taken
