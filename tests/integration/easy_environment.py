"""An environment that a policy without skill wins half the time: the tasks with an even number, by any reply at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from envs.environment import Environment, Expert, PromptStyle, TaskRow, View
from envs.records import Task
from envs.reply import Reply
from envs.settings import EnvSettings
from envs.text_env import TextEnv

LAST_TURN = 2


class EasyEnv(TextEnv):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        assert options is not None
        self.number, self.turns = int(options["task"].id), 0
        return f"n{self.number}", self._info(False)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turns += 1
        over = self.turns == LAST_TURN
        won = over and self.number % 2 == 0
        return f"n{self.number} t{self.turns}", float(won), over, False, self._info(won)

    def _info(self, won: bool) -> dict[str, Any]:
        return {"admissible": [], "goal": "go", "won": won}


class Easy(Environment):
    panels = ("train", "test")
    apart = (("train", "test"),)

    def panel_rows(self, panel: str, data_dir: Path | None = None) -> list[TaskRow]:
        first = 0 if panel == "train" else 100
        return [TaskRow(str(number), "any", str(number)) for number in range(first, first + 4)]

    def make(self, settings: EnvSettings, data_dir: Path | None = None) -> TextEnv:
        return EasyEnv()

    def render(self, style: PromptStyle, view: View) -> str:
        return f"{view.goal} {view.observation}"

    def parse(self, text: str) -> Reply:
        """Any reply is in the right format: the policy of the test knows how to end one, not how to begin it."""
        return Reply(action=text, format_valid=True, has_action=True)

    def allows(self, action: str, info: Any) -> bool:
        return True

    def expert(self, task: Task, settings: EnvSettings, data_dir: Path | None = None) -> Expert:
        raise NotImplementedError
