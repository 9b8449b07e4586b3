"""ALFWorld behind the interface of all environments.

Owns: which panels there are, and who plays expert and demonstrator. Called through `envs.environment`. Must not know:
how games are played or stored.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from envs.alfworld.demonstration import Demonstrator, type_names
from envs.alfworld.engine import Engine
from envs.alfworld.env import AlfworldEnv
from envs.alfworld.expert import read_task
from envs.alfworld.games import OFFICIAL_PANELS, PANEL_NAMES, official_file, panel_file, panel_games, stored_game
from envs.alfworld.official import fetch_official
from envs.alfworld.planner import plan
from envs.alfworld.prompt import render
from envs.alfworld.suite import PANEL_SIZES
from envs.data_folder import data_folder
from envs.environment import Demonstrated, Environment, PromptStyle, TaskRow, View, Vocabulary
from envs.records import Task
from envs.settings import EnvSettings


class Alfworld(Environment):
    """Household tasks in text: the embedded suite, and the official games once they are fetched."""

    panels = PANEL_NAMES
    apart = (tuple(PANEL_SIZES), OFFICIAL_PANELS)

    def panel_rows(self, panel: str, data_dir: Path | None = None) -> list[TaskRow]:
        return [TaskRow(game.id, game.kind, game.digest) for game in panel_games(panel, data_dir)]

    def panel_files(self, panel: str, data_dir: Path | None = None) -> tuple[Path, ...]:
        return (panel_file(panel, data_dir),)

    def has_data(self, panel: str, data_dir: Path | None = None) -> bool:
        return panel not in OFFICIAL_PANELS or official_file(panel, data_dir or data_folder()).is_file()

    def make(self, settings: EnvSettings, data_dir: Path | None = None) -> AlfworldEnv:
        return AlfworldEnv(settings, data_dir)

    def render(self, style: PromptStyle, view: View) -> str:
        return render(style, view)

    def expert(self, task: Task, settings: EnvSettings, data_dir: Path | None = None) -> PlannerExpert:
        return PlannerExpert(task, data_dir)

    def demonstrator(
        self, task: Task, settings: EnvSettings, rng: random.Random, detour_rate: float
    ) -> SweepingDemonstrator:
        return SweepingDemonstrator(rng, detour_rate)

    def trace(self, task: Task, actions: Iterable[str], data_dir: Path | None = None) -> Iterator[dict[str, Any]]:
        """Exactly the text engine's words (`help` included), reward 1 at the goal; actions after the end of a game are
        played too, as TextWorld does."""
        engine = Engine(stored_game(task.panel, task.index, task.id, data_dir).game())
        observation, reward, done = engine.reset(), float(engine.won()), engine.won()
        for action in (None, *actions):
            if action is not None:
                observation, reward, done = engine.step(action)
            yield {"observation": observation, "admissible": engine.admissible(), "reward": reward, "done": done}

    def typed(self, text: str) -> str:
        return text.lower()

    def fetch(self, source: Path, data_dir: Path | None, progress: Callable[[str], None]) -> list[str]:
        return fetch_official(source, data_dir).lines()

    def vocabulary(self) -> Vocabulary:
        """`verb name number` is one token, and so is the bare name: copying a command is copying a token."""
        verbs = "go to|open|close|examine|use|take|from|move|with|clean|heat|cool|at"
        return Vocabulary(
            names=rf"(?:(?<![a-z])(?:{verbs}) )?\b[a-z]+ \d+\b",
            parts=r"(?:(?P<verb>.*) )?(?P<name>[a-z]+) (?P<number>\d+)",
            words=tuple(type_names()),
            num_merges=256,
            max_phrases=400,
        )


class PlannerExpert:
    """Follows a plan made from everything that the game knows; looks around where there is none."""

    def __init__(self, task: Task, data_dir: Path | None) -> None:
        engine = Engine(stored_game(task.panel, task.index, task.id, data_dir).game())
        self._commands = list(plan(engine) or ())

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        return self._commands.pop(0) if self._commands else "look"


class SweepingDemonstrator:
    """`envs.alfworld.demonstration.Demonstrator`, which learns its task from the first goal that it is shown."""

    def __init__(self, rng: random.Random, detour_rate: float) -> None:
        self._rng = rng
        self._detour_rate = detour_rate
        self._demonstrator: Demonstrator | None = None

    def decide(self, observation: str, info: Mapping[str, Any]) -> Demonstrated:
        if self._demonstrator is None:
            self._demonstrator = Demonstrator(read_task(info["goal"]), self._rng, self._detour_rate)
        command, thought = self._demonstrator.decide(list(info["admissible"]))
        return Demonstrated(action=command, thought=thought, plan=self._demonstrator.plan)
