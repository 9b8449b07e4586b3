"""ALFWorld as a gymnasium environment.

Owns: reward, the cut after `max_turns`, and what `info` says. Called through `envs.text_env.make_env`.
Must not know: prompts, replies, how games are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from envs.alfworld.engine import Engine
from envs.alfworld.games import parsed_game
from envs.records import Task
from envs.settings import EnvSettings
from envs.text_env import Info, TextEnv


class AlfworldEnv(TextEnv):
    """One game at a time. `success_reward` on the turn that reaches the goal, 0 otherwise."""

    def __init__(self, settings: EnvSettings, data_dir: Path | None = None) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._engine: Engine | None = None
        self._turns = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, Info]:
        """Start the task in `options["task"]`. The seed plays no part: a task is one start state."""
        task = (options or {}).get("task")
        if not isinstance(task, Task) or task.env != "alfworld":
            raise ValueError(f'reset needs options={{"task": Task}} with an alfworld task, got {task!r}')
        self._engine = Engine(parsed_game(task.panel, task.index, task.id, self._data_dir))
        self._turns = 0
        return self._engine.reset(), self._info(self._engine)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Play one command; an unknown one is answered with "Nothing happens." and counts as a turn."""
        if self._engine is None:
            raise RuntimeError("step before reset: call reset(options={'task': task}) first")
        observation, score, done = self._engine.step(action)
        self._turns += 1
        truncated = not done and self._turns >= self._settings.max_turns
        return observation, self._settings.success_reward * score, done, truncated, self._info(self._engine)

    def _info(self, engine: Engine) -> Info:
        # `help` is left out as in the published set-up: it never leads anywhere
        admissible = [command for command in engine.admissible() if command != "help"]
        return {"admissible": admissible, "goal": engine.game.task, "won": engine.won(), "place": engine.place()}
